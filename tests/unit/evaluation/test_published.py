from decimal import Decimal

import pytest

from hyperfleet.evaluation import published
from hyperfleet.messages import FEATURE_BYTES, HeadLayout


def to_printed_digits(value: float, printed: str) -> str:
    """Round `value` to as many decimals as `printed` has."""
    return f"{value:.{max(0, -Decimal(printed).as_tuple().exponent)}f}"


def test_every_printed_delay_follows_from_the_printed_size():
    legible = [delay for delay in published.DELAYS if delay.printed_ms is not None]
    assert len(legible) == 24
    for delay in legible:
        assert to_printed_digits(delay.computed_ms, delay.printed_ms) == delay.printed_ms, delay


def test_cells_our_copy_lost_are_not_invented():
    lost = [delay for delay in published.DELAYS if delay.paper == published.CDC_MMPG]
    assert len(lost) == 24
    assert {delay.printed_ms for delay in lost} == {None}
    assert {delay.table for delay in lost} == {6}


@pytest.mark.parametrize(
    ("dataset", "device_params", "generator_params", "head_bytes"),
    [
        (published.MSRVTT_QA, 11_595_421, 28_100_221, 582_388),
        (published.MSVD_QA, 11_546_921, 18_739_721, 388_388),
        (published.TGIF_QA, 11_599_301, 28_849_061, 597_908),
    ],
)
def test_counts_are_exact_and_round_to_the_printed_ones(dataset, device_params, generator_params, head_bytes):
    num_classes = published.NUM_CLASSES[dataset]
    assert published.device_params(num_classes) == device_params
    assert published.generator_params(num_classes) == generator_params
    assert HeadLayout(num_classes=num_classes).num_bytes == head_bytes
    assert float(published.UPLOAD_KIB) * 1024 == FEATURE_BYTES
    printed_kib = float(published.DOWNLOAD_KIB[dataset])
    assert abs(head_bytes / 1024 - printed_kib) < 0.25

    hyper = published.method(published.CDC_MMPG, dataset, "F-hyper")
    assert hyper.device_params == f"{device_params / 1e6:.1f}M"
    if dataset == published.TGIF_QA:
        assert hyper.cloud_params == "18.7M"  # MSVD-QA's
        assert "28.8M" in hyper.note
    else:
        assert hyper.cloud_params == f"{generator_params / 1e6:.1f}M"


def test_every_row_cites_its_paper_and_table():
    rows = {(r.paper, r.table, r.dataset, r.method) for r in published.METHODS}
    assert len(rows) == len(published.METHODS) == 32
    assert {(r.paper, r.table) for r in published.METHODS} == {
        (published.CDC_MMPG, 1),
        (published.CDC_MMPG, 2),
        (published.CDC_MMPG, 5),
        (published.STABLE_SYNTH_NET, 1),
        (published.STABLE_SYNTH_NET, 6),
    }
    assert {r.paper for r in published.METHODS} == set(published.PAPER_TITLES)
