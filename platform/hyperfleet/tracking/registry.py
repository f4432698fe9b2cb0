"""Generators in the MLflow model registry, as plain files without pickle or code.

A registered version points to a bundle folder among the artifacts of its training run. The folder is named
after a digest of its files, so a version never changes and a damaged copy is detected.
"""

import contextlib
import hashlib
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse

import mlflow.artifacts
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from hyperfleet.errors import CheckpointError, ConfigError, ModelNotRegisteredError, ServiceError
from hyperfleet.scratch import forget_unused, mark_used, own_cache
from hyperfleet.tracking.mlflow_store import (
    absolute_uri,
    connect,
    default_tracking_uri,
    quiet_mlflow,
    shown,
    sqlite_file,
)
from hyperfleet.tracking.model_names import ALIAS, GENERATOR_NAME, NEWEST

BUNDLE_FILES = ("answers.json", "config.json", "model.safetensors", "tokenizer.json")
# Retrieval and multiple choice have no list of answers. Losing the list changes the digest.
_OPTIONAL = frozenset({"answers.json"})
LOCAL = "local"
REMEDY = (
    "train one with `hyperfleet train` (a static one with --train.method fine_tuning), name a bundle "
    "folder instead, or point MLFLOW_TRACKING_URI at another store"
)

_MODEL_URI = re.compile(r"models:/(?P<name>[\w. -]+)(?:/(?P<version>\d+)|@(?P<alias>[\w. -]+))")


@dataclass(frozen=True, kw_only=True, slots=True)
class ResolvedBundle:
    """A bundle folder on this machine and its origin.

    Attributes:
        uri: always resolves to this version, unlike an alias.
        name: registered name, or "local" for a folder given by path.
        version: registered version, or "local-" and the start of the folder's digest.
        run_id: the training run, "" for a local folder.
        local_dir: folder with the files of `BUNDLE_FILES`.
    """

    uri: str
    name: str
    version: str
    run_id: str
    local_dir: Path


def register_bundle(
    bundle_dir: Path,
    run_id: str,
    *,
    tracking_uri: str,
    alias: str = ALIAS,
    name: str = GENERATOR_NAME,
    tags: Mapping[str, str] | None = None,
) -> str:
    """Log the bundle's files with the run, register them as a new version and point `alias` to it.

    If the run has registered the same files before, nothing changes.

    Returns:
        The version, "1" for the first.

    Raises:
        CheckpointError: the folder lacks a bundle file.
        ServiceError: the store refuses or cannot be reached.
    """
    artifact_path = f"generator/{bundle_digest(bundle_dir)}"
    client = connect(absolute_uri(tracking_uri))
    try:
        with quiet_mlflow():
            for file in _files_of(bundle_dir):
                client.log_artifact(run_id, str(bundle_dir / file), artifact_path)
            if not client.search_registered_models(f"name = '{name}'"):
                client.create_registered_model(name, description="Parameter generators of HyperFleet")
            source = f"runs:/{run_id}/{artifact_path}"
            for known in client.search_model_versions(f"name = '{name}'"):
                # Repeating a finished run adds no version and leaves the alias alone.
                if known.source == source:
                    return str(known.version)
            created = client.create_model_version(name, source, run_id, tags=dict(tags or {}))
            version = str(created.version)
            client.set_registered_model_alias(name, alias, version)
    except MlflowException as error:
        raise ServiceError(
            f"{bundle_dir} cannot be registered in {shown(client.tracking_uri)}: {error}"
        ) from error
    return version


def resolve_bundle(model: str = NEWEST, tracking_uri: str | None = None) -> ResolvedBundle:
    """Find the files of a generator.

    Args:
        model: "models:/name@alias", "models:/name/3", or the path of a bundle folder.
        tracking_uri: the store to search; None means `default_tracking_uri()`.

    Raises:
        ModelNotRegisteredError: there is no such model or folder.
        ConfigError: `model` has none of the three forms.
        CheckpointError: the files are missing, incomplete or not those that were registered.
        ServiceError: the store cannot be reached.
    """
    if not model.startswith("models:"):
        return _resolve_folder(Path(model))
    with _registry(model, tracking_uri) as client:
        found = _find(client, model)
        local_dir = _fetch(client, found)
    return ResolvedBundle(
        uri=_version_uri(found),
        name=found.name,
        version=str(found.version),
        run_id=str(found.run_id),
        local_dir=local_dir,
    )


def resolved_uri(model: str, tracking_uri: str | None = None) -> str:
    """Return the `ResolvedBundle.uri` that `model` resolves to now, without reading its files.

    Raises:
        ModelNotRegisteredError, ConfigError, ServiceError: see `resolve_bundle`.
    """
    if not model.startswith("models:"):
        return str(Path(model).expanduser().absolute())
    with _registry(model, tracking_uri) as client:
        return _version_uri(_find(client, model))


