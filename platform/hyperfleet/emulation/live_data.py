"""Live part of a data set as devices see it: clips and questions without answers."""

from pathlib import Path

import numpy as np

from hyperfleet.datasets import Corpus, FrameStore, QuestionStream, Split
from hyperfleet.errors import EmptyStreamError

LIVE_SPLIT = "test"


class LiveData:
    """Private streams of the devices of a data set, and the store of their clips.

    Attributes:
        store: store of the clips.
        seen: whether training saw the device, by device id.
        num_skipped: questions omitted because their video could not be decoded.
    """

    def __init__(self, store: FrameStore, split: Split, seen: dict[int, bool]) -> None:
        self.store = store
        self.seen = seen
        self.num_skipped = split.num_skipped
        # Sorted, so that a stream is a slice; stable, so that each stream keeps its order of time.
        order = np.argsort(split.device_id, kind="stable")
        self._device_id = split.device_id[order]
        self._example_id = split.example_id[order]
        self._clip_row = split.clip_row[order]
        self._token_ids = split.token_ids[order]
        self._token_mask = split.token_mask[order]

    @property
    def num_devices(self) -> int:
        """Devices with at least one live question."""
        return len(np.unique(self._device_id))

    def stream(self, device_id: int) -> QuestionStream:
        """Return the private stream of a device.

        Raises:
            EmptyStreamError: the device has no question, or does not exist.
        """
        start, end = np.searchsorted(self._device_id, [device_id, device_id + 1])
        if start == end:
            raise EmptyStreamError(
                f"device {device_id} has no live question; leave it out, or render the data set again if its "
                "videos are broken"
            )
        own = slice(int(start), int(end))
        return QuestionStream(
            device_id=device_id,
            example_id=self._example_id[own],
            clip_row=self._clip_row[own],
            token_ids=self._token_ids[own],
            token_mask=self._token_mask[own],
        )


def open_live_data(root: Path, text_length: int) -> LiveData:
    """Open the live part of the data set in `root`, with questions of `text_length` tokens.

    Raises:
        DataError: a file is missing or broken.
    """
    corpus = Corpus.open(root)
    devices = corpus.device_map
    seen = dict(zip(devices.device_id.tolist(), devices.seen.tolist(), strict=True))
    return LiveData(corpus.store, corpus.split(LIVE_SPLIT, text_length), seen)
