import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperfleet.errors import ConfigError
from hyperfleet.link.network import PAPER_NETWORKS, NetworkProfile, transfer_s
from hyperfleet.messages import FEATURE_BYTES, HeadLayout

# CDC-MMPG Tab. 6 = StableSynthNet Tab. 5: KiB down, then the printed milliseconds on 4G 5/15 and 5G 50/100.
PRINTED_DOWNLOADS = {
    "MSRVTT-QA": (568.5, 1501, ("111", "37.0", "11.1", "5.55")),
    "MSVD-QA": (379.4, 1001, ("74", "24.7", "7.41", "3.71")),
    "TGIF-QA": (583.8, 1541, ("114", "38.0", "11.4", "5.70")),
}
PRINTED_UPLOAD_MS = ("0.15", "0.05", "0.01", "0.007")


def printed_ms(seconds: float, like: str) -> str:
    decimals = len(like.partition(".")[2])
    return f"{seconds * 1000:.{decimals}f}"


@pytest.mark.parametrize("data_set", PRINTED_DOWNLOADS)
def test_every_printed_download_cell_follows_from_the_printed_size(data_set):
    size_kib, _, cells = PRINTED_DOWNLOADS[data_set]
    for profile, cell in zip(PAPER_NETWORKS.values(), cells, strict=True):
        assert printed_ms(transfer_s(round(size_kib * 1024), profile.downlink_mib_per_s), cell) == cell


@pytest.mark.parametrize("data_set", PRINTED_DOWNLOADS)
def test_exact_head_sizes_give_the_printed_cells_but_for_one_last_digit(data_set):
    _, num_classes, cells = PRINTED_DOWNLOADS[data_set]
    layout = HeadLayout(num_classes=num_classes)
    ours = [
        printed_ms(p.downlink_s(layout.num_bytes), c)
        for p, c in zip(PAPER_NETWORKS.values(), cells, strict=True)
    ]
    # 97 x 1001 parameters are 379.285 KiB where the paper prints 379.4: 3.704 ms instead of 3.705.
    expected = ["74", "24.7", "7.41", "3.70"] if data_set == "MSVD-QA" else list(cells)
    assert ours == expected


def test_every_printed_upload_cell_follows_from_one_feature():
    ours = [
        printed_ms(transfer_s(FEATURE_BYTES, p.uplink_mib_per_s), c)
        for p, c in zip(PAPER_NETWORKS.values(), PRINTED_UPLOAD_MS, strict=True)
    ]
    assert FEATURE_BYTES == 0.75 * 1024
    assert ours == list(PRINTED_UPLOAD_MS)


@given(
    sizes=st.tuples(st.integers(0, 2**40), st.integers(0, 2**40)),
    speed=st.floats(min_value=1e-3, max_value=1e5),
)
def test_a_longer_message_never_arrives_earlier(sizes, speed):
    shorter, longer = sorted(sizes)
    assert 0 <= transfer_s(shorter, speed) <= transfer_s(longer, speed)


def test_bad_networks_are_refused():
    with pytest.raises(ConfigError, match="uplink_mib_per_s must be finite and > 0, got 0"):
        NetworkProfile(name="off", label="off", uplink_mib_per_s=0.0, downlink_mib_per_s=1.0)
    with pytest.raises(ConfigError, match="num_bytes >= 0"):
        transfer_s(-1, 5.0)
