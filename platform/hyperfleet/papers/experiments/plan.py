"""Plan of the cells that the tables of both papers need, at three sizes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from hyperfleet.cloud.train_config import TrainConfig
from hyperfleet.errors import ConfigError, unknown_name
from hyperfleet.methods import method
from hyperfleet.methods.stage import WARM
from hyperfleet.papers.experiments.cell import CellSpec
from hyperfleet.tasks import OPEN_ENDED_QA

FLEETQA = "fleetqa"
# The rows of the main tables, in the papers' order; DUET appears in StableSynthNet's Table 2 alone.
MAIN = ("f_linear", "fine_tuning", "f_hyper", "f_hyper_trained", "cdc_mmpg", "stable_synth_net")
WITH_DUET = (*MAIN[:4], "duet", *MAIN[4:])
MODULES = (
    "cdc_mmpg_fda",
    "cdc_mmpg_fda_clip",
    "cdc_mmpg_adr",
    "cdc_mmpg_joint",
    "stable_synth_net_no_contrastive",
    "stable_synth_net_no_separation",
    "stable_synth_net_no_templates",
)
AS_PRINTED = ("cdc_mmpg_as_printed", "stable_synth_net_as_printed")
HEAD_FORMS = ("cdc_mmpg_rank8", "cdc_mmpg_film")
FRAMES = (2, 3, 4, 5)
# Frames per clip by default; a cell with this explicit number is the same cell.
DEFAULT_FRAMES = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Preset:
    """Amount of training.

    Attributes:
        scale: scale of the rendered data set.
        train: schedule; method, task, seed and frames are filled in per cell.
        seeds: seeds of the main tables and the literal readings.
        ablation_seeds: seeds of ablations and cheaper heads.
    """

    scale: str
    train: TrainConfig
    seeds: tuple[int, ...]
    ablation_seeds: tuple[int, ...]


PRESETS = {
    "smoke": Preset(
        scale="smoke",
        train=TrainConfig(warm_epochs=1, epochs=2, batch_size=16, captions_per_video=2),
        seeds=(0,),
        ablation_seeds=(0,),
    ),
    "demo": Preset(
        scale="demo",
        train=TrainConfig(warm_epochs=6, epochs=2, batch_size=32, captions_per_video=1),
        seeds=(0, 1, 2),
        ablation_seeds=(0,),
    ),
    "paper": Preset(
        scale="paper",
        train=TrainConfig(
            encoder="all_in_one_ti",
            warm_epochs=10,
            epochs=40,
            published_schedule=True,
            batch_size=256,
            learning_rate=1e-4,
        ),
        seeds=(0, 1, 2),
        ablation_seeds=(0,),
    ),
}


def preset(name: str) -> Preset:
    """Return the preset called `name`: smoke, demo or paper.

    Raises:
        UnknownNameError: no such preset.
    """
    if name not in PRESETS:
        raise unknown_name("preset", name, PRESETS)
    return PRESETS[name]


def cells(size: Preset, datasets: Mapping[str, Sequence[str]]) -> tuple[CellSpec, ...]:
    """Return every cell that the tables need, once each, main tables first.

    Args:
        size: schedule and seeds.
        datasets: tasks per data set, e.g. {"fleetqa": ("open-ended-qa", "retrieval")}.

    Raises:
        ConfigError: `datasets` is empty.
    """
    if not datasets:
        raise ConfigError("tables need at least one data set, got none")
    found = dict.fromkeys(
        spec
        for make in (_main, _ablations)
        for dataset, tasks in datasets.items()
        for task in tasks
        for spec in make(size, dataset, task)
    )
    return tuple(found)


def spec_of(
    size: Preset, dataset: str, task: str, name: str, seed: int, num_frames: int | None = None
) -> CellSpec:
    """Return one cell; its name omits the default number of frames."""
    frames = None if num_frames == DEFAULT_FRAMES else num_frames
    return CellSpec(
        dataset=dataset, train=replace(size.train, method=name, task=task, seed=seed, num_frames=frames)
    )


def _main(size: Preset, dataset: str, task: str) -> Iterator[CellSpec]:
    for seed in size.seeds:
        for name in WITH_DUET if task == OPEN_ENDED_QA else MAIN:
            yield spec_of(size, dataset, task, name, seed)


def _ablations(size: Preset, dataset: str, task: str) -> Iterator[CellSpec]:
    if task != OPEN_ENDED_QA:
        return
    # Literal readings are compared like methods: over all seeds.
    for seed in size.seeds:
        for name in AS_PRINTED:
            yield spec_of(size, dataset, task, name, seed)
    for seed in size.ablation_seeds:
        for num_frames in FRAMES:
            yield spec_of(size, dataset, task, "fine_tuning", seed, num_frames)
        for name in (*MODULES, *HEAD_FORMS):
            yield spec_of(size, dataset, task, name, seed)


def warm_spec(spec: CellSpec) -> CellSpec | None:
    """Return the warm stage of the cell; None if its method has none.

    Cells with the same task, seed and number of frames share it.
    """
    train = spec.train
    if train.warm_epochs == 0 or train.stages()[0].name != WARM:
        return None
    generator = method(train.method).generator_config
    frames = train.num_frames
    if generator is not None and generator.sequence is not None:
        frames = generator.sequence.num_frames
    return replace(spec, train=replace(train, method="fine_tuning", num_frames=frames))


def warm_key(spec: CellSpec) -> str:
    """Return the folder name of a warm model."""
    frames = spec.num_frames or DEFAULT_FRAMES
    return f"{spec.dataset}/{spec.train.task}/warm-{frames}frames/seed-{spec.train.seed}"
