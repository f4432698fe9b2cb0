import re

import pytest
import torch
from aiohttp import web
from safetensors.torch import save

from hyperfleet.client import ServedModel, fetch_base, served_model, served_models
from hyperfleet.errors import ConfigError, HeadLayoutError, ServiceError
from hyperfleet.head_codecs import BaseHead, HeadLayout
from tests.worlds.http_cloud import BASE, LAYOUT, Cloud, hang, hang_up, status

TOKEN = "s3cret"


def described(name: str, task: str = "open-ended-qa") -> dict[str, object]:
    return {
        "name": name,
        "version": "3",
        "run_id": "",
        "task": task,
        "num_classes": 16,
        "hidden": 96,
        "base_id": BASE.id,
        "codecs": [{"name": "fp32", "head_bytes": 6208, "needs_base": False}, {"name": "rank4"}],
        "default_codec": "fp32",
    }


def listing(*models: dict[str, object]) -> Cloud:
    return Cloud(always=lambda request, body: web.json_response({"models": models}))


def test_models_are_read_as_they_are_served():
    cloud = listing(described("a"), described("b", "retrieval"))
    with cloud.running() as url:
        first, second = served_models(url + "/", TOKEN)
    assert cloud.seen[0][:2] == ("GET", "/v1/models")
    assert cloud.sent("Authorization") == [f"Bearer {TOKEN}"]
    assert first == ServedModel(
        name="a",
        version="3",
        task="open-ended-qa",
        layout=LAYOUT,
        base_id=BASE.id,
        codecs=("fp32", "rank4"),
    )
    assert (second.name, second.task) == ("b", "retrieval")


def test_a_model_is_chosen_as_by_the_server_or_the_served_ones_are_listed():
    qa, other = described("a"), described("b", "retrieval")
    with listing(qa, described("c"), other).running() as url:
        assert served_model(url, task="open-ended-qa").name == "a"
        assert served_model(url, name="c").name == "c"
        assert served_model(url, task="retrieval").name == "b"
        listed = "a 3 for open-ended-qa, c 3 for open-ended-qa, b 3 for retrieval"
        with pytest.raises(ServiceError, match=f"no model for task 'chess'; it serves {listed}"):
            served_model(url, task="chess")
        with pytest.raises(ServiceError, match=f"no model called 'b' for task 'open-ended-qa'; .* {listed}"):
            served_model(url, task="open-ended-qa", name="b")
        with pytest.raises(ServiceError, match=f"several tasks: {listed}; name the task or the model"):
            served_model(url)
    with listing(qa, described("c")).running() as url:
        assert served_model(url).name == "a"
    with listing().running() as url, pytest.raises(ServiceError, match="it serves no model at all"):
        served_model(url)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (status(200, "<html>"), "no parameter generator answers at .*/v1/models: JSONDecodeError"),
        (status(200, '{"name": "x"}'), "no parameter generator answers at .*KeyError"),
        (status(200, "[]"), "no parameter generator answers at .*TypeError"),
        (hang_up, "no parameter generator answers at .*RemoteDisconnected"),
        (hang, "no parameter generator answers at .*TimeoutError"),
        (status(401, f"not {TOKEN}"), r"/v1/models answered HTTP 401: not \*\*\*"),
        (status(503), "/v1/models answered HTTP 503: the reason"),
    ],
)
def test_other_servers_and_refusals_are_service_errors(step, message):
    with Cloud(always=step).running() as url, pytest.raises(ServiceError, match=message) as caught:
        served_models(url, TOKEN, timeout_s=0.5)
    assert TOKEN not in str(caught.value)


def test_an_unreachable_server_and_an_invalid_url_are_refused():
    with pytest.raises(ServiceError, match=r"no parameter generator answers at http://127\.0\.0\.1:9"):
        served_models("http://127.0.0.1:9")
    with pytest.raises(ConfigError, match=r"like http://127\.0\.0\.1:8000, got 'file:///etc/passwd'"):
        served_models("file:///etc/passwd")


def test_a_redirect_does_not_get_the_token():
    other = listing(described("a"))
    with other.running() as elsewhere:
        first = Cloud(always=status(307, Location=f"{elsewhere}/v1/models"))
        with first.running() as url:
            assert served_models(url, TOKEN)[0].name == "a"
    assert (first.sent("Authorization"), other.sent("Authorization")) == ([f"Bearer {TOKEN}"], [None])


def head_file(etag: str, tensor: torch.Tensor) -> Cloud:
    content = save({"head": tensor})
    return Cloud(always=lambda request, body: web.Response(body=content, headers={"etag": etag}))


def test_the_static_head_arrives_and_is_checked():
    cloud = head_file(f'"{BASE.id}"', BASE.flat[None])
    with cloud.running() as url:
        base = fetch_base(url, "my model/2", LAYOUT, TOKEN)
        with pytest.raises(HeadLayoutError, match="holds head"):
            fetch_base(url, "m", HeadLayout(num_classes=3))
    assert cloud.seen[0][1] == "/v1/models/my%20model%2F2/base"
    assert cloud.sent("Authorization") == [f"Bearer {TOKEN}", None]
    assert (base.id, base.layout) == (BASE.id, LAYOUT)
    assert torch.equal(base.flat, BASE.flat)
    damaged = BASE.flat[None].clone()
    damaged[0, 0] += 1
    for cloud, message in (
        (head_file(f'"{BASE.id}"', damaged), f"under the name '{BASE.id}'; it was damaged"),
        (Cloud(always=status(404, "m has no static head")), "HTTP 404: m has no static head"),
    ):
        with cloud.running() as url, pytest.raises(ServiceError, match=message):
            fetch_base(url, "m", LAYOUT)


def test_a_codec_or_static_head_that_does_not_fit_is_refused_before_any_request():
    model = ServedModel(
        name="a", version="3", task="t", layout=LAYOUT, base_id=BASE.id, codecs=("fp32", "rank4")
    )
    model.check_codec("rank4", BASE)
    with pytest.raises(ConfigError, match=re.escape("a 3 is served in fp32, rank4, not in codec 'fp16'")):
        model.check_codec("fp16")
    other = BaseHead(layout=LAYOUT, flat=torch.zeros(LAYOUT.num_params))
    model.check_codec("fp32", other)
    with pytest.raises(ConfigError, match=f"changes the static head '{BASE.id}', the device's own is"):
        model.check_codec("rank4", other)
