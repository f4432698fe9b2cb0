"""Clusters of training captions, used as categories by tasks whose labels are not classes."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64

from hyperfleet.errors import DataError

MAX_CATEGORIES = 256
MIN_CAPTIONS_PER_CATEGORY = 8
MAX_WORDS = 4096


class CaptionCategories:
    """k-means over TF-IDF of captions; equal captions and seeds give equal categories.

    There are `max_categories`, or fewer so that there are at least eight distinct captions per category.

    Args:
        captions: training captions only, none of validation or test.
        max_categories: upper limit of the number of categories.
        seed: seed of the first centroids.

    Raises:
        DataError: no caption contains a word.
    """

    def __init__(
        self, captions: Sequence[str], *, max_categories: int = MAX_CATEGORIES, seed: int = 0
    ) -> None:
        # Slow to import, and needed only to write a data set.
        from sklearn.cluster import MiniBatchKMeans
        from sklearn.feature_extraction.text import TfidfVectorizer

        distinct = sorted(set(captions))
        self._words = TfidfVectorizer(
            max_features=MAX_WORDS, token_pattern=r"(?u)\b\w+\b", dtype=np.float32, sublinear_tf=True
        )
        try:
            features = self._words.fit_transform(distinct)
        except ValueError as error:
            raise DataError(
                f"captions are sorted into categories by their words, but {len(distinct)} training captions "
                f"contain none ({error}); check the annotation files"
            ) from error
        num_categories = max(1, min(max_categories, len(distinct) // MIN_CAPTIONS_PER_CATEGORY))
        self._clusters = MiniBatchKMeans(num_categories, random_state=seed, n_init=1, batch_size=2048)
        self._clusters.fit(features)

    def __len__(self) -> int:
        return int(self._clusters.n_clusters)

    def of(self, captions: Sequence[str]) -> Int64[np.ndarray, " n"]:
        """Return the category of each caption: the nearest centroid."""
        if not captions:
            return np.empty(0, np.int64)
        distinct, position = np.unique(np.array(captions, dtype=np.str_), return_inverse=True)
        nearest = self._clusters.predict(self._words.transform(distinct.tolist()))
        categories: np.ndarray = nearest.astype(np.int64)[position]
        return categories
