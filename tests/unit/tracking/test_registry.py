import re

import pytest

from hyperfleet import bundle
from hyperfleet.errors import CheckpointError, ConfigError, ModelNotRegisteredError
from hyperfleet.tracking.mlflow_store import prepare_store
from hyperfleet.tracking.mlflow_tracker import open_run, run_exists
from hyperfleet.tracking.registry import (
    BUNDLE_FILES,
    GENERATOR_NAME,
    NEWEST,
    register_bundle,
    resolve_bundle,
)

pytestmark = pytest.mark.heavy


def write_bundle(folder, content):
    folder.mkdir()
    for name in BUNDLE_FILES:
        (folder / name).write_text(f"{content} {name}")
    return folder


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store with two versions of one run; the second is the champion. Yields (uri, run id, folder)."""
    folder = tmp_path_factory.mktemp("registry")
    uri = f"sqlite:///{folder}/mlflow.db"
    run_id = open_run(prepare_store(uri), tracking_uri=uri).run_id
    for content in ("old", "new"):
        register_bundle(write_bundle(folder / content, content), run_id, tracking_uri=uri)
    return uri, run_id, folder


def test_bundle_files_are_those_a_bundle_has():
    files = (bundle.ANSWERS_FILE, bundle.CONFIG_FILE, bundle.WEIGHTS_FILE, bundle.TOKENIZER_FILE)
    assert sorted(files) == sorted(BUNDLE_FILES)


def test_the_alias_names_the_newest_and_a_number_any(store):
    uri, run_id, _ = store
    newest = resolve_bundle(NEWEST, uri)
    assert (newest.name, newest.version, newest.run_id) == (GENERATOR_NAME, "2", run_id)
    assert (newest.local_dir / "config.json").read_text() == "new config.json"
    assert newest.uri == f"models:/{GENERATOR_NAME}/2"
    # Registering again from the same run leaves the first version unchanged.
    first = resolve_bundle(f"models:/{GENERATOR_NAME}/1", uri)
    assert (first.local_dir / "config.json").read_text() == "old config.json"
    assert sorted(file.name for file in first.local_dir.iterdir()) == sorted(BUNDLE_FILES)


def test_a_folder_is_a_model_too(store):
    uri, _, folder = store
    local = resolve_bundle(str(folder / "new"), uri)
    assert (local.name, local.run_id, local.local_dir) == ("local", "", folder / "new")
    assert local.version.startswith("local-")
    assert local.version != resolve_bundle(str(folder / "old"), uri).version


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (f"models:/{GENERATOR_NAME}/9", "its versions are 1, 2 and aliases champion -> 2"),
        (f"models:/{GENERATOR_NAME}@best", "its versions are 1, 2 and aliases champion -> 2"),
        ("models:/other@champion", f"it holds {GENERATOR_NAME}"),
        ("no/such/folder", "no such folder"),
    ],
)
def test_a_model_that_is_not_there_is_named_with_those_that_are(store, model, said):
    with pytest.raises(ModelNotRegisteredError, match=re.escape(said)) as raised:
        resolve_bundle(model, store[0])
    assert "hyperfleet train" in str(raised.value)


def test_a_store_that_does_not_exist_is_not_created(tmp_path):
    with pytest.raises(
        ModelNotRegisteredError, match="does not exist yet; train one with `hyperfleet train`"
    ):
        resolve_bundle(NEWEST, f"sqlite:///{tmp_path}/mlflow.db")
    assert not list(tmp_path.iterdir())


def test_a_model_uri_of_another_form_is_refused(store):
    with pytest.raises(ConfigError, match="expected models:/<name>@<alias>"):
        resolve_bundle(f"models:/{GENERATOR_NAME}/latest", store[0])


def test_changed_or_missing_files_are_noticed(store, tmp_path):
    uri, run_id, _ = store
    folder = write_bundle(tmp_path / "bundle", "third")
    version = register_bundle(folder, run_id, tracking_uri=uri, alias="third")
    stored = resolve_bundle("models:/hyperfleet-generator@third", uri).local_dir
    (stored / "config.json").write_text("changed")
    with pytest.raises(CheckpointError, match="not those that were registered"):
        resolve_bundle(f"models:/{GENERATOR_NAME}/{version}", uri)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer\.json cannot be read"):
        register_bundle(folder, run_id, tracking_uri=uri)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json cannot be read"):
        resolve_bundle(str(folder), uri)


def test_files_registered_before_keep_version_and_alias(store):
    uri, run_id, folder = store
    assert register_bundle(folder / "old", run_id, tracking_uri=uri) == "1"
    assert resolve_bundle(NEWEST, uri).version == "2"


def test_a_run_is_known_only_in_its_own_store(store, tmp_path):
    uri, run_id, _ = store
    other = f"sqlite:///{tmp_path}/other.db"
    prepare_store(other)
    assert run_exists(run_id, uri)
    assert not run_exists(run_id, other)
