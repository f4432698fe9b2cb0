"""Models of a running service, read once before heads are requested."""

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from typing import Any
from urllib.parse import quote

from hyperfleet.client.reply import read_refusal
from hyperfleet.client.settings import authorization, service_url
from hyperfleet.errors import ConfigError, ServiceError
from hyperfleet.head_codecs import BaseHead, HeadLayout
from hyperfleet.head_codecs import codec as head_codec
from hyperfleet.head_codecs.frame import unpack

TIMEOUT_S = 30.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ServedModel:
    """A served model.

    Attributes:
        name: name it is served under.
        version: registered version.
        task: use of its heads, the last part of the generate path.
        layout: shape of its heads.
        base_id: name of the static head that its offsets are added to, "" if it has none.
        codecs: names of the codecs that can carry its heads.
    """

    name: str
    version: str
    task: str
    layout: HeadLayout
    base_id: str
    codecs: tuple[str, ...]

    def check_codec(self, codec: str, base: BaseHead | None = None) -> None:
        """Make sure that a device with the static head `base` can get heads of this model in `codec`.

        Raises:
            ConfigError: the model is not served in it, or offsets another static head than `base`.
        """
        if codec not in self.codecs:
            raise ConfigError(
                f"{self.name} {self.version} is served in {', '.join(self.codecs)}, not in codec {codec!r}; "
                "ask for one of these"
            )
        if head_codec(codec).needs_base and base is not None and base.id != self.base_id:
            raise ConfigError(
                f"codec {codec!r} of {self.name} {self.version} changes the static head {self.base_id!r}, "
                f"the device's own is {base.id!r}; load the model version that is served onto the device"
            )


def served_models(
    url: str, token: str | None = None, timeout_s: float = TIMEOUT_S
) -> tuple[ServedModel, ...]:
    """Return the models that the service at `url` serves, in its order, within `timeout_s` seconds.

    Raises:
        ConfigError: `url` or `token` cannot be used.
        ServiceError: no generator answers there, or it refuses.
    """
    content, _ = _get(url, "/v1/models", token, timeout_s)
    try:
        return tuple(_served_model(fields) for fields in json.loads(content)["models"])
    except (ValueError, KeyError, TypeError) as error:
        raise _no_generator(f"{service_url(url)}/v1/models", error) from error


def served_model(
    url: str, task: str | None = None, name: str | None = None, token: str | None = None
) -> ServedModel:
    """Return the model called `name`, or the first model of `task`.

    Without either, all models must be of one task.

    Raises:
        ConfigError: `url` or `token` cannot be used.
        ServiceError: no generator answers there, it serves no such model, or models of several tasks.
    """
    models = served_models(url, token)
    fitting = [each for each in models if name in (None, each.name) and task in (None, each.task)]
    listed = ", ".join(f"{each.name} {each.version} for {each.task}" for each in models) or "no model at all"
    if not fitting:
        named = f" called {name!r}" if name is not None else ""
        wanted = f" for task {task!r}" if task is not None else ""
        raise ServiceError(f"{url} serves no model{named}{wanted}; it serves {listed}")
    if len({each.task for each in fitting}) > 1:
        raise ServiceError(f"{url} serves models of several tasks: {listed}; name the task or the model")
    return fitting[0]


def fetch_base(
    url: str, model: str, layout: HeadLayout, token: str | None = None, timeout_s: float = TIMEOUT_S
) -> BaseHead:
    """Fetch the static head of the served model `model`, for codecs that send an offset to it.

    Raises:
        ConfigError: `url` or `token` cannot be used.
        ServiceError: no generator answers there, the model is unknown or has no static head, or the head
            was damaged on its way.
        HeadLayoutError: the head has another layout.
    """
    content, headers = _get(url, f"/v1/models/{quote(model, safe='')}/base", token, timeout_s)
    tensors, _ = unpack(content)
    # A copy, since the reply is read-only memory.
    flat = head_codec("fp32").decode(tensors, layout, None).dense()[0].clone()
    base = BaseHead(layout=layout, flat=flat)
    named = headers.get("ETag", "").removeprefix("W/").strip('"')
    if named != base.id:
        raise ServiceError(
            f"{url} sent the static head {base.id!r} of {model} under the name {named!r}; it was damaged on "
            "its way: fetch it again"
        )
    return base


def _served_model(fields: Mapping[str, Any]) -> ServedModel:
    return ServedModel(
        name=str(fields["name"]),
        version=str(fields["version"]),
        task=str(fields["task"]),
        layout=HeadLayout(num_classes=int(fields["num_classes"]), hidden=int(fields["hidden"])),
        base_id=str(fields["base_id"]),
        codecs=tuple(str(codec["name"]) for codec in fields["codecs"]),
    )


def _get(url: str, path: str, token: str | None, timeout_s: float) -> tuple[bytes, Message]:
    place = service_url(url) + path
    request = urllib.request.Request(place, headers={"Accept-Encoding": "identity"})
    for name, value in authorization(token).items():
        # A redirect must not carry the token to another place.
        request.add_unredirected_header(name, value)
    try:
        try:
            reply = urllib.request.urlopen(request, timeout=timeout_s)
        except urllib.error.HTTPError as error:
            reply = error  # a reply like any other
        with reply:
            status, content, headers = reply.status, reply.read(), reply.headers
    except (OSError, http.client.HTTPException) as error:
        raise _no_generator(place, error) from error
    if status != 200:
        reason = read_refusal(content, headers.get("Content-Type", ""), token)
        raise ServiceError(f"{place} answered HTTP {status}: {reason}", status=status)
    return content, headers


def _no_generator(place: str, error: Exception) -> ServiceError:
    return ServiceError(
        f"no parameter generator answers at {place}: {error!r}; start one with "
        "`serve run serve_apps:generator` or leave the URL out, and the fleet starts its own"
    )
