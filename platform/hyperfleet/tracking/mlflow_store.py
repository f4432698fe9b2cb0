"""Location, creation and opening of the MLflow tracking store.

The default is an SQLite file in the working directory with a folder of artifacts beside it. A URI names a
server or another database.
"""

import contextlib
import logging
import os
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from hyperfleet.errors import ConfigError, ServiceError

EXPERIMENT = "hyperfleet"
DEFAULT_DATABASE = "mlflow.db"
ARTIFACT_FOLDER = "mlartifacts"
DATABASE_SCHEMES = ("sqlite", "postgresql", "mysql", "mssql")
PROBE_TIMEOUT_S = 5.0

_CHATTY_LOGGERS = ("alembic", "mlflow.store.db.utils", "mlflow.store.model_registry.abstract_store")


def default_tracking_uri() -> str:
    """Return $MLFLOW_TRACKING_URI, or `mlflow.db` in the working directory, as an absolute URI."""
    return absolute_uri(os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{DEFAULT_DATABASE}")


def absolute_uri(uri: str) -> str:
    """Make the path in a SQLite URI absolute: Ray workers do not run in the driver's directory.

    Raises:
        ConfigError: `uri` does not name a tracking store.
    """
    if _is_server(uri):
        return uri.rstrip("/")
    try:
        url = make_url(uri)
    except ArgumentError:
        url = None
    if url is None or url.get_backend_name() not in DATABASE_SCHEMES:
        raise ConfigError(
            f"{uri!r} names no tracking store; expected sqlite:///path/mlflow.db, or the URL of an MLflow "
            f"server (http://host:port) or of a database ({', '.join(DATABASE_SCHEMES)}); MLflow's plain "
            "file store is no longer supported"
        )
    if url.get_backend_name() != "sqlite":
        return uri
    if url.database in {None, "", ":memory:"}:
        raise ConfigError(f"{uri!r} is a database in memory, which other processes cannot see; name a file")
    # Not resolve(): messages should show a symbolic link as the user wrote it.
    return url.set(database=str(Path(str(url.database)).absolute())).render_as_string(hide_password=False)


def sqlite_file(uri: str) -> Path | None:
    """Return the database file of an absolute SQLite URI, None for other stores."""
    if _is_server(uri):
        return None
    url = make_url(uri)
    return Path(str(url.database)) if url.get_backend_name() == "sqlite" else None


def shown(uri: str) -> str:
    """Return a store's URI without its password, for messages and logs."""
    parts = urlsplit(uri)
    if parts.password is None:
        return uri
    return parts._replace(netloc=parts.netloc.replace(f":{parts.password}@", ":***@", 1)).geturl()


def prepare_store(uri: str, experiment: str = EXPERIMENT) -> str:
    """Create the store and the experiment if needed, and return the experiment's id.

    Call it in the driver before any worker starts: if several processes open a new SQLite file at once, each
    tries to migrate it and all fail. The lock does the same for two drivers.

    Raises:
        ConfigError: `uri` does not name a tracking store, or the experiment was deleted.
        ServiceError: the server or database cannot be reached or opened.
    """
    uri = absolute_uri(uri)
    database = sqlite_file(uri)
    if database is None:
        return _experiment_id(connect(uri), experiment, artifact_location=None)
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{database}.lock")
        with lock, quiet_mlflow():
            # Absolute, because MLflow's default depends on the working directory of each process.
            artifacts = (database.parent / ARTIFACT_FOLDER).as_uri()
            return _experiment_id(connect(uri), experiment, artifact_location=artifacts)
    except OSError as error:
        raise ServiceError(
            f"the tracking store {shown(uri)} cannot be created: {error}; "
            "set MLFLOW_TRACKING_URI to a writable location"
        ) from error


def connect(uri: str) -> MlflowClient:
    """Return a client of the store, for both runs and models.

    Raises:
        ServiceError: nothing answers, or another version of MLflow made the database.
    """
    # Check first: MLflow's clients silently retry a dead server or unusable file for minutes.
    if _is_server(uri):
        _require_reachable(uri)
    elif (database := sqlite_file(uri)) is not None:
        _require_database(database)
    try:
        with quiet_mlflow():
            return MlflowClient(tracking_uri=uri, registry_uri=uri)
    except (MlflowException, SQLAlchemyError, ImportError) as error:
        raise ServiceError(f"the tracking store {shown(uri)} cannot be opened: {error}") from error


@contextlib.contextmanager
def quiet_mlflow() -> Iterator[None]:
    """Silence MLflow's and alembic's messages about successful table creation and migration."""
    loggers = [logging.getLogger(name) for name in _CHATTY_LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _experiment_id(client: MlflowClient, name: str, *, artifact_location: str | None) -> str:
    try:
        found = client.get_experiment_by_name(name)
        if found is None:
            return str(client.create_experiment(name, artifact_location=artifact_location))
    except MlflowException as error:
        raise ServiceError(
            f"experiment {name!r} cannot be opened in {shown(client.tracking_uri)}: {error}"
        ) from error
    if found.lifecycle_stage == "deleted":
        raise ConfigError(
            f"experiment {name!r} was deleted from {shown(client.tracking_uri)}; "
            f"restore it with `mlflow experiments restore --experiment-id {found.experiment_id}`"
        )
    return str(found.experiment_id)


def _is_server(uri: str) -> bool:
    return uri.startswith(("http://", "https://"))


def _require_reachable(uri: str) -> None:
    try:
        urllib.request.urlopen(f"{uri}/health", timeout=PROBE_TIMEOUT_S).close()
    except urllib.error.HTTPError as error:
        if error.code >= 500:
            raise ServiceError(
                f"the tracking server {shown(uri)} answers {error.code} {error.reason}"
            ) from error
    except (OSError, ValueError) as error:
        raise ServiceError(
            f"no tracking server answers at {shown(uri)} ({error}); start it with `mlflow server`, or unset "
            "MLFLOW_TRACKING_URI to keep runs in a local SQLite file"
        ) from error


def _require_database(database: Path) -> None:
    try:
        with contextlib.closing(sqlite3.connect(database)) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master")
    except sqlite3.Error as error:
        raise ServiceError(
            f"the tracking store {database} cannot be opened: {error}; expected an SQLite file that "
            "MLflow wrote, or a new path in a writable folder; see MLFLOW_TRACKING_URI"
        ) from error
