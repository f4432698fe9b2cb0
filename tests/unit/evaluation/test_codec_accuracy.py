import numpy as np
import pytest
import torch

from hyperfleet.cloud.generator import ParameterGenerator
from hyperfleet.evaluation.codec_accuracy import NO_HEAD, LiveFeatures, measure_codecs, reference
from hyperfleet.evaluation.codec_report import codec_table, write_codec_report
from hyperfleet.messages import HeadLayout, ModelLabel
from hyperfleet.nn import HeadGenerator, HeadGeneratorConfig

LABEL = ModelLabel(model="generator", version="1", task="open-ended-qa")


@pytest.fixture(scope="module")
def results():
    """Heads that answer right by construction: labels are what the exact heads say."""
    torch.manual_seed(0)
    module = HeadGenerator(HeadGeneratorConfig(adr=None, offset_init=1.0), HeadLayout(num_classes=12))
    module.base.normal_(std=0.1)
    generator = ParameterGenerator(module.requires_grad_(False))
    rng = np.random.default_rng(0)
    batches = []
    for size in (40, 40, 17):
        anchor, hidden = (rng.standard_normal((size, width), dtype=np.float32) for width in (192, 96))
        flat = module(torch.from_numpy(anchor)).numpy()
        weight, bias = flat[:, : 12 * 96].reshape(size, 12, 96), flat[:, 12 * 96 :]
        label = (np.einsum("nch,nh->nc", weight, hidden) + bias).argmax(axis=1)
        batches.append(LiveFeatures(anchor=anchor, hidden=hidden, label=label))
    return measure_codecs(generator, batches, label=LABEL)


def test_exact_heads_answer_all_and_coarse_ones_fewer(results) -> None:
    by_name = {result.codec: result for result in results}
    assert by_name["fp32"].correct.all()
    assert len(by_name["fp32"].correct) == 97
    assert by_name["fp32"].relative_error == 0
    assert by_name["fp16"].correct.mean() > 0.98
    assert by_name[NO_HEAD].correct.mean() < by_name["rank1"].correct.mean() < 1
    errors = [by_name[f"rank{rank}"].relative_error for rank in (1, 2, 4, 8)]
    assert errors == sorted(errors, reverse=True)
    assert by_name["delta-int8"].relative_error < by_name["rank8"].relative_error
    assert reference(results) is by_name["fp32"]


def test_the_report_tells_bytes_differences_and_what_they_are_worth(results, tmp_path) -> None:
    table = codec_table(results, title="codecs")
    rows = {cells[0].text: [cell.text for cell in cells] for cells in table.rows}
    assert rows["fp32"][1:5] == ["4,656", "1.0", "100.0%", ""]
    assert rows["rank1"][1] == f"{2 * (12 + 96 + 12):,}"
    lost = 100 - 100 * next(each for each in results if each.codec == "rank1").correct.mean()
    assert rows["rank1"][4] == f"-{lost:.1f}"
    assert rows["rank4"][-2] == "15.41"
    page = write_codec_report(results, tmp_path / "out", title="codecs & bytes").read_text()
    assert "codecs &amp; bytes" in page
    assert page.count("<svg") == 1
    lines = (tmp_path / "out" / "codecs.csv").read_text().splitlines()
    assert len(lines) == 1 + len(results)
