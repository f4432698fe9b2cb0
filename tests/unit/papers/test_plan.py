"""The plan of the tables: each cell once, and cells share warm models where they can."""

from collections import defaultdict

import pytest

from hyperfleet.errors import ConfigError, UnknownNameError
from hyperfleet.methods import METHODS
from hyperfleet.nn import ENCODERS
from hyperfleet.papers.experiments.cell import CellSpec
from hyperfleet.papers.experiments.plan import (
    AS_PRINTED,
    DEFAULT_FRAMES,
    FRAMES,
    HEAD_FORMS,
    MODULES,
    PRESETS,
    WITH_DUET,
    cells,
    preset,
    spec_of,
    warm_key,
    warm_spec,
)
from hyperfleet.tasks import MULTIPLE_CHOICE, OPEN_ENDED_QA, RETRIEVAL, TASKS

DATASETS = {"fleetqa": tuple(TASKS), "msvd-qa": (OPEN_ENDED_QA,)}


@pytest.mark.parametrize("name", PRESETS)
def test_no_cell_is_planned_twice_and_none_shares_a_folder(name: str) -> None:
    planned = cells(preset(name), DATASETS)
    assert len(set(planned)) == len(planned)
    assert len({spec.key for spec in planned}) == len(planned)


def test_planned_are_all_rows_of_the_main_tables_with_every_seed_and_ablations_with_their_own() -> None:
    planned = cells(preset("demo"), DATASETS)
    asked = {(s.dataset, s.train.task, s.train.method, s.train.seed, s.num_frames) for s in planned}
    for seed in preset("demo").seeds:
        for name in WITH_DUET:
            assert ("fleetqa", OPEN_ENDED_QA, name, seed, None) in asked
            assert (("fleetqa", RETRIEVAL, name, seed, None) in asked) == (name != "duet")
    for name in (*MODULES, *HEAD_FORMS, *AS_PRINTED):
        expected = set(preset("demo").seeds) if name in AS_PRINTED else {0}
        assert {seed for data, _, method, seed, _ in asked if (data, method) == ("fleetqa", name)} == expected
    frames = {n for data, _, m, seed, n in asked if (data, m, seed) == ("fleetqa", "fine_tuning", 0)}
    assert frames == {n if n != DEFAULT_FRAMES else None for n in FRAMES} | {None}
    assert {task for data, task, *_ in asked if data == "msvd-qa"} == {OPEN_ENDED_QA}
    assert {method for _, task, method, *_ in asked if task == MULTIPLE_CHOICE} <= {*WITH_DUET}


def test_every_method_of_the_catalogue_has_a_cell() -> None:
    assert {spec.train.method for spec in cells(preset("smoke"), DATASETS)} == set(METHODS)


def test_frames_that_encoders_take_anyway_are_left_out_of_the_name() -> None:
    size = preset("smoke")
    spec = spec_of(size, "fleetqa", OPEN_ENDED_QA, "fine_tuning", 0, DEFAULT_FRAMES)
    assert spec == spec_of(size, "fleetqa", OPEN_ENDED_QA, "fine_tuning", 0)
    assert {ENCODERS[p.train.encoder](64).num_frames for p in PRESETS.values()} == {DEFAULT_FRAMES}


@pytest.mark.parametrize("name", PRESETS)
def test_cells_share_a_warm_model_only_where_its_training_is_the_same(name: str) -> None:
    trainings = defaultdict(set)
    for spec in cells(preset(name), DATASETS):
        warm = warm_spec(spec)
        if warm is not None:
            assert warm.train.stages()[0] == spec.train.stages()[0]
            trainings[warm_key(warm)].add(warm)
    assert all(len(each) == 1 for each in trainings.values())


def warm_of(method: str, num_frames: int | None = None) -> CellSpec | None:
    return warm_spec(spec_of(preset("smoke"), "fleetqa", OPEN_ENDED_QA, method, 0, num_frames))


def test_methods_that_begin_alike_begin_with_one_model() -> None:
    alike = ("fine_tuning", "f_hyper_trained", "cdc_mmpg", "cdc_mmpg_rank8", "stable_synth_net")
    assert len({warm_of(name) for name in alike}) == 1
    assert warm_of("duet") == warm_of("fine_tuning", 5)
    assert warm_of("duet") != warm_of("fine_tuning")


@pytest.mark.parametrize("method", ["f_linear", "f_hyper", "cdc_mmpg_as_printed"])
def test_methods_without_a_warm_stage_begin_with_none(method: str) -> None:
    assert warm_of(method) is None


def test_nothing_to_plan_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least one data set"):
        cells(preset("smoke"), {})
    with pytest.raises(UnknownNameError, match="smoke"):
        preset("huge")
