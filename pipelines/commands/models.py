"""Options of the commands that train and measure models: train, tables, codecs."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from hyperfleet.cloud.train_config import TrainConfig
from hyperfleet.datasets.fleetqa.scales import USUAL_TRAITS, with_traits
from hyperfleet.datasets.task_names import TASK_NAMES
from hyperfleet.errors import ConfigError
from hyperfleet.tracking.model_names import NEWEST, NEWEST_STATIC
from pipelines.commands.parsing import default

Size = Literal["smoke", "demo", "paper"]
OWN_STORE = default("$MLFLOW_TRACKING_URI or ./mlflow.db")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainRunConfig:
    """Train one method with Ray Train and register its model.

    Attributes:
        data: a rendered data set (`hyperfleet data render`).
        output: folder for checkpoints and bundles; the same folder resumes an interrupted run.
        train: method, encoder, seed and schedule.
        num_workers: Ray Train workers, one core or one GPU each.
        min_workers: fewest workers to start with if the cluster has no room for more.
        use_gpu: give each worker a GPU.
        warm_start: a bundle whose device model replaces the first stage.
        tracking_uri: MLflow store.
        max_failures: restarts of the workers after one has died.
    """

    data: Path = Path("data/demo")
    output: Path = Path("outputs/train")
    train: TrainConfig = field(default_factory=TrainConfig)
    num_workers: int = 1
    min_workers: Annotated[int | None, default("all of them")] = None
    use_gpu: bool = False
    warm_start: Annotated[Path | None, default("train the first stage")] = None
    tracking_uri: Annotated[str | None, OWN_STORE] = None
    max_failures: int = 2

    def __post_init__(self) -> None:
        if self.num_workers < 1:
            raise ConfigError(f"TrainRunConfig.num_workers must be at least 1, got {self.num_workers}")
        if self.min_workers is not None and not 1 <= self.min_workers <= self.num_workers:
            raise ConfigError(
                f"TrainRunConfig.min_workers must be from 1 to num_workers={self.num_workers}, or left out, "
                f"got {self.min_workers}"
            )
        for num_workers in range(self.min_workers or self.num_workers, self.num_workers + 1):
            if self.train.batch_size % num_workers:
                raise ConfigError(
                    f"a batch of {self.train.batch_size} cannot be divided evenly among {num_workers} "
                    "workers; choose a multiple of the number of workers"
                )


@dataclass(frozen=True, kw_only=True, slots=True)
class TablesConfig:
    """Write every table of both papers: paper / ours.

    Attributes:
        train: first train the missing cells of this size: smoke (minutes, a trial), demo (hours on two
            cores) or paper (the papers' epochs and batch, All-in-One-Ti, for a GPU).
        size: size to show when nothing is trained.
        personal: what FleetQA's devices have of their own: words, taste, camera. Without a value it is the
            control, in which there is nothing to gain. Each choice has its own data set and cells.
        data: folders of prepared data sets besides FleetQA (`hyperfleet data prepare`).
        tasks: tasks to train.
        seeds: seeds of the main tables.
        workers: cells trained at once on this machine, one core (paper: one GPU) each; ignored on a cluster
            named by RAY_ADDRESS.
        tracking_uri: MLflow store.
        output: folder of cells and tables.
    """

    train: Annotated[Size | None, default("train nothing, show the finished cells of --size")] = None
    size: Size = "demo"
    personal: tuple[str, ...] = USUAL_TRAITS
    data: Annotated[tuple[Path, ...], default("none")] = ()
    tasks: Annotated[tuple[str, ...] | None, default("all of each data set")] = None
    seeds: Annotated[tuple[int, ...] | None, default("those of the size")] = None
    workers: Annotated[int | None, default("one per core, or per GPU")] = None
    tracking_uri: Annotated[str | None, OWN_STORE] = None
    output: Path = Path("outputs/tables")

    def __post_init__(self) -> None:
        unknown = sorted(set(self.tasks or ()) - set(TASK_NAMES))
        if unknown:
            raise ConfigError(
                f"TablesConfig.tasks must be of {', '.join(TASK_NAMES)}, got {', '.join(unknown)}"
            )
        if self.seeds is not None and (not self.seeds or len(set(self.seeds)) != len(self.seeds)):
            raise ConfigError(f"TablesConfig.seeds needs different seeds, got {self.seeds}")
        if self.workers is not None and self.workers < 1:
            raise ConfigError(f"TablesConfig.workers must be >= 1, or left out, got {self.workers}")
        with_traits("demo", self.personal)  # refuses an unknown trait


@dataclass(frozen=True, kw_only=True, slots=True)
class CodecsConfig:
    """Measure accuracy against bytes of each head codec on the live streams, without a service.

    Attributes:
        model: models:/name@alias, models:/name/3 or a bundle folder.
        data: folder of the data set.
        tracking_uri: MLflow store in which the model is registered.
        output: folder of page, Markdown and CSV.
        seed: seed of the anchor frames.
    """

    model: str = NEWEST
    data: Path = Path("data/demo")
    tracking_uri: Annotated[str | None, OWN_STORE] = None
    output: Path = Path("outputs/codecs")
    seed: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadroomConfig:
    """Measure what personalization can bring on a data set, before any generator is trained.

    Attributes:
        data: folder of the data set.
        static_model: models:/name@alias, models:/name/3 or a bundle folder; its static head is the baseline.
        tracking_uri: MLflow store in which the model is registered.
        output: folder of page and Markdown.
    """

    data: Path = Path("data/demo")
    static_model: str = NEWEST_STATIC
    tracking_uri: Annotated[str | None, OWN_STORE] = None
    output: Path = Path("outputs/headroom")
