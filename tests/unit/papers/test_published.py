from decimal import Decimal

import pytest

from hyperfleet.link.network import PAPER_NETWORKS
from hyperfleet.messages import FEATURE_BYTES, HeadLayout
from hyperfleet.papers import published
from hyperfleet.papers.tables import modules

OPEN_ENDED = (published.MSRVTT_QA, published.MSVD_QA, published.TGIF_QA)
BASELINES = ("F-linear", "Fine-tuning", "F-hyper")


def method_row(paper: str, dataset: str, name: str) -> published.PublishedMethod:
    wanted = (paper, dataset, name)
    (record,) = [r for r in published.METHODS if (r.paper, r.dataset, r.method) == wanted]
    return record


def to_printed_digits(value: float, printed: str) -> str:
    """Round `value` to as many decimals as `printed` has."""
    return f"{value:.{max(0, -Decimal(printed).as_tuple().exponent)}f}"


def retrieval_row(paper: str, method: str) -> dict[str, float]:
    (record,) = [r for r in published.RETRIEVAL if (r.paper, r.method) == (paper, method)]
    return dict(zip(published.RETRIEVAL_COLUMNS, map(float, record.recalls), strict=True))


def frames_cell(dataset: str, num_frames: int) -> published.PublishedFrames:
    (record,) = [
        r
        for r in published.FRAMES
        if (r.paper, r.dataset, r.num_frames) == (published.CDC_MMPG, dataset, num_frames)
    ]
    return record


def latency_cell(dataset: str, method: str) -> published.PublishedLatency:
    (record,) = [r for r in published.LATENCIES if (r.dataset, r.method) == (dataset, method)]
    return record


def test_every_printed_delay_follows_from_the_printed_size():
    legible = [delay for delay in published.DELAYS if delay.printed_ms is not None]
    assert len(legible) == 24
    for delay in legible:
        computed = published.delay_ms(delay.network, delay.direction, round(float(delay.printed_kib) * 1024))
        assert to_printed_digits(computed, delay.printed_ms) == delay.printed_ms, delay


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
    assert modules.device_params(dataset) == device_params
    assert modules.cloud_params(dataset, "f_hyper") == generator_params
    assert modules.download_bytes(dataset, "f_hyper") == head_bytes
    assert float(published.UPLOAD_KIB) * 1024 == FEATURE_BYTES
    printed_kib = float(published.DOWNLOAD_KIB[dataset])
    assert abs(head_bytes / 1024 - printed_kib) < 0.25

    for name in (*BASELINES, "Ours"):
        row = method_row(published.CDC_MMPG, dataset, name)
        assert row.device_params == f"{device_params / 1e6:.1f}M"
    hyper = method_row(published.CDC_MMPG, dataset, "F-hyper")
    if dataset == published.TGIF_QA:
        assert hyper.cloud_params == "18.7M"  # MSVD-QA's
        assert "28.8M" in hyper.note
    else:
        assert hyper.cloud_params == f"{generator_params / 1e6:.1f}M"


def test_counts_of_multiple_choice_round_to_the_printed_ones():
    device_params = modules.device_params(published.MULTIPLE_CHOICE)
    generator_params = modules.cloud_params(published.MULTIPLE_CHOICE, "f_hyper")
    assert (device_params, generator_params) == (11_431_683, 37_249)
    assert modules.download_bytes(published.MULTIPLE_CHOICE, "f_hyper") == 772
    hyper = method_row(published.CDC_MMPG, published.MULTIPLE_CHOICE, "F-hyper")
    assert hyper.device_params == f"{device_params / 1e6:.1f}M"
    assert hyper.cloud_params == f"{generator_params / 1e3:.1f}K"


@pytest.mark.parametrize("paper", [published.CDC_MMPG, published.STABLE_SYNTH_NET])
@pytest.mark.parametrize("name", ["F-hyper", "Ours"])
def test_time_delay_is_the_download_at_100_mb_per_s(paper, name):
    for dataset in OPEN_ENDED:
        printed = method_row(paper, dataset, name).time_delay.removeprefix(">= ").removesuffix("ms")
        num_bytes = round(float(published.DOWNLOAD_KIB[dataset]) * 1024)
        computed = published.delay_ms(PAPER_NETWORKS["5g-100"], "down", num_bytes)
        assert to_printed_digits(computed, printed) == printed
    multiple_choice = method_row(paper, published.MULTIPLE_CHOICE, name)
    tgif = method_row(paper, published.TGIF_QA, name)
    assert multiple_choice.time_delay == tgif.time_delay  # TGIF's, although the head has 193 parameters
    own = published.delay_ms(PAPER_NETWORKS["5g-100"], "down", 772)
    assert f"{own:.4f} ms" in multiple_choice.note


def test_every_row_cites_its_paper_and_table():
    rows = {(r.paper, r.table, r.dataset, r.method) for r in published.METHODS}
    assert len(rows) == len(published.METHODS) == 32
    assert len({(r.paper, r.dataset, r.num_frames) for r in published.FRAMES}) == len(published.FRAMES) == 24
    assert len({(r.paper, r.method) for r in published.RETRIEVAL}) == len(published.RETRIEVAL) == 8
    assert len({(r.dataset, r.method) for r in published.LATENCIES}) == len(published.LATENCIES) == 6
    assert all(len(r.recalls) == len(published.RETRIEVAL_COLUMNS) for r in published.RETRIEVAL)

    records = (
        *published.METHODS,
        *published.RETRIEVAL,
        *published.FRAMES,
        *published.LATENCIES,
        *published.DELAYS,
    )
    cited = {(r.paper, r.table) for r in records}
    assert cited == {(t.paper, t.number) for t in published.TABLES}
    assert len(cited) == len(published.TABLES) == 12
    assert {paper for paper, _ in cited} == set(published.PAPER_TITLES)