@contextlib.contextmanager
def _registry(model: str, tracking_uri: str | None) -> Iterator[MlflowClient]:
    uri = absolute_uri(tracking_uri) if tracking_uri else default_tracking_uri()
    database = sqlite_file(uri)
    if database is not None and not database.exists():
        raise ModelNotRegisteredError(
            f"no generator {model}: the store {shown(uri)} does not exist yet; {REMEDY}"
        )
    try:
        yield connect(uri)
    except MlflowException as error:
        raise ServiceError(f"the registry {shown(uri)} failed while looking for {model}: {error}") from error


def _version_uri(found: ModelVersion) -> str:
    return f"models:/{found.name}/{found.version}"


def bundle_digest(bundle_dir: Path) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of the bundle's files.

    Raises:
        CheckpointError: a file is missing.
    """
    digest = hashlib.sha256()
    for name in _files_of(bundle_dir):
        try:
            with (bundle_dir / name).open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise CheckpointError(
                f"{bundle_dir} is not a complete bundle: {name} cannot be read ({error.strerror}); "
                f"expected the files {', '.join(BUNDLE_FILES)}, as `hyperfleet train` writes them"
            ) from error
    return digest.hexdigest()[:16]


def _files_of(bundle_dir: Path) -> list[str]:
    return [name for name in BUNDLE_FILES if name not in _OPTIONAL or (bundle_dir / name).exists()]


def _resolve_folder(folder: Path) -> ResolvedBundle:
    folder = folder.expanduser().absolute()
    if not folder.is_dir():
        raise ModelNotRegisteredError(
            f"no generator at {folder}: no such folder; a registered model is named {NEWEST} or "
            f"models:/{GENERATOR_NAME}/<version>; {REMEDY}"
        )
    version = f"{LOCAL}-{bundle_digest(folder)}"
    return ResolvedBundle(uri=str(folder), name=LOCAL, version=version, run_id="", local_dir=folder)


def _find(client: MlflowClient, model: str) -> ModelVersion:
    wanted = _MODEL_URI.fullmatch(model)
    if wanted is None:
        raise ConfigError(
            f"{model!r} does not name a model; expected models:/<name>@<alias>, models:/<name>/<version> or "
            "the path of a bundle folder"
        )
    name = wanted["name"]
    if not client.search_registered_models(f"name = '{name}'"):
        names = [each.name for each in client.search_registered_models()]
        held = f"it holds {', '.join(names)}" if names else "it holds no model"
        raise ModelNotRegisteredError(
            f"no generator {model} in {shown(client.tracking_uri)}: {held}; {REMEDY}"
        )
    versions = {str(each.version): each for each in client.search_model_versions(f"name = '{name}'")}
    aliases = {alias: str(version) for alias, version in client.get_registered_model(name).aliases.items()}
    version = wanted["version"] or aliases.get(wanted["alias"])
    if version not in versions:
        held = ", ".join(sorted(versions, key=int)) or "none"
        named = ", ".join(f"{alias} -> {target}" for alias, target in aliases.items()) or "none"
        raise ModelNotRegisteredError(
            f"no generator {model} in {shown(client.tracking_uri)}: its versions are {held} "
            f"and aliases {named}; {REMEDY}"
        )
    return versions[version]


def _fetch(client: MlflowClient, found: ModelVersion) -> Path:
    prefix, source = f"runs:/{found.run_id}/", found.source or ""
    if not found.run_id or not source.startswith(prefix):
        raise CheckpointError(
            f"version {found.version} of {found.name} was not registered by hyperfleet (source {source!r}); "
            "choose another version"
        )
    artifact_path = source.removeprefix(prefix)
    artifact_uri = f"{client.get_run(found.run_id).info.artifact_uri}/{artifact_path}"
    location = urlparse(artifact_uri)
    expected = artifact_path.rsplit("/", maxsplit=1)[-1]
    if location.scheme in {"", "file"}:
        folder = Path(mlflow.artifacts.download_artifacts(artifact_uri, tracking_uri=client.tracking_uri))
        _check_digest(folder, expected)
        return folder
    return _download(artifact_uri, client.tracking_uri, expected)


def _download(artifact_uri: str, tracking_uri: str, expected: str) -> Path:
    cache = own_cache("bundles")
    folder = cache / expected
    if folder.exists():
        _check_digest(folder, expected)
        mark_used(folder)
        return folder
    forget_unused(cache)
    with tempfile.TemporaryDirectory(dir=cache) as partial:
        mlflow.artifacts.download_artifacts(artifact_uri, dst_path=partial, tracking_uri=tracking_uri)
        fetched = Path(partial) / expected
        _check_digest(fetched, expected)
        try:
            fetched.rename(folder)
        except OSError:
            # Another process on this machine was faster; its files have the same digest.
            shutil.rmtree(fetched)
    return folder


def _check_digest(folder: Path, expected: str) -> None:
    got = bundle_digest(folder)
    if got != expected:
        raise CheckpointError(
            f"the files in {folder} are not those that were registered: digest {got}, "
            f"expected {expected}; delete the folder if it is a download, "
            "otherwise choose another version or train again"
        )
