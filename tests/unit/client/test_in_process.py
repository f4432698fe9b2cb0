import asyncio

import pytest
import torch

from hyperfleet.client import GeneratorClient, InProcessClient
from hyperfleet.errors import ConfigError, HeadLayoutError, UnknownNameError
from hyperfleet.head_codecs import BaseHead
from tests.worlds.http_cloud import BASE, LABEL, LAYOUT, Cloud, ask, feature, generate


@pytest.mark.parametrize("codec", ["fp32", "delta-int8"])
def test_it_sends_the_same_messages_as_over_http(codec):
    client = InProcessClient(generate, LABEL, codec, BASE)
    assert isinstance(client, GeneratorClient)
    head = asyncio.run(client.request(feature()))
    (over_http,), _ = ask(Cloud(), codec=codec, base=BASE)
    assert torch.equal(head.reply.heads.dense(), over_http.reply.heads.dense())
    assert (head.reply.label, head.reply.codec) == (LABEL, codec)
    assert (head.uplink_bytes, head.downlink_bytes) == (over_http.uplink_bytes, over_http.downlink_bytes)
    assert 0 <= head.queue_s <= head.round_trip_s
    assert head.generate_s + head.encode_s < head.round_trip_s


def test_a_codec_that_cannot_be_used_is_refused():
    with pytest.raises(UnknownNameError, match="unknown head codec 'fp8'"):
        InProcessClient(generate, LABEL, "fp8")
    with pytest.raises(ConfigError, match="codec 'delta-int8' sends what is added to the static head"):
        InProcessClient(generate, LABEL, "delta-int8")
    other = BaseHead(layout=LAYOUT, flat=torch.zeros(LAYOUT.num_params))
    with pytest.raises(HeadLayoutError, match="for devices with the static head"):
        asyncio.run(InProcessClient(generate, LABEL, "delta-int8", other).request(feature()))
