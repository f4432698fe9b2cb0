"""`hyperfleet plan`: replicas and bandwidth that a fleet needs, from a measured run."""

from dataclasses import replace
from functools import partial
from pathlib import Path

from rich.console import Console

from hyperfleet.bundle import load_device_model, load_generator
from hyperfleet.cloud.generator import ParameterGenerator
from hyperfleet.emulation.feature_table import FeatureTable
from hyperfleet.emulation.inputs import work_of
from hyperfleet.emulation.live_data import open_live_data
from hyperfleet.emulation.run_log import RunLog
from hyperfleet.emulation.timeline.engine import Work
from hyperfleet.emulation.timeline.plan import Material, draw_plan
from hyperfleet.errors import ConfigError
from hyperfleet.evaluation.capacity_report import capacity_table, write_capacity_report
from hyperfleet.evaluation.rendering import to_rich, wide_console
from hyperfleet.messages import ModelLabel
from hyperfleet.planning.bursts import Bursts
from hyperfleet.planning.capacity import CapacityPlan, plan_capacity, predict
from hyperfleet.planning.cloud_fit import Latencies, check_prediction, fit_cloud
from pipelines.commands.fleets import PlanConfig
from pipelines.emulate_fleet import FEATURES_DIR
from pipelines.fleet_models import open_models
from pipelines.show_fleet import fit_sentence, prediction_sentence


def plan(config: PlanConfig, console: Console) -> Path:
    """Fit the queue model to the measured run, check it on the same arrivals, and plan with it.

    Raises:
        ConfigError: the run was not in real time, or the target cannot be met with any number of replicas.
        DataError: there is no log, or it holds too little.
    """
    log, material, work, table = _measured(config)
    answers = log.answers()
    bursts = Bursts.load(config.measured)
    fit = fit_cloud(bursts.num_heads, bursts.seconds, log.scenario.cloud)
    fitted = replace(log.scenario, cloud=fit.model)
    check = check_prediction(
        predict(fitted, draw_plan(fitted, material), work, anchor=table.anchor), Latencies.of(answers)
    )
    console.print(fit_sentence(fit))
    console.print(prediction_sentence(check))
    make = partial(plan_capacity, fitted, material, work, target_p99_s=config.p99_s, anchor=table.anchor)
    plans: list[CapacityPlan] = [make(num_devices=number) for number in config.devices]
    wide = wide_console(console)
    wide.print(to_rich(capacity_table(plans)))
    return write_capacity_report(
        config.output, plans, sentences=(fit_sentence(fit), prediction_sentence(check), plans[0].assumption)
    )


def _measured(config: PlanConfig) -> tuple[RunLog, Material, Work, FeatureTable]:
    log = RunLog.open(config.measured)
    if log.origin["clock"] != "real":
        raise ConfigError(
            f"PlanConfig.measured: {config.measured} ran in virtual time, which measures nothing; "
            "run it with --clock real"
        )
    models = open_models(config.model, config.static_model, config.data, config.tracking_uri)
    data = open_live_data(config.data, models.bundle.encoder.text_length)
    table = FeatureTable.load(FEATURES_DIR / log.origin["features"])
    material = Material.of(table.device_id, data.seen)
    generator = ParameterGenerator(load_generator(models.personal.local_dir), packed=False)
    label = ModelLabel(model=models.personal.name, version=models.personal.version, task=models.bundle.task)
    work = work_of(load_device_model(models.personal.local_dir), generator, log.scenario.codec, label)
    return log, material, work, table
