from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from hyperfleet.evaluation.facts import RunFacts, StepFact
from hyperfleet.evaluation.latency import PARTS

from hyperfleet.evaluation.answer_key import AnswerKey, FleetScore, Roster, score
from hyperfleet.messages import FEATURE_BYTES, HeadLayout

NUM_CLASSES = 54
NETWORKS = ("4g-5", "4g-15", "5g-50", "5g-100")
LAYOUT = HeadLayout(num_classes=NUM_CLASSES)


def fleet_events(
    rng: np.random.Generator,
    *,
    num_devices: int,
    per_device: int,
    static: float,
    personalized: float,
    fallback_share: float = 0.0,
) -> tuple[pa.Table, AnswerKey, Roster]:
    """Made-up events of heads that are right with the given probabilities; 5% of labels are unknown."""
    n = num_devices * per_device
    device_id = np.repeat(np.arange(num_devices) * 3 + 1, per_device)
    label = np.where(rng.random(n) < 0.05, -1, rng.integers(0, NUM_CLASSES - 1, n))
    wrong = (label + 1) % (NUM_CLASSES - 1)
    speed_mib_per_s = np.array([5, 15, 50, 100])[device_id % 4]
    example_id = rng.permutation(n) + 10_000
    fallback = rng.random(n) < fallback_share
    static_answer = np.where(rng.random(n) < static, label, wrong).clip(0)
    answer = np.where(rng.random(n) < personalized, label, wrong).clip(0)
    seconds = {
        "uplink_s": FEATURE_BYTES / 2**20 / speed_mib_per_s,
        "queue_s": rng.gamma(2.0, 0.004, n),
        "generate_s": rng.gamma(8.0, 0.001, n),
        "downlink_s": LAYOUT.num_bytes / 2**20 / speed_mib_per_s,
        "apply_s": rng.gamma(4.0, 0.0001, n),
    }
    assert tuple(seconds) == tuple(f"{part}_s" for part in PARTS)
    events = pa.table(
        {
            "device_id": device_id.astype(np.int32),
            "example_id": example_id,
            "network": pa.array(np.array(NETWORKS)[device_id % 4]).dictionary_encode(),
            "model_version": ["3"] * n,
            "answer": np.where(fallback, static_answer, answer),
            "static_answer": static_answer,
            "uplink_bytes": np.full(n, FEATURE_BYTES),
            "downlink_bytes": np.where(fallback, 0, LAYOUT.num_bytes),
            **{name: np.where(fallback, np.nan, values) for name, values in seconds.items()},
            "fallback": np.where(fallback, "deadline passed", ""),
        }
    )
    devices = np.unique(device_id)
    seen = np.arange(num_devices) < round(0.8 * num_devices)
    return events, AnswerKey(example_id=example_id, label=label), Roster(device_id=devices, seen=seen)


@pytest.fixture
def fleet() -> Callable[..., tuple[pa.Table, AnswerKey, Roster]]:
    return fleet_events


@pytest.fixture
def scored() -> Callable[..., FleetScore]:
    def build(static: float, personalized: float, *, seed: int = 0, **options: float) -> FleetScore:
        rng = np.random.default_rng(seed)
        events, key, roster = fleet_events(
            rng, num_devices=60, per_device=10, static=static, personalized=personalized, **options
        )
        return score(events, key, roster)

    return build


@pytest.fixture
def facts() -> RunFacts:
    front = 547_104
    return RunFacts(
        method="CDC-MMPG",
        data_set="FleetQA demo, shift 1.0",
        seed=0,
        model_name="hyperfleet-generator",
        model_version="3",
        mlflow_run_id="0f3a9c",
        mlflow_url="sqlite:///mlflow.db",
        encoder_preset="tiny",
        weights_origin="random initialisation",
        num_classes=NUM_CLASSES,
        device_params=1_234_567,
        cloud_params=front + 193 * LAYOUT.num_params,
        front_params=front,
        head_bytes=LAYOUT.num_bytes,
        fleet_wall_s=41.2,
        num_hosts=2,
        steps=(
            StepFact(name="Render data", wall_s=171.3, peak_memory_bytes=900 * 2**20),
            StepFact(name="Run fleet", wall_s=41.2, note="2 hosts"),
        ),
        commands=("hyperfleet demo --seed 0",),
        versions=(("torch", "2.14.0"),),
        synthetic=True,
    )
