"""Shared parts of the service benchmarks: untrained models, uploads of devices, start-up settings.

Ray, Serve and glibc read the settings when a process starts: apply them before importing any of these.
"""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from hyperfleet.nn import HeadGeneratorConfig

ROOT = Path(__file__).parents[2]
NUM_CLASSES = 1501
IN_FLIGHT = 32
TASK = "open-ended-qa"


def read_flags() -> None:
    """Set Serve's fast path, which Ray reads when it is imported."""
    for line in (ROOT / "serve_apps" / "tuned.env").read_text().splitlines():
        if line and not line.startswith("#"):
            name, value = line.split("=")
            os.environ.setdefault(name, value)


def share_the_machine() -> None:
    """Run Ray's workers at the load generator's priority; by default theirs is lower."""
    os.environ.setdefault("RAY_worker_niceness", "0")


def keep_memory() -> None:
    """Restart this process with the replicas' glibc settings, which are read at start-up."""
    from hyperfleet.head_codecs.frame import KEEP_MEMORY

    if any(os.environ.get(name) != value for name, value in KEEP_MEMORY.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **KEEP_MEMORY})


def write_bundle(folder: Path, generator: "HeadGeneratorConfig") -> Path:
    """Write an untrained model with this generator to a new folder and return it."""
    import torch

    from hyperfleet import bundle
    from hyperfleet.nn import ENCODERS

    empty = folder.parent / "empty.json"
    empty.write_text("{}")
    torch.manual_seed(0)
    config = bundle.BundleConfig(
        task=TASK,
        method="cdc_mmpg",
        seed=0,
        num_classes=NUM_CLASSES,
        encoder=ENCODERS["tiny"](vocab_size=40),
        generator=generator,
    )
    model = bundle.build_model(config).requires_grad_(False)
    return bundle.save_bundle(folder, config, model, tokenizer_file=empty, answers_file=empty)


def write_bundles(folder: Path) -> dict[str, Path]:
    """Write one untrained model with full heads and one with heads of rank 4."""
    from hyperfleet.nn import HeadGeneratorConfig

    forms = {"whole": HeadGeneratorConfig(), "rank4": HeadGeneratorConfig(form="low_rank", rank=4)}
    return {name: write_bundle(folder / name, generator) for name, generator in forms.items()}


def features(num: int) -> "np.ndarray":
    """Return uploads as devices would send them."""
    import numpy as np

    return np.random.default_rng(0).standard_normal((num, 192), dtype=np.float32)
