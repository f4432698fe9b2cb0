import pytest
import torch

from hyperfleet import bundle
from hyperfleet.nn import ENCODERS, HeadGeneratorConfig
from hyperfleet.tasks import OPEN_ENDED_QA, RETRIEVAL
from serve_apps.served_models import ModelTable

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


@pytest.fixture(scope="session")
def bundles(tmp_path_factory):
    """Two answerers, one of them of rank 2, and a retriever."""
    root = tmp_path_factory.mktemp("bundles")
    return {
        "qa": write_bundle(root / "qa"),
        "small": write_bundle(root / "small", seed=1, form="low_rank", rank=2),
        "search": write_bundle(root / "search", seed=2, task=RETRIEVAL, num_classes=256),
    }


@pytest.fixture(scope="session")
def table(bundles):
    models = {name: str(folder) for name, folder in bundles.items()}
    return ModelTable(models, tracking_uri="sqlite:///none.db", torch_threads=1, max_features=MAX_FEATURES)
