"""Samples of a batch are shared out among the training workers, groups of a category as a whole."""

import pytest

from hyperfleet.cloud.train_config import TrainConfig
from hyperfleet.errors import ConfigError
from pipelines.commands.models import TrainRunConfig
from pipelines.train_generator import check_shares


def test_a_batch_that_leaves_workers_unequal_groups_is_refused() -> None:
    train = TrainConfig(method="stable_synth_net", batch_size=12)
    with pytest.raises(ConfigError, match=r"'drive' of stable_synth_net .* of 12 among 2 .* multiple of 8"):
        check_shares(TrainRunConfig(train=train, num_workers=2))
    check_shares(TrainRunConfig(train=TrainConfig(method="stable_synth_net", batch_size=16), num_workers=2))
    check_shares(TrainRunConfig(train=TrainConfig(method="cdc_mmpg", batch_size=12), num_workers=2))
