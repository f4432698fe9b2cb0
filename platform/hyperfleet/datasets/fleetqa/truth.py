"""Truth about a FleetQA device as far as a head could use it: its owner's words and taste.

Only an upper bound may read it: no device, generator or training does.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from hyperfleet.datasets.fleetqa.dialect import COLOR_WORDS, SHAPE_WORDS
from hyperfleet.datasets.fleetqa.scene import BACKGROUNDS, COUNTS, MOTIONS
from hyperfleet.errors import DataError

DEVICES_FILE = "devices.json"
_SUDDEN = "sudden"


def answer_odds(root: Path, answers: Sequence[str]) -> dict[int, Float[np.ndarray, " answer"]]:
    """Return, per device, how much likelier each answer is there than over all devices.

    A prediction times these odds is that of a model that was told the owner's words and taste. Live clips
    are all filmed after a sudden drift, so its devices count with their later owner. Empty if the data set
    does not know its devices' priors.

    Raises:
        DataError: the file is broken.
    """
    path = root / DEVICES_FILE
    if not path.is_file():
        return {}
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
        if not all("priors" in record for record in records):
            return {}
        shares = {int(record["device_id"]): _shares(record, answers) for record in records}
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} holds no FleetQA devices: {error!r}; render the data set again") from error
    usual = np.mean(list(shares.values()), axis=0)
    return {
        device_id: np.divide(own, usual, out=np.ones_like(own), where=usual > 0)
        for device_id, own in shares.items()
    }


def _shares(record: Mapping[str, object], answers: Sequence[str]) -> Float[np.ndarray, " answer"]:
    """Return the probability of each answer among those of its kind; 1 for kinds without a prior."""
    later = record["drift"] == _SUDDEN
    priors = record["later"] if later else record["priors"]
    words = record.get("later_words" if later else "words") or {"color": 0, "shape": 0}
    assert isinstance(priors, Mapping)
    assert isinstance(words, Mapping)
    known: dict[str, float] = dict.fromkeys(
        [word for table in (COLOR_WORDS, SHAPE_WORDS) for names in table.values() for word in names], 0.0
    )
    for kind, table in (("color", COLOR_WORDS), ("shape", SHAPE_WORDS)):
        for names, share in zip(table.values(), priors[kind], strict=True):
            known[names[words[kind]]] = share
    for kind, values in (("motion", tuple(MOTIONS)), ("background", BACKGROUNDS), ("count", COUNTS)):
        known |= dict(zip(values, priors[kind], strict=False))
    return np.array([known.get(answer, 1.0) for answer in answers])
