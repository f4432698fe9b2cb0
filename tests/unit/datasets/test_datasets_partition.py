from collections import Counter

import numpy as np
import pytest

from hyperfleet.datasets.categories import CaptionCategories
from hyperfleet.datasets.partition import num_held_out, partition_videos
from hyperfleet.errors import ConfigError, DataError

HISTORY = [f"video{number}" for number in range(400)]
LIVE = [f"video{number}" for number in range(400, 700)]
KIND = {video: number % 4 for number, video in enumerate(HISTORY + LIVE)}


def test_every_device_has_videos_and_held_out_ones_no_history() -> None:
    history, live = partition_videos(HISTORY, LIVE, KIND, num_devices=10, alpha=0.1, seed=0)

    assert (set(history), set(live)) == (set(HISTORY), set(LIVE))
    assert num_held_out(10) == 2
    assert set(history.values()) == set(range(8))
    assert set(live.values()) == set(range(10))
    assert (history, live) == partition_videos(HISTORY, LIVE, KIND, num_devices=10, alpha=0.1, seed=0)
    assert history != partition_videos(HISTORY, LIVE, KIND, num_devices=10, alpha=0.1, seed=1)[0]


def test_alpha_sets_how_different_tastes_are() -> None:
    def favourite_share(alpha: float) -> float:
        history, _ = partition_videos(HISTORY, LIVE, KIND, num_devices=10, alpha=alpha, seed=0)
        counts = [
            Counter(KIND[video] for video in HISTORY if history[video] == device) for device in range(8)
        ]
        return float(np.mean([max(count.values()) / count.total() for count in counts]))

    assert favourite_share(0.1) > 0.6
    assert favourite_share(1000.0) < 0.4


def test_a_device_has_one_taste() -> None:
    history, live = partition_videos(HISTORY, LIVE, KIND, num_devices=5, alpha=0.05, seed=3)

    def taste(owner: dict[str, int]) -> list[Counter[int]]:
        return [Counter(KIND[video] for video in owner if owner[video] == device) for device in range(4)]

    for before, after in zip(taste(history), taste(live), strict=True):
        if min(before.total(), after.total()) > 20:
            assert before.most_common(1)[0][0] == after.most_common(1)[0][0]


@pytest.mark.parametrize(
    ("num_devices", "alpha", "message"),
    [
        (0, 1.0, "0 devices"),
        (301, 1.0, "share 400 history and 300 live videos"),
        (5, 0.0, "alpha must be > 0"),
    ],
)
def test_impossible_partitions_are_refused(num_devices: int, alpha: float, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        partition_videos(HISTORY, LIVE, KIND, num_devices=num_devices, alpha=alpha, seed=0)


def test_categories_sort_captions_by_what_they_say() -> None:
    colors, animals = ("red", "green", "blue"), ("dog", "cat", "horse")
    train = [f"a {color} {animal} number {n}" for color in colors for animal in animals for n in range(8)]
    categories = CaptionCategories(train, max_categories=9, seed=0)

    numbers = categories.of([*train, *train])
    assert len(categories) == 9
    assert numbers[: len(train)].tolist() == numbers[len(train) :].tolist()
    assert set(numbers.tolist()) <= set(range(9))
    assert len(set(numbers.tolist())) > 4
    assert (
        numbers.tolist() == CaptionCategories(train, max_categories=9, seed=0).of([*train, *train]).tolist()
    )
    # A caption that training lacks still has a category.
    assert 0 <= categories.of(["xylophone"])[0] < 9
    assert categories.of([]).shape == (0,)


def test_few_captions_have_few_categories() -> None:
    assert len(CaptionCategories(["a cat", "a dog"] * 50)) == 1
    with pytest.raises(DataError, match="contain none"):
        CaptionCategories(["", " "])
