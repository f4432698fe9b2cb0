"""One split of a data set as arrays, and the part of it that one device sees.

Devices see a `QuestionStream`, which has no field for an answer. Answers are in `Split.label`, for training
in the cloud and for scoring.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int32, Int64

from hyperfleet.datasets.vocabulary import OUT_OF_VOCABULARY
from hyperfleet.errors import EmptyStreamError


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class QuestionStream:
    """Private data of one device: its clips and their texts in order of time, without answers.

    A row has one text of `length` tokens, in multiple choice one per candidate.
    """

    device_id: int
    example_id: Int64[np.ndarray, " n"]
    clip_row: Int32[np.ndarray, " n"]
    token_ids: Int32[np.ndarray, "n *candidate length"]
    token_mask: Bool[np.ndarray, "n *candidate length"]

    def __len__(self) -> int:
        return len(self.example_id)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Split:
    """One split for one task, one row per sample.

    Attributes:
        clip_row: row of the clip store.
        token_ids: the question (open-ended), the candidates (multiple choice, (n, 5, length)) or the caption
            (retrieval).
        label: class of the answer, -1 outside the vocabulary (open-ended); index of the true candidate, 0 to
            4 (multiple choice); or `clip_row`, the identity of the video (retrieval).
        category: `label` (open-ended) or the cluster of the true caption, -1 if unknown; no device sees it.
        num_skipped: samples left out because their video could not be decoded.
    """

    name: str
    task: str
    example_id: Int64[np.ndarray, " n"]
    clip_row: Int32[np.ndarray, " n"]
    token_ids: Int32[np.ndarray, "n *candidate length"]
    token_mask: Bool[np.ndarray, "n *candidate length"]
    label: Int64[np.ndarray, " n"]
    category: Int64[np.ndarray, " n"]
    device_id: Int32[np.ndarray, " n"]
    num_skipped: int = 0

    def __len__(self) -> int:
        return len(self.example_id)

    @property
    def device_ids(self) -> Int32[np.ndarray, " device"]:
        """Devices with at least one sample, sorted."""
        return np.unique(self.device_id)

    @property
    def oov_share(self) -> float:
        """Share of questions with an answer outside the vocabulary; 0 for the other tasks."""
        return float((self.label == OUT_OF_VOCABULARY).mean())

    def stream(self, device_id: int) -> QuestionStream:
        """Return the part of this split that one device sees.

        Raises:
            EmptyStreamError: the device has no question in this split.
        """
        rows = np.flatnonzero(self.device_id == device_id)
        if len(rows) == 0:
            known = self.device_ids
            raise EmptyStreamError(
                f"device {device_id} has no question in split {self.name!r}; expected one of its "
                f"{len(known)} devices ({known.min()} to {known.max()}); held-out devices are only in 'test'"
            )
        return QuestionStream(
            device_id=device_id,
            example_id=self.example_id[rows],
            clip_row=self.clip_row[rows],
            token_ids=self.token_ids[rows],
            token_mask=self.token_mask[rows],
        )
