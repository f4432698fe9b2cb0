"""Fit of the generator's queue model to measured batches, and its check against a real-time run."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float64, Int
from scipy import optimize

from hyperfleet.emulation.timeline import rows
from hyperfleet.errors import DataError
from hyperfleet.scenario.cloud_model import CloudModel

Seconds = Float64[np.ndarray, " sample"]


@dataclass(frozen=True, kw_only=True, slots=True)
class CloudFit:
    """Result of a fit.

    Attributes:
        model: the model with the fitted `batch_s` and `head_s`.
        num_batches: number of measured batches.
        relative_error: root mean square residual over the mean time of a batch.
    """

    model: CloudModel
    num_batches: int
    relative_error: float


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Latencies:
    """Latencies of the samples of a run, in seconds.

    Attributes:
        total_s: from arrival to answer, all samples.
        cloud_s: queue and generator, only samples with a fresh head.
        num_fallbacks: samples that asked for a head and did not get it.
    """

    total_s: Seconds
    cloud_s: Float64[np.ndarray, " fresh"]
    num_fallbacks: int

    @classmethod
    def of(cls, answers: pa.Table) -> "Latencies":
        """Return the latencies of a run from its answers."""
        fresh = answers.filter(pc.equal(answers["head"].cast(pa.string()), rows.HEADS[rows.FRESH]))
        return cls(
            total_s=_column(answers, "answered_s") - _column(answers, "sampled_s"),
            cloud_s=_column(fresh, "queue_s") + _column(fresh, "generate_s"),
            num_fallbacks=int(pc.sum(pc.not_equal(answers["fallback"].cast(pa.string()), "")).as_py() or 0),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class QuantileCheck:
    """Predicted and measured value of a quantile, in seconds."""

    predicted_s: float
    measured_s: float

    @property
    def relative_error(self) -> float:
        """Predicted over measured, minus one: 0.1 is 10 % too high."""
        return self.predicted_s / self.measured_s - 1 if self.measured_s else math.inf


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictionCheck:
    """Comparison of the model with a real-time run of the same arrivals.

    `p50` and `p99` are those of the total latency, `cloud_p50` and `cloud_p99` of the modelled part: the
    links are computed in the same way in both runs and would hide errors of the model.
    """

    p50: QuantileCheck
    p99: QuantileCheck
    cloud_p50: QuantileCheck
    cloud_p99: QuantileCheck
    predicted_fallbacks: int
    measured_fallbacks: int

    def holds(self, tolerance: float) -> bool:
        """Return whether median and 99th percentile of the total latency are within `tolerance`."""
        return max(abs(self.p50.relative_error), abs(self.p99.relative_error)) <= tolerance


def fit_cloud(
    num_heads: Int[np.ndarray, " batch"],
    seconds: Float64[np.ndarray, " batch"],
    model: CloudModel,
) -> CloudFit:
    """Fit seconds = batch_s + num_heads * head_s, both coefficients >= 0, to measured batches.

    Args:
        num_heads: heads per batch.
        seconds: time per batch.
        model: replicas, largest batch and queue of the service; its times are replaced.

    Raises:
        DataError: fewer than two batch sizes, or a batch without heads or time.
    """
    if len(num_heads) != len(seconds) or len(np.unique(num_heads)) < 2:
        raise DataError(
            f"a fit needs batches of at least two sizes, got {len(num_heads)} sizes and {len(seconds)} times "
            f"of batches of {np.unique(num_heads)[:3].tolist()} heads; measure at different loads"
        )
    if not (np.isfinite(seconds) & (seconds > 0) & (num_heads > 0)).all():
        raise DataError("a measured batch has no head or no finite time above 0 s; measure again")
    matrix = np.column_stack([np.ones(len(seconds)), num_heads.astype(np.float64)])
    (batch_s, head_s), residual = optimize.nnls(matrix, seconds)
    return CloudFit(
        model=replace(model, batch_s=float(batch_s), head_s=float(head_s)),
        num_batches=len(seconds),
        relative_error=float(residual / math.sqrt(len(seconds)) / seconds.mean()),
    )


def check_prediction(predicted: Latencies, measured: Latencies) -> PredictionCheck:
    """Compare the predicted latencies with a real-time run of the same scenario and plan.

    Raises:
        DataError: different numbers of samples, or no fresh head.
    """
    if len(predicted.total_s) != len(measured.total_s):
        raise DataError(
            f"a prediction is checked on the same arrivals, got {len(predicted.total_s):,} predicted and "
            f"{len(measured.total_s):,} measured samples; run both with one scenario and plan"
        )
    if not len(predicted.cloud_s) or not len(measured.cloud_s):
        raise DataError(
            "a prediction is checked on samples with fresh heads, got "
            f"{len(predicted.cloud_s)} predicted and {len(measured.cloud_s)} measured; choose another policy"
        )

    def check(name: str, percent: float) -> QuantileCheck:
        both = (float(np.percentile(getattr(each, name), percent)) for each in (predicted, measured))
        return QuantileCheck(predicted_s=next(both), measured_s=next(both))

    return PredictionCheck(
        p50=check("total_s", 50.0),
        p99=check("total_s", 99.0),
        cloud_p50=check("cloud_s", 50.0),
        cloud_p99=check("cloud_s", 99.0),
        predicted_fallbacks=predicted.num_fallbacks,
        measured_fallbacks=measured.num_fallbacks,
    )


def _column(table: pa.Table, name: str) -> Float64[np.ndarray, " row"]:
    return np.asarray(table[name].to_numpy(), dtype=np.float64)
