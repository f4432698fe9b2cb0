import numpy as np
import pytest
import torch

from hyperfleet import bundle
from hyperfleet.cloud.generator import CLASSES_PER_TILE, ParameterGenerator
from hyperfleet.errors import CheckpointError, ConfigError, FeatureError, ServiceError
from hyperfleet.head_codecs import BaseHead
from hyperfleet.messages import HeadLayout
from hyperfleet.nn import ENCODERS, HeadGenerator, HeadGeneratorConfig
from hyperfleet.tasks import OPEN_ENDED_QA

NUM_CLASSES = 7


@pytest.fixture(scope="module")
def module():
    torch.manual_seed(0)
    config = HeadGeneratorConfig(offset_init=1.0)
    return HeadGenerator(config, HeadLayout(num_classes=NUM_CLASSES)).requires_grad_(False).eval()


def features(num):
    return np.random.default_rng(num).standard_normal((num, 192), dtype=np.float32)


@pytest.mark.parametrize("num", [1, 2, 3, 32, 67])
@pytest.mark.parametrize("packed", [True, False])
def test_heads_are_the_modules_heads(module, num, packed):
    anchors = features(num)
    heads = ParameterGenerator(module, packed=packed).generate(anchors)
    torch.testing.assert_close(heads.full(), module(torch.from_numpy(anchors)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("form", ["full", "low_rank", "film"])
@pytest.mark.parametrize("emitter_hidden", [None, 16])
def test_every_form_of_head_is_the_modules(form, emitter_hidden):
    torch.manual_seed(0)
    config = HeadGeneratorConfig(adr=None, form=form, rank=2, emitter_hidden=emitter_hidden)
    module = HeadGenerator(config, HeadLayout(num_classes=NUM_CLASSES)).requires_grad_(False).eval()
    module.emitter.weight.normal_(std=0.05)
    module.base.normal_()
    generator, anchors = ParameterGenerator(module), features(4)
    heads = generator.generate(anchors)
    expected = module(torch.from_numpy(anchors))
    torch.testing.assert_close(heads.full(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(heads.offsets(), expected - module.base, rtol=1e-5, atol=1e-5)
    assert ("film" in generator.codecs) == (form == "film")


@pytest.mark.parametrize("num_classes", [NUM_CLASSES, CLASSES_PER_TILE, CLASSES_PER_TILE + 1])
def test_tiles_are_the_heads_class_by_class(num_classes):
    torch.manual_seed(0)
    layout = HeadLayout(num_classes=num_classes)
    module = HeadGenerator(HeadGeneratorConfig(offset_init=1.0), layout).requires_grad_(False).eval()
    module.emitter.bias.normal_()
    module.base.normal_()
    generator, anchors = ParameterGenerator(module), features(5)
    weight, bias = layout.split(generator.generate(anchors).full().numpy())
    seen = 0
    for tile in generator.tiles(anchors):
        part = slice(tile.first, tile.first + tile.bias.shape[1])
        assert tile.first == seen
        np.testing.assert_allclose(tile.weight, weight[:, part], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(tile.bias, bias[:, part], rtol=1e-5, atol=1e-5)
        seen = part.stop
    assert seen == num_classes
    with pytest.raises(FeatureError):
        next(generator.tiles(np.full((1, 192), np.nan, np.float32)))


def test_weights_can_be_packed_later(module):
    early, late = ParameterGenerator(module), ParameterGenerator(module, packed=False)
    assert late._emit._packed is None
    late.pack()
    packed = late._emit._packed
    late.pack()
    assert late._emit._packed is packed
    assert (packed is None) == (early._emit._packed is None)
    anchors = features(40)
    torch.testing.assert_close(late.generate(anchors).numbers, early.generate(anchors).numbers)


@pytest.mark.parametrize("num", [1, 2, 40])
def test_weights_in_half_precision_make_the_same_heads_but_for_their_rounding(module, num):
    anchors = features(num)
    half = ParameterGenerator(module, weights="fp16")
    half.pack()
    heads = half.generate(anchors).full()
    exact = module(torch.from_numpy(anchors))
    # A float16 is off by a 2048th at most, so each product is; the bias is not rounded.
    emitter = module.emitter
    embedded = module.embed(module.reason(torch.from_numpy(anchors)))
    bound = torch.nn.functional.linear(embedded.abs(), emitter.weight.abs()) * 2.0**-11 + 1e-5
    assert (heads - exact).abs().le(bound).all()
    assert not torch.equal(heads, exact)
    with pytest.raises(ConfigError, match="fp16"):
        next(half.tiles(anchors))


def test_weights_that_half_precision_cannot_hold_are_refused():
    large = HeadGenerator(HeadGeneratorConfig(), HeadLayout(num_classes=NUM_CLASSES)).requires_grad_(False)
    large.emitter.weight[3, 4] = -7e4
    with pytest.raises(ConfigError, match=r"up to 65504, .* has 7e\+04; use weights='fp32'"):
        ParameterGenerator(large, weights="fp16")


def test_a_machine_without_the_product_for_half_precision_says_so(module, monkeypatch):
    def fails(*_):
        raise RuntimeError("not compiled")

    monkeypatch.setattr(torch.ops.quantized, "linear_prepack_fp16", fails)
    with pytest.raises(ConfigError, match="AVX2"):
        ParameterGenerator(module, weights="fp16")


def test_requests_of_one_batch_get_their_own_heads(module):
    generator = ParameterGenerator(module)
    asked = [features(1), features(40), features(3)]
    for own, heads in zip(asked, generator.generate_each(asked), strict=True):
        torch.testing.assert_close(heads.full(), generator.generate(own).full(), rtol=0, atol=1e-5)


def test_a_head_depends_on_its_own_feature_alone(module):
    generator, anchors = ParameterGenerator(module), features(41)
    together = generator.generate(anchors).full()
    alone = torch.cat([generator.generate(anchor[None]).full() for anchor in anchors])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


def test_the_callers_torch_settings_stay(module):
    before = torch.get_num_threads()
    ParameterGenerator(module, num_threads=before + 1).generate(features(1))
    assert torch.get_num_threads() == before
    assert torch.is_grad_enabled()


def test_features_out_of_a_request_body_can_be_used(module):
    read_only = np.frombuffer(features(2).tobytes(), dtype="<f4").reshape(2, 192)
    assert len(ParameterGenerator(module).generate(read_only)) == 2


@pytest.mark.parametrize(
    "bad",
    [np.zeros((1, 191), np.float32), np.zeros((0, 192), np.float32), np.full((1, 192), np.nan, np.float32)],
)
def test_bad_features_are_refused(module, bad):
    with pytest.raises(FeatureError):
        ParameterGenerator(module).generate(bad)
    with pytest.raises(ConfigError, match="num_threads"):
        ParameterGenerator(module, num_threads=0)


def test_unusable_heads_are_noticed():
    broken = HeadGenerator(HeadGeneratorConfig(), HeadLayout(num_classes=NUM_CLASSES))
    ParameterGenerator(broken).check()
    with torch.no_grad():
        broken.f_h.weight[0, 0] = torch.nan
    with pytest.raises(ServiceError, match="NaN or infinite"):
        ParameterGenerator(broken).check()


def test_the_generator_comes_out_of_a_bundle(tmp_path):
    empty = tmp_path / "empty.json"
    empty.write_text("{}")
    for method in ("cdc_mmpg", "fine_tuning"):
        config = bundle.BundleConfig(
            task=OPEN_ENDED_QA,
            method=method,
            seed=0,
            num_classes=NUM_CLASSES,
            encoder=ENCODERS["tiny"](vocab_size=40),
            generator=HeadGeneratorConfig() if method == "cdc_mmpg" else None,
        )
        model = bundle.build_model(config).requires_grad_(False)
        bundle.save_bundle(tmp_path / method, config, model, tokenizer_file=empty, answers_file=empty)
    generator = ParameterGenerator.from_bundle(tmp_path / "cdc_mmpg")
    assert generator.layout == HeadLayout(num_classes=NUM_CLASSES)
    # The static head is the base of what is generated, so the heads start near it.
    device = bundle.load_device_model(tmp_path / "cdc_mmpg")
    heads = generator.generate(features(3))
    assert (heads.full() - device.flat_head()).abs().max() < 0.5
    # Both sides name the static head alike, or no offset could be sent.
    assert generator.base.id == BaseHead(layout=device.layout, flat=device.flat_head()).id
    with pytest.raises(CheckpointError, match="no generator"):
        ParameterGenerator.from_bundle(tmp_path / "fine_tuning")
