"""Readers of the public data sets in their released form."""

from pathlib import Path

from hyperfleet.datasets.official.captions import read_choices, read_retrieval
from hyperfleet.datasets.official.questions import read_questions
from hyperfleet.datasets.official.release import RELEASES as RELEASES
from hyperfleet.datasets.official.release import OfficialData as OfficialData
from hyperfleet.datasets.official.release import Protocol as Protocol
from hyperfleet.datasets.official.release import find_videos as find_videos


def read_official(
    name: str, folder: Path, *, protocol: Protocol, retrieval_cut: str, seed: int
) -> OfficialData:
    """Read a released data set from the folder of its annotation files.

    `name` is one of `RELEASES`. `seed` decides what the release leaves open: questions kept for validation,
    false candidates, clusters of captions.

    Raises:
        DataError: a file is missing, broken or empty; the message says where to get it.
    """
    release = RELEASES[name]
    if name == "msrvtt-mc":
        return read_choices(release, folder, protocol, seed)
    if name == "msrvtt-retrieval":
        return read_retrieval(release, folder, protocol, seed, retrieval_cut)
    return read_questions(release, folder, protocol, seed)
