import pytest

from hyperfleet.tasks import RETRIEVAL
from serve_apps.served_models import ModelTable
from tests.worlds.small_bundles import MAX_FEATURES, write_bundle


@pytest.fixture(scope="session")
def bundles(tmp_path_factory):
    """Two models for questions, one of them of rank 2, and one for retrieval."""
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
