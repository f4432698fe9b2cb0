"""Resources shared by all runs on one data set and model pair: models, data, features, device hosts."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property, partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import ray
from rich.console import Console

from actors.device_host import HostSpec, RemoteDeviceHost
from actors.node_folder import open_live_folder
from actors.placement import num_places, placed
from actors.supervised_pool import Job, SupervisedPool
from hyperfleet.bundle import load_device_model, load_generator
from hyperfleet.cloud.shared_generator import SharedGenerator
from hyperfleet.device.group import check_comparable
from hyperfleet.emulation.feature_table import (
    FeatureTable,
    encoding_batches,
    features_digest,
    join_parts,
    kept_features,
    live_samples,
)
from hyperfleet.emulation.live_data import open_live_data
from pipelines.fleet_models import FleetModels, open_models
from pipelines.progress import progress_bar
from pipelines.runtime import connect
from pipelines.storage import for_all_nodes


class FleetHosts:
    """Opens everything once for all runs in its `with`; hosts start when there is work for them.

    Args:
        data: folder of the data set.
        model: models:/name@alias, models:/name/3 or a bundle folder.
        static_model: the model that answers beside it.
        tracking_uri: store of the models; None means $MLFLOW_TRACKING_URI or ./mlflow.db.
        seed: seed of the scenarios; draws the anchor frames.
        hosts: processes that encode and answer; None for one per CPU.

    Attributes:
        models: locations of the models.
        personal: device part of the personalized model.
        shared: its generator.
        live: the data set's live part.
        digest: digest of the features.

    Raises:
        HyperFleetError: data or models cannot be used; raised before any host starts.
    """

    def __init__(
        self,
        *,
        data: Path,
        model: str,
        static_model: str,
        tracking_uri: str | None,
        seed: int,
        hosts: int | None,
    ) -> None:
        self.data, self.seed = data, seed
        self.models = open_models(model, static_model, data, tracking_uri)
        self.personal, self._static = (
            load_device_model(each.local_dir) for each in (self.models.personal, self.models.static)
        )
        check_comparable(self.personal, self._static)
        self.shared = _generator(self.models)
        text_length = self.models.bundle.encoder.text_length
        self.live = open_live_data(data, text_length)
        self.digest = features_digest(
            personal=self.models.personal.local_dir,
            static=self.models.static.local_dir,
            data=data,
            seed=seed,
        )
        self._open_data = partial(open_live_folder, for_all_nodes(data), text_length)
        self._hosts = hosts
        self._table: FeatureTable | None = None
        self._table_ref: Any = None
        self._pool: SupervisedPool | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @cached_property
    def num_hosts(self) -> int:
        """Processes that encode and answer; connects to Ray."""
        connect()
        return self._hosts or num_places("device_host")

    @contextmanager
    def pool(self) -> Iterator[SupervisedPool]:
        """Lend the hosts to a run; if it fails they are discarded, since they may still run its jobs.

        Raises:
            ServiceError: hosts die while they start, or the cluster has no room for one.
        """
        if self._pool is None:
            make = partial(
                RemoteDeviceHost.options(resources=placed("device_host")).remote,
                HostSpec(open_data=self._open_data, seed=self.seed),
                models=ray.put((self.personal, self._static)),
                generator=ray.put(self.shared),
            )
            self._pool = self._stack.enter_context(SupervisedPool(make, self.num_hosts))
        try:
            yield self._pool
        except BaseException:
            self._stack.close()
            self._pool = None
            raise

    def features(self, folder: Path, console: Console | None) -> FeatureTable:
        """Return the devices' features and static answers of the live samples, kept below `folder`.

        Raises:
            DataError: the kept table is damaged.
            ServiceError: hosts die again and again.
        """
        if self._table is None:
            self._table = kept_features(folder, self.digest, lambda: self._encode(console))
            self._table_ref = ray.put(self._table)
        return self._table

    @property
    def table_ref(self) -> Any:
        """The features in Ray's object store, once `features` has returned them."""
        return self._table_ref

    def facts(self) -> list[tuple[str, str]]:
        """Return names and values for the origin and size of models and data."""
        device_params = sum(each.numel() for each in self.personal.parameters())
        cloud_params = sum(array.size for array in self.shared.arrays.values())
        num_devices, num_filming = len(self.live.seen), self.live.num_devices
        return [
            ("model", self.models.personal.uri),
            ("static model", self.models.static.uri),
            ("parameters", f"{device_params:,} on the device, {cloud_params:,} in the cloud"),
            ("classes", f"{self.models.bundle.num_classes:,}"),
            ("first weights of the encoder", self.models.bundle.weights_origin),
            ("data set", str(self.data)),
            ("devices without a live question", f"{num_devices - num_filming:,} of {num_devices:,}"),
            ("questions left out, video broken", f"{self.live.num_skipped:,}"),
        ]

    def _encode(self, console: Console | None) -> FeatureTable:
        """Let the hosts encode every live sample, each clip decoded once."""
        samples = live_samples(self.live)
        batches = encoding_batches(samples)
        parts: list[Any] = []
        with self.pool() as pool, progress_bar(console) as progress:
            bar = progress.add_task("encoding", total=len(samples), note="samples, once for all runs")

            def take(_: Job, part: Any) -> None:
                parts.append(part)
                progress.advance(bar, len(part.rows))

            pool.run((Job(key=i, method="encode", args=(rows,)) for i, rows in enumerate(batches)), take)
        return join_parts(samples, parts, digest=self.digest)


def _generator(models: FleetModels) -> SharedGenerator:
    return SharedGenerator.of(load_generator(models.personal.local_dir))
