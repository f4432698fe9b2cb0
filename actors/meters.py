"""What fleets and training runs count, through Ray's exporter: `:8090/metrics` of each node, for Prometheus.

Ray puts `ray_` before and, for counters, `_total` after these names. Series of processes that have ended stay
for a while: sum over them, or take the largest.
"""

from ray.util.metrics import Counter, Gauge


class FleetMeter:
    """A run's samples, requests and hosts; counted by its driver.

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
        """Count a stretch of answers; `deaths` is how many hosts have died since the run began."""
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
    """How far a training run is and what it measured last; told by rank 0.

    Args:
        run: name of the run.
    """

    def __init__(self, run: str) -> None:
        self._step = Gauge("hyperfleet_train_step", "steps done", ("run",))
        self._value = Gauge(
            "hyperfleet_train_value", "what the last epoch measured", ("run", "stage", "name")
        )
        self._run = run

    def at(self, step: int) -> None:
        """Tell how many steps are done."""
        self._step.set(step, {"run": self._run})

    def measured(self, stage: str, metrics: dict[str, float]) -> None:
        """Tell what an epoch of a stage measured."""
        for name, value in metrics.items():
            self._value.set(value, {"run": self._run, "stage": stage, "name": name})
