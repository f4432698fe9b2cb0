"""Rounds of pfl's simulated backend, one process, NumPy; run with the Python of the peers' environment.

Uses its own algorithm instead of FedAvg, which would copy a model back and forth for every user: the cheapest
way through pfl. Its statistics are the heads, which pfl sums. With --no-sampling, our own data set takes
users in turn and avoids the random state that pfl's data set keeps per user.
"""

import asyncio
from collections.abc import Iterator

import numpy as np
from pfl.aggregate.simulate import SimulatedBackend
from pfl.algorithm.base import FederatedAlgorithm
from pfl.common_types import Population
from pfl.context import CentralContext
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset, FederatedDatasetBase
from pfl.data.sampling import MinimizeReuseUserSampler
from pfl.hyperparam.base import AlgorithmHyperParams, ModelHyperParams
from pfl.metrics import Metrics
from pfl.model.base import Model
from pfl.stats import MappedVectorStatistics
from workload import HEAD_FLOATS, arguments, check_sum, features, measure, report, write_head


class NoModel(Model):
    """Empty model: no user trains."""

    def apply_model_update(self, statistics: MappedVectorStatistics) -> tuple[Model, Metrics]:
        """Leave everything as it is."""
        return self, Metrics()


class EveryUser(FederatedDatasetBase):
    """Every user in turn, with no random state."""

    def __init__(self, sent: np.ndarray) -> None:
        super().__init__()
        self._sent = sent

    def __next__(self) -> tuple[Dataset, int]:
        raise NotImplementedError("only cohorts are asked for")

    def get_cohort(self, cohort_size: int) -> Iterator[tuple[Dataset, int]]:
        """Return the users of a round."""
        for user, feature in enumerate(self._sent[:cohort_size]):
            yield Dataset((feature,), user_id=str(user)), user


def sampled_users(sent: np.ndarray) -> FederatedDataset:
    """Return the data set as in pfl's documentation."""
    return FederatedDataset(
        lambda user: Dataset((sent[user],), user_id=str(user)), MinimizeReuseUserSampler(range(len(sent)))
    )


class Heads(FederatedAlgorithm):
    """Algorithm of one round: every user returns its head."""

    def __init__(self, cohort_size: int) -> None:
        super().__init__()
        self._cohort_size = cohort_size
        self._next_round = 0
        self._head = np.empty(HEAD_FLOATS, np.float32)

    def get_next_central_contexts(
        self, model, iteration, algorithm_params, model_train_params, model_eval_params=None
    ):
        """Return the round's context, or None when it is over."""
        if iteration > self._next_round:
            self._next_round = iteration
            return None, model, Metrics()
        context = CentralContext(
            current_central_iteration=iteration,
            do_evaluation=False,
            cohort_size=self._cohort_size,
            population=Population.TRAIN,
            algorithm_params=algorithm_params,
            model_train_params=model_train_params,
            seed=self._get_seed(),
        )
        return (context,), model, Metrics()

    def simulate_one_user(self, model, user_dataset, central_context):
        """Act as one device."""
        (feature,) = user_dataset.raw_data
        # One buffer for all users: pfl clones the first user's result and only reads the others'.
        write_head(self._head, feature)
        return MappedVectorStatistics({"head": self._head}), Metrics()

    def process_aggregated_statistics(self, central_context, aggregate_metrics, model, statistics):
        """Check the sum."""
        check_sum(statistics["head"], self._cohort_size)
        return model, Metrics()


def main() -> None:
    """Run and print the figures."""
    args = arguments(__doc__, "--no-sampling")
    asyncio.set_event_loop(asyncio.new_event_loop())  # pfl asks for the current one
    sent = features(args.devices)
    users = EveryUser(sent) if args.no_sampling else sampled_users(sent)
    backend = SimulatedBackend(training_data=users, val_data=users)
    algorithm = Heads(args.devices)

    def run_round() -> None:
        # Without the platform, which would print the metrics of every round.
        algorithm.run(
            AlgorithmHyperParams(), backend, NoModel(), ModelHyperParams(), send_metrics_to_platform=False
        )

    report(measure(args.devices, args.seconds, run_round))


if __name__ == "__main__":
    main()
