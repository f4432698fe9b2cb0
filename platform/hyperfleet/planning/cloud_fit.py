"""The generator as a model: fitted to measured batches, and held against a real-time run."""

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
    """A generator's times, fitted to measured batches.

    Attributes:
        model: with the fitted `batch_s` and `head_s`.
        num_batches: measured batches.
        relative_error: root mean square of what the fit leaves, over the mean time of a batch.
    """

    model: CloudModel
    num_batches: int
    relative_error: float


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Latencies:
    """Latencies of the samples of a run, in seconds.

    Attributes:
        total_s: from arrival to answer, all samples.
        cloud_s: in the cloud: queue and generator, samples with a fresh head alone.
        num_fallbacks: samples that did not get the head they asked for.
    """

    total_s: Seconds
    cloud_s: Float64[np.ndarray, " fresh"]
    num_fallbacks: int

    @classmethod
    def of(cls, answers: pa.Table) -> "Latencies":
        """Take them from the answers of a run."""
        fresh = answers.filter(pc.equal(answers["head"].cast(pa.string()), rows.HEADS[rows.FRESH]))
        return cls(
            total_s=_column(answers, "answered_s") - _column(answers, "sampled_s"),
            cloud_s=_column(fresh, "queue_s") + _column(fresh, "generate_s"),
            num_fallbacks=int(pc.sum(pc.not_equal(answers["fallback"].cast(pa.string()), "")).as_py() or 0),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class QuantileCheck:
    """A quantile as predicted and as measured, in seconds."""

    predicted_s: float
    measured_s: float

    @property
    def relative_error(self) -> float:
        """Predicted over measured, minus one: 0.1 is a tenth too high."""
        return self.predicted_s / self.measured_s - 1 if self.measured_s else math.inf


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictionCheck:
    """The model against a real-time run of the same arrivals.

    `p50` and `p99` are those of the whole latency, `cloud_p50` and `cloud_p99` of the part that the model is
    about: the links of both runs are the same computation and would hide its errors.
    """

    p50: QuantileCheck
    p99: QuantileCheck
    cloud_p50: QuantileCheck
    cloud_p99: QuantileCheck
    predicted_fallbacks: int
    measured_fallbacks: int

    def holds(self, tolerance: float) -> bool:
        """Whether median and 99th percentile of the whole latency are predicted to within `tolerance`."""
        return max(abs(self.p50.relative_error), abs(self.p99.relative_error)) <= tolerance


def fit_cloud(
    num_heads: Int[np.ndarray, " batch"],
    seconds: Float64[np.ndarray, " batch"],
    model: CloudModel,
) -> CloudFit:
    """Fit seconds = batch_s + num_heads * head_s to measured batches; neither is allowed to be negative.

    Args:
        num_heads: heads of each batch.
        seconds: time that each took.
        model: replicas, largest batch and queue of the service; its times are replaced.

    Raises:
        DataError: fewer than two sizes of batches, or a batch without heads or time.
    """
    if len(num_heads) != len(seconds) or len(np.unique(num_heads)) < 2:
        raise DataError(
            f"a generator's times can be told from batches of two sizes or more, got {len(num_heads)} sizes "
            f"and {len(seconds)} times of batches of {np.unique(num_heads)[:3].tolist()} heads; measure at "
            "different loads"
        )
    if not (np.isfinite(seconds) & (seconds > 0) & (num_heads > 0)).all():
        raise DataError("a batch has at least one head and takes some time; got others among those measured")
    matrix = np.column_stack([np.ones(len(seconds)), num_heads.astype(np.float64)])
    (batch_s, head_s), residual = optimize.nnls(matrix, seconds)
    return CloudFit(
        model=replace(model, batch_s=float(batch_s), head_s=float(head_s)),
        num_batches=len(seconds),
        relative_error=float(residual / math.sqrt(len(seconds)) / seconds.mean()),
    )


def check_prediction(predicted: Latencies, measured: Latencies) -> PredictionCheck:
    """Hold what the model predicts against a real-time run of the same scenario and plan.

    Raises:
        DataError: they do not hold the same number of samples, or no fresh head.
    """
    if len(predicted.total_s) != len(measured.total_s):
        raise DataError(
            f"a prediction can be checked on the same arrivals, got {len(predicted.total_s):,} predicted and "
            f"{len(measured.total_s):,} measured samples; run both with one scenario and plan"
        )
    if not len(predicted.cloud_s) or not len(measured.cloud_s):
        raise DataError(
            "a prediction can be checked where fresh heads were delivered, got "
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
