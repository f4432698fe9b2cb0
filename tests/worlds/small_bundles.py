"""Untrained bundles of the tiny encoder, as the service loads them."""

import torch

from hyperfleet import bundle
from hyperfleet.nn import ENCODERS, HeadGeneratorConfig
from hyperfleet.tasks import OPEN_ENDED_QA

MAX_FEATURES = 8


def write_bundle(folder, *, seed=0, task=OPEN_ENDED_QA, num_classes=11, **generator):
    folder.parent.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    config = bundle.BundleConfig(
        task=task,
        method="cdc_mmpg",
        seed=seed,
        num_classes=num_classes,
        encoder=ENCODERS["tiny"](vocab_size=40),
        generator=HeadGeneratorConfig(offset_init=1.0, **generator),
    )
    empty = folder.parent / "empty.json"
    empty.write_text("{}")
    model = bundle.build_model(config).requires_grad_(False)
    answers = empty if task == OPEN_ENDED_QA else None
    return bundle.save_bundle(folder, config, model, tokenizer_file=empty, answers_file=answers)