def test_tables_say_what_they_lack():
    for record in published.METHODS:
        lacks = published.table(record.paper, record.table).lacks
        assert (record.device_params is None) == ("D-Param" in lacks)
        assert (record.cloud_params is None) == ("C-Param" in lacks)
    with pytest.raises(KeyError):
        published.table(published.CDC_MMPG, 7)


def test_the_papers_share_their_baselines_but_for_one_cell():
    datasets = (*OPEN_ENDED, published.MULTIPLE_CHOICE)
    for dataset in datasets:
        for name in BASELINES:
            first, second = (method_row(paper, dataset, name) for paper in published.PAPER_TITLES)
            differs = (dataset, name) == (published.TGIF_QA, "F-linear")
            assert (first.accuracy != second.accuracy) == differs
            assert not differs or (first.accuracy in first.note and second.accuracy in second.note)
    for name in BASELINES:
        assert len({r.recalls for r in published.RETRIEVAL if r.method == name}) == 1


def test_stable_synth_net_is_the_better_one_on_tgif_and_in_tr_at_1_only():
    better = set()
    for dataset in (*OPEN_ENDED, published.MULTIPLE_CHOICE):
        cdc, stable = (
            float(method_row(paper, dataset, "Ours").accuracy)
            for paper in (published.CDC_MMPG, published.STABLE_SYNTH_NET)
        )
        if stable > cdc:
            better.add(dataset)
    cdc_recalls = retrieval_row(published.CDC_MMPG, "Ours")
    for column, recall in retrieval_row(published.STABLE_SYNTH_NET, "Ours").items():
        if recall > cdc_recalls[column]:
            better.add(column)
    assert better == {published.TGIF_QA, "TR@1"}


@pytest.mark.parametrize(
    ("paper", "column"), [(published.CDC_MMPG, "TR@1"), (published.STABLE_SYNTH_NET, "TR@5")]
)
def test_the_only_recall_in_which_fine_tuning_is_better_is_noted(paper, column):
    ours, fine_tuning = retrieval_row(paper, "Ours"), retrieval_row(paper, "Fine-tuning")
    assert [c for c in published.RETRIEVAL_COLUMNS if ours[c] < fine_tuning[c]] == [column]
    (record,) = [r for r in published.RETRIEVAL if (r.paper, r.method) == (paper, "Ours")]
    for recall in (ours[column], fine_tuning[column]):
        assert str(recall) in record.note
    assert column in record.note


def test_frame_numbers_are_of_fine_tuning_and_best_at_five_on_two_data_sets():
    best = {}
    for dataset in OPEN_ENDED:
        fine_tuning = method_row(published.CDC_MMPG, dataset, "Fine-tuning")
        assert frames_cell(dataset, 3).accuracy == fine_tuning.accuracy
        best[dataset] = max(range(2, 6), key=lambda n: float(frames_cell(dataset, n).accuracy))
    assert best == {published.MSRVTT_QA: 5, published.MSVD_QA: 3, published.TGIF_QA: 5}
    assert frames_cell(published.MSRVTT_QA, 3).time_per_epoch == "897s"
    for dataset in (published.MSRVTT_QA, published.TGIF_QA):
        ours = method_row(published.CDC_MMPG, dataset, "Ours")
        assert ours.accuracy == frames_cell(dataset, 5).accuracy
        assert "five frames" in ours.note


def test_latencies_beside_duet_do_not_follow_the_payload():
    def latency_s(dataset: str, method: str) -> float:
        return float(latency_cell(dataset, method).latency.removesuffix("s"))

    by_payload = sorted(OPEN_ENDED, key=lambda dataset: float(published.DOWNLOAD_KIB[dataset]))
    assert by_payload == [published.MSVD_QA, published.MSRVTT_QA, published.TGIF_QA]
    assert latency_s(published.MSVD_QA, published.DUET) > latency_s(published.MSRVTT_QA, published.DUET)
    assert min(OPEN_ENDED, key=lambda dataset: latency_s(dataset, "Ours")) == by_payload[-1]
    for dataset in OPEN_ENDED:
        ours = method_row(published.STABLE_SYNTH_NET, dataset, "Ours")
        assert latency_cell(dataset, "Ours").accuracy == ours.accuracy
        assert latency_s(dataset, "Ours") < latency_s(dataset, published.DUET)


def test_flops_of_duet_fit_one_full_generator_in_multiply_accumulates():
    duet, ours = published.FLOPS
    frames, dim = duet.input_shape
    hidden, num_classes = 96, published.NUM_CLASSES[published.MSRVTT_QA]
    gru = frames * 3 * hidden * (dim + hidden)
    linear = hidden * (dim + 1) * num_classes
    assert f"{gru + linear:,}" in duet.note
    assert f"{(gru + linear) / 1e6:.1f}M" == duet.flops == "28.2M"
    generator = dim * HeadLayout(num_classes=num_classes).num_params
    assert float(ours.flops.removesuffix("M")) * 1e6 < generator / 40
