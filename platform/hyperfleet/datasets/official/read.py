"""Entry point to the released data sets: one reader per layout of their files."""

from pathlib import Path

from hyperfleet.datasets.official.captions import read_choices, read_retrieval
from hyperfleet.datasets.official.questions import read_questions
from hyperfleet.datasets.official.release import RELEASES, OfficialData, Protocol


def read_official(
    name: str, folder: Path, *, protocol: Protocol, retrieval_cut: str, seed: int
) -> OfficialData:
    """Read a released data set from the folder of its annotation files.

    `name` is one of `RELEASES`. `seed` decides what the release leaves open: questions kept for
    validation, false candidates, clusters of captions.

    Raises:
        DataError: a file is missing, broken or empty; the message says where it is usually had.
    """
    release = RELEASES[name]
    if name == "msrvtt-mc":
        return read_choices(release, folder, protocol, seed)
    if name == "msrvtt-retrieval":
        return read_retrieval(release, folder, protocol, seed, retrieval_cut)
    return read_questions(release, folder, protocol, seed)
