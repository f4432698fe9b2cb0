import pytest

from tests.worlds.rendered_fleet import Place, make_place


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A data set and models that tests only read."""
    return make_place(tmp_path_factory.mktemp("rendered"))
