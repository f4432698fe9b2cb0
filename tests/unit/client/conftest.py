import pytest

from serve_apps.served_models import ModelTable
from tests.worlds.small_bundles import MAX_FEATURES, write_bundle


@pytest.fixture(scope="session")
def table(tmp_path_factory):
    """One small model of the real service."""
    folder = write_bundle(tmp_path_factory.mktemp("bundles") / "qa")
    return ModelTable(
        {"qa": str(folder)}, tracking_uri="sqlite:///none.db", torch_threads=1, max_features=MAX_FEATURES
    )
