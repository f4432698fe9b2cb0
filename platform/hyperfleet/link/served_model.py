"""What a running generator says of itself, asked once before a fleet starts."""

import json
import urllib.error
import urllib.request
from dataclasses import dataclass

from hyperfleet.errors import ServiceError
from hyperfleet.messages import HeadLayout

TIMEOUT_S = 30.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ServedModel:
    """The model behind a URL; `task` is the last part of the path that heads are asked for at."""

    name: str
    version: str
    task: str
    layout: HeadLayout


def served_model(url: str, timeout_s: float = TIMEOUT_S) -> ServedModel:
    """Ask the generator at `url` which model it serves.

    Raises:
        ServiceError: nothing answers there, or something that is no generator.
    """
    try:
        with urllib.request.urlopen(f"{url}/v1/model", timeout=timeout_s) as reply:
            fields = json.load(reply)
        return ServedModel(
            name=str(fields["name"]),
            version=str(fields["version"]),
            task=str(fields["task"]),
            layout=HeadLayout(num_classes=int(fields["num_classes"]), hidden=int(fields["hidden"])),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        # HTTP errors are OSErrors, an invalid URL and invalid JSON are ValueErrors.
        raise ServiceError(
            f"no parameter generator answers at {url}/v1/model: {error!r}; start one with "
            "`serve run serve_apps:generator` or leave the URL out, and the fleet starts its own"
        ) from error
