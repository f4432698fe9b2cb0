"""Cost of a personalized head: parameters, multiplications, bytes, and time on this machine."""

import statistics
import time
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from hyperfleet.messages import FEATURE_BYTES, FEATURE_DIM
from hyperfleet.methods import TaskModel
from hyperfleet.nn import HeadGenerator

TIMED_CALLS = 30


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """Cost of one head. For a static head all costs of the cloud are zero.

    Attributes:
        device_params: parameters on the device (D-Param).
        cloud_params: parameters of the generator (C-Param).
        front_macs: multiply-accumulates from upload to the input of f_h.
        generator_macs: multiply-accumulates of f_h.
        upload_bytes: bytes that the device sends.
        download_bytes: bytes that it receives, in float32.
        generate_s: median seconds to generate one head on one thread.
        apply_s: median seconds to apply it to one sample.
    """

    device_params: int
    cloud_params: int
    front_macs: int = 0
    generator_macs: int = 0
    upload_bytes: int = 0
    download_bytes: int = 0
    generate_s: float = 0.0
    apply_s: float = 0.0


def count_params(module: torch.nn.Module) -> int:
    """Return the number of all parameters, trained or not."""
    return sum(parameter.numel() for parameter in module.parameters())


def example_upload(generator: HeadGenerator) -> Tensor:
    """Return one random upload of the generator's input shape, of unit variance."""
    shape = (
        (1, FEATURE_DIM) if generator.uploads_one_feature else (1, generator.config.num_uploaded, FEATURE_DIM)
    )
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def macs_of(generator: HeadGenerator) -> tuple[int, int]:
    """Return the multiply-accumulates before f_h and of f_h, for one head."""
    example = example_upload(generator)
    was_training = generator.training
    generator.eval()
    with torch.no_grad():
        with FlopCounterMode(display=False) as everything:
            generator.generate(generator.reason(example))
        reasoned = generator.reason(example)
        embedding = generator.f_p(reasoned) if generator.f_p is not None else reasoned
        with FlopCounterMode(display=False) as emitter:
            generator.f_h(embedding)
    generator.train(was_training)
    generator_macs = emitter.get_total_flops() // 2
    return everything.get_total_flops() // 2 - generator_macs, generator_macs


def cost_of(model: TaskModel, *, timed: bool = True) -> Cost:
    """Measure the cost of a head of `model`; with `timed` False both times are zero."""
    device_params = count_params(model.device)
    generator = model.generator
    if generator is None:
        return Cost(device_params=device_params, cloud_params=0)
    front_macs, generator_macs = macs_of(generator)
    generate_s, apply_s = _times(model, generator) if timed else (0.0, 0.0)
    return Cost(
        device_params=device_params,
        cloud_params=count_params(generator),
        front_macs=front_macs,
        generator_macs=generator_macs,
        upload_bytes=generator.config.num_uploaded * FEATURE_BYTES,
        download_bytes=generator.payload_bytes,
        generate_s=generate_s,
        apply_s=apply_s,
    )


@torch.inference_mode()
def _times(model: TaskModel, generator: HeadGenerator) -> tuple[float, float]:
    example = example_upload(generator)
    hidden = torch.randn(1, 1, generator.layout.hidden)
    static = model.device.head if generator.config.static_base else None
    generating, applying = [], []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in range(TIMED_CALLS):
            started = time.perf_counter()
            made = generator.generate(generator.reason(example))
            done = time.perf_counter()
            generator.form.outputs(made, hidden, static)
            generating.append(done - started)
            applying.append(time.perf_counter() - done)
    finally:
        torch.set_num_threads(threads)
    return statistics.median(generating), statistics.median(applying)
