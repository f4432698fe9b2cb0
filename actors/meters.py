"""Prometheus metrics of fleets and training runs, through Ray's exporter: `:8090/metrics` of each node.

Ray adds the prefix `ray_` and, for counters, the suffix `_total`. Series of ended processes remain for a
while: sum over them, or take the largest.
"""

from ray.util.metrics import Counter, Gauge


class FleetMeter:
    """Counters of a fleet run, in its driver.

    Args:
        run: name of the run.
    """

    def __init__(self, run: str) -> None:
        tags = {"run": run}
        self._samples = Counter("hyperfleet_fleet_samples", "samples that devices answered", ("run",))
        self._requests = Counter("hyperfleet_fleet_requests", "requests that devices made", ("run",))
        self._fallbacks = Counter(
            "hyperfleet_fleet_fallbacks", "samples answered without a generated head", ("run",)
        )
        self._deaths = Counter("hyperfleet_fleet_host_deaths", "hosts that died and were replaced", ("run",))
        for counter in (self._samples, self._requests, self._fallbacks, self._deaths):
            counter.set_default_tags(tags)
        self._known_deaths = 0

    def answered(self, *, samples: int, requests: int, fallbacks: int, deaths: int) -> None:
        """Count a stretch of answers; `deaths` is the number of host deaths since the start of the run."""
        for counter, amount in (
            (self._samples, samples),
            (self._requests, requests),
            (self._fallbacks, fallbacks),
            (self._deaths, deaths - self._known_deaths),
        ):
            if amount:
                counter.inc(amount)
        self._known_deaths = deaths


class TrainMeter:
    """Progress and last metrics of a training run, in rank 0.

    Args:
        run: name of the run.
    """

    def __init__(self, run: str) -> None:
        self._step = Gauge("hyperfleet_train_step", "steps done", ("run",))
        self._value = Gauge("hyperfleet_train_value", "metric of the last epoch", ("run", "stage", "name"))
        self._run = run

    def at(self, step: int) -> None:
        """Set the number of steps done."""
        self._step.set(step, {"run": self._run})

    def measured(self, stage: str, metrics: dict[str, float]) -> None:
        """Set the metrics of the last epoch of a stage."""
        for name, value in metrics.items():
            self._value.set(value, {"run": self._run, "stage": stage, "name": name})
