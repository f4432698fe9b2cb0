import asyncio
import logging

import numpy as np
import pytest
import torch

from hyperfleet.errors import ConfigError, ModelNotRegisteredError, UnknownNameError
from hyperfleet.tasks import RETRIEVAL
from hyperfleet.tracking.mlflow_store import prepare_store
from hyperfleet.tracking.mlflow_tracker import open_run
from hyperfleet.tracking.registry import register_bundle, resolved_uri
from serve_apps import served_models
from serve_apps.served_models import ModelTable, parse_models
from tests.worlds.small_bundles import write_bundle

pytestmark = pytest.mark.heavy


@pytest.fixture
def registry(tmp_path):
    """A store with one version; call it to register another one."""
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    count = 0

    def register(**spec):
        nonlocal count
        folder = write_bundle(tmp_path / f"bundle-{count}", seed=count, **spec)
        count += 1
        run = open_run(prepare_store(uri), tracking_uri=uri)
        return register_bundle(folder, run.run_id, tracking_uri=uri)

    register()
    return uri, register


def table_of(uri, model="models:/hyperfleet-generator@champion"):
    return ModelTable(parse_models(model), tracking_uri=uri, torch_threads=1, max_features=4)


@pytest.mark.parametrize(
    ("model", "parsed"),
    [
        ("models:/a@champion", {"": "models:/a@champion"}),
        ("/some/folder", {"": "/some/folder"}),
        ("runs/lr=0.1/best", {"": "runs/lr=0.1/best"}),
        ("a=models:/a@champion, b=models:/a/3", {"a": "models:/a@champion", "b": "models:/a/3"}),
    ],
)
def test_models_are_named_in_one_argument(model, parsed) -> None:
    assert parse_models(model) == parsed


@pytest.mark.parametrize("model", ["", "a=", "=x", "a=x,a=y", "a=x,y", "x,y", "a=x,"])
def test_models_without_a_name_of_their_own_are_refused(model) -> None:
    with pytest.raises(ConfigError, match="name=model pairs with different names"):
        parse_models(model)


def test_models_are_found_by_name_and_task(table) -> None:
    assert [each.info.name for each in table] == ["qa", "small", "search"]
    assert table.of_task("open-ended-qa").info.name == "qa"
    assert table.of_task("open-ended-qa", "small").info.name == "small"
    with pytest.raises(UnknownNameError, match="no model 'x'; served are qa, small, search"):
        table.named("x")
    codecs = {each.name: each for each in table.named("small").info.codecs}
    assert codecs["rank2"].head_bytes == 2 * (2 * (11 + 96) + 11)
    assert codecs["rank2"].needs_base
    assert "film" not in codecs


def test_a_table_follows_the_alias_and_leaves_a_pinned_version(registry, caplog) -> None:
    uri, register = registry
    model = "live=models:/hyperfleet-generator@champion,pinned=models:/hyperfleet-generator/1"
    table = table_of(uri, model)
    before = table.named("live")

    async def follow():
        following = asyncio.create_task(table.follow(0.01))
        await asyncio.sleep(0.1)
        assert table.named("live") is before
        register()
        async with asyncio.timeout(30):
            while table.named("live").info.version != "2":
                await asyncio.sleep(0.01)
        following.cancel()

    with caplog.at_level(logging.WARNING):
        asyncio.run(follow())
    assert table.named("pinned").info.version == "1"
    assert before.info.version == "1"  # whoever holds it goes on with it
    assert "model live: version 2 replaces version 1" in caplog.text


@pytest.mark.parametrize("spec", [{"task": RETRIEVAL, "num_classes": 256}, {"num_classes": 12}])
def test_a_version_for_other_devices_changes_nothing_and_is_tried_once(registry, caplog, monkeypatch, spec):
    uri, register = registry
    table = table_of(uri)
    loaded = []
    load = ModelTable._load
    monkeypatch.setattr(ModelTable, "_load", lambda self, *args: loaded.append(args) or load(self, *args))

    async def follow():
        register(**spec)
        following = asyncio.create_task(table.follow(0.01))
        async with asyncio.timeout(30):
            while "stays at version 1" not in caplog.text:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)
        following.cancel()

    asyncio.run(follow())
    assert table.named("hyperfleet-generator").info.version == "1"
    assert caplog.text.count("stays at version 1: models:/hyperfleet-generator/2") == 1
    assert "serve it under a name of its own" in caplog.text
    assert len(loaded) == 1


def test_an_unforeseen_failure_does_not_end_the_following(registry, caplog, monkeypatch) -> None:
    uri, register = registry
    table = table_of(uri)
    resolve, failures = served_models.resolved_uri, [OSError("no space"), MemoryError("full")]

    def sometimes(*args):
        if failures:
            raise failures.pop()
        return resolve(*args)

    monkeypatch.setattr(served_models, "resolved_uri", sometimes)

    async def follow():
        register()
        following = asyncio.create_task(table.follow(0.01))
        async with asyncio.timeout(30):
            while table.named("hyperfleet-generator").info.version != "2":
                await asyncio.sleep(0.01)
        following.cancel()

    asyncio.run(follow())
    assert "stays at version 1: no space" in caplog.text


def test_a_restarted_replica_falls_back_to_the_served_version(registry, caplog) -> None:
    uri, register = registry
    register(num_classes=12)
    alias, proven = "models:/hyperfleet-generator@champion", "models:/hyperfleet-generator/1"
    table = ModelTable(
        {"qa": alias}, tracking_uri=uri, torch_threads=1, max_features=4, proven={"qa": proven}
    )
    assert table.named("qa").info.version == "1"
    assert "model qa starts at version 1" in caplog.text


def test_an_unregistered_model_is_refused_at_once(registry) -> None:
    uri, _ = registry
    with pytest.raises(ModelNotRegisteredError):
        table_of(uri, "models:/hyperfleet-generator/9")
    assert resolved_uri("models:/hyperfleet-generator@champion", uri) == "models:/hyperfleet-generator/1"


def test_weights_in_half_precision_reach_every_model(bundles, table) -> None:
    models = {name: str(folder) for name, folder in bundles.items()}
    half = ModelTable(
        models, tracking_uri="sqlite:///none.db", torch_threads=1, max_features=4, weights="fp16"
    )
    features = np.random.default_rng(0).standard_normal((3, 192), dtype=np.float32)
    for served in half:
        heads = served.generator.generate(features).numbers
        exact = table.named(served.info.name).generator.generate(features).numbers
        assert not torch.equal(heads, exact)
        torch.testing.assert_close(heads, exact, rtol=1e-2, atol=1e-2)
