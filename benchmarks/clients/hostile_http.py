"""Hostile HTTP requests, as bytes."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

FEATURE_BYTES = 768
TASK = "/v1/generate/open-ended-qa"
OCTETS = b"application/octet-stream"
CODECS = ("fp32", "fp16", "bf16", "int8", "delta-fp16", "delta-int8", "rank1", "rank16", "rank4")


@dataclass(frozen=True, kw_only=True, slots=True)
class Shot:
    """One request.

    Attributes:
        kind: what is wrong with it.
        data: all of its bytes.
        num_replies: replies required on a connection that stays open; 0 where the bytes are no clean request,
            so any reply or a close is right.
        has_body: whether replies have bodies; those to HEAD do not.
        own_deadline: whether the request names its own deadline.
    """

    kind: str
    data: bytes
    num_replies: int = 1
    has_body: bool = True
    own_deadline: bool = False


class Maker:
    """Draws requests; the service accepts `token`."""

    def __init__(self, rng: random.Random, token: str) -> None:
        self._rng = rng
        self._bearer = f"Bearer {token}".encode()
        self._feature = np.random.default_rng(rng.getrandbits(32)).standard_normal((4, 192), np.float32)
        self._kinds: dict[str, Callable[[], Shot]] = {
            "body": self._body,
            "content type": self._content_type,
            "accept": self._accept,
            "deadline": self._deadline,
            "token": self._token,
            "path": self._path,
            "method": self._method,
            "headers": self._headers,
            "framing": self._framing,
            "junk": self._junk,
            "pipelined": self._pipelined,
            "valid": self._valid,
        }

    def shots(self, num: int, kinds: tuple[str, ...] = ()) -> Iterator[Shot]:
        """Draw `num` requests of all kinds or of `kinds`."""
        names = kinds or tuple(self._kinds)
        for _ in range(num):
            yield self._kinds[self._rng.choice(names)]()

    def request(
        self,
        *,
        method: bytes = b"POST",
        path: bytes = TASK.encode(),
        body: bytes | None = None,
        length: bytes | None = None,
        **headers: bytes | None,
    ) -> bytes:
        """Return a valid request except for the given parts; None omits a header."""
        body = self.features(1) if body is None else body
        lines = {b"host": b"x", b"authorization": self._bearer, b"content-type": OCTETS}
        lines[b"content-length"] = str(len(body)).encode() if length is None else length
        for name, value in headers.items():
            key = name.replace("_", "-").encode()
            lines.pop(key, None)
            if value is not None:
                lines[key] = value
        head = b"".join(b"%s: %s\r\n" % line for line in lines.items())
        return b"%s %s HTTP/1.1\r\n%s\r\n%s" % (method, path, head, body)

    def features(self, num: int) -> bytes:
        """Return the bytes of some features."""
        return self._feature[:num].tobytes()

    def noise(self, most: int, alphabet: bytes = b"") -> bytes:
        """Return random bytes that a header may contain: no line end, no NUL."""
        allowed = alphabet or bytes(each for each in range(0x20, 0x100) if each != 0x7F)
        return bytes(self._rng.choices(allowed, k=self._rng.randint(0, most)))

    def _valid(self) -> Shot:
        codec = self._rng.choice(CODECS).encode()
        data = self.request(
            path=TASK.encode() + self._rng.choice((b"", b"?model=whole", b"?model=rank4")),
            body=self.features(self._rng.randint(1, 4)),
            accept=b"application/x-safetensors; codec=" + codec,
        )
        return Shot(kind="valid", data=data)

    def _body(self) -> Shot:
        size = self._rng.choice((0, 1, 767, 769, 768, 1536, 5 * FEATURE_BYTES, 100_000))
        values = self._rng.choice((np.nan, np.inf, -np.inf, 1e38, 1e-45))
        bad = self._feature[:1].copy()
        bad[0, self._rng.randrange(192)] = values
        body = self._rng.choice(
            (self._rng.randbytes(size), bytes(size), bad.tobytes(), b'{"features": [1, 2]}')
        )
        return Shot(kind="body", data=self.request(body=body))

    def _content_type(self) -> Shot:
        wanted = (
            b"",
            b"application/json",
            b"text/plain; charset=\xff",
            b"multipart/form-data",
            OCTETS.upper(),
        )
        value = self._rng.choice((*wanted, b"a" * 5000, self.noise(80), OCTETS + b";" + self.noise(40), None))
        return Shot(kind="content type", data=self.request(content_type=value))

    def _accept(self) -> Shot:
        some = b"application/x-safetensors; codec="
        value = self._rng.choice(
            (
                self.noise(200),
                some + self.noise(30),
                some + b"fp16; q=" + self.noise(8, b"0123456789.-einaf"),
                b",".join(some + self._rng.choice(CODECS).encode() + b";q=0.%d" % i for i in range(60)),
                b"*/*;q=0",
                b'application/x-safetensors; codec="fp16',
                b"text/html",
                b"," * 2000,
                self.noise(60, b',;=*/" q0.1'),
            )
        )
        return Shot(kind="accept", data=self.request(accept=value))

    def _deadline(self) -> Shot:
        wanted = (b"0", b"-1", b"nan", b"inf", b"1e400", b"1_0", b"0x1", b"", b"1e-9", b"0.0001", b"0.02")
        value = self._rng.choice(
            (*wanted, "\u0661".encode(), self.noise(30), self.noise(12, b"0123456789.e-+"))
        )
        return Shot(kind="deadline", data=self.request(x_deadline_seconds=value), own_deadline=True)

    def _token(self) -> Shot:
        right = self._bearer
        wanted = (None, b"", b"Bearer", b"Bearer ", right[:-1], right + b"x", right.upper(), b"Basic eDp5")
        value = self._rng.choice((*wanted, b"Bearer \xc3\x28\xff", b"Bearer " + b"a" * 9000, self.noise(100)))
        path = self._rng.choice((TASK, "/v1/models", "/v1/models/whole/base"))
        method = b"POST" if path == TASK else b"GET"
        return Shot(kind="token", data=self.request(method=method, path=path.encode(), authorization=value))

    def _path(self) -> Shot:
        odd = b"abz09%/.;?&=~+-_:@!$'()*,[]\\^|{}<>\"`"
        some = self._rng.choice(
            (b"/v1/generate/", b"/v1/models/", b"/", b"/v1/models/%2e%2e/", b"//", b"/-/", b"")
        )
        ends = (
            self.noise(60, odd),
            b"%00",
            b"%ff%fe",
            b"..%2f" * 9,
            b"x" * 7000,
            b"whole/base",
            b"%",
            b"%zz",
        )
        path = some + self._rng.choice((*ends, b"open-ended-qa?model=" + self.noise(40, odd), b"healthz/"))
        # A path that does not begin with "/" is no clean request.
        clean = path.startswith(b"/")
        data = self.request(method=self._rng.choice((b"GET", b"POST")), path=path)
        return Shot(kind="path", data=data, num_replies=int(clean))

    def _method(self) -> Shot:
        known = (b"GET", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"HEAD", b"TRACE", b"PROPFIND")
        name = self._rng.choice((*known, b"get", b"X" * 300, self.noise(12, b"ABCXYZ-_!#")))
        path = self._rng.choice((TASK, "/v1/models", "/healthz", "/docs", "/openapi.json")).encode()
        clean = name in known
        data = self.request(method=name, path=path, body=b"")
        return Shot(kind="method", data=data, num_replies=int(clean), has_body=name != b"HEAD")

    def _headers(self) -> Shot:
        rng = self._rng
        one: dict[str, bytes] = rng.choice(
            (
                {"x_request_id": rng.choice((self.noise(300), b"\xe9t\xe9", b"a" * 129, b"%n%s"))},
                {"x_request_timeout_seconds": rng.choice((b"0.001", b"-1", b"nan", self.noise(9)))},
                {rng.choice(("serve_multiplexed_model_id", "x_session_id")): self.noise(60)},
                {"expect": rng.choice((b"100-continue", b"200-ok"))},
                {"connection": b"upgrade", "upgrade": rng.choice((b"websocket", b"h2c", b"TLS/1.0"))},
                {"if_none_match": self.noise(80), "range": b"bytes=0-0,-1"},
                {"content_encoding": rng.choice((b"gzip", b"br", self.noise(9)))},
                {"host": rng.choice((b"", b"[::1", b"a b", self.noise(40)))},
                {"x_forwarded_for": self.noise(99), "forwarded": self.noise(99), "cookie": self.noise(2000)},
                {f"x_{i}": b"y" for i in range(rng.choice((20, 90, 300)))},
                {"x_long": b"z" * rng.choice((8_000, 60_000, 200_000))},
            )
        )
        # Upgrades and heads that are too large end the connection.
        clean = not ({"upgrade", "x_long", "host", "x_299", "expect"} & one.keys())
        own = "x_request_timeout_seconds" in one
        data = self.request(body=self.features(1), **one)
        return Shot(kind="headers", data=data, num_replies=int(clean), own_deadline=own)

    def _framing(self) -> Shot:
        right = self.request()
        head, _, body = right.partition(b"\r\n\r\n")
        chunked = head.replace(b"content-length: 768", b"transfer-encoding: chunked") + b"\r\n\r\n"
        wanted = (
            self.request(
                length=self._rng.choice((b"-1", b"+768", b"7_68", b"0x300", b"1e3", b"9" * 40, b"abc"))
            ),
            self.request(length=self._rng.choice((b"0", b"10", b"2000", b"99999999999"))),
            head + b"\r\ncontent-length: 5\r\n\r\n" + body,
            head + b"\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n" + right,
            chunked + b"300\r\n" + body + b"\r\n0\r\n\r\n",
            chunked + self._rng.choice((b"zz\r\n", b"-5\r\n", b"ffffffffffffffff\r\n", b"300\r\n")) + body,
            chunked.replace(b"chunked", self._rng.choice((b"gzip", b"chunked, chunked", b"xchunked"))) + body,
            right[: self._rng.randrange(1, len(right))],
            right.replace(b"\r\n", b"\n"),
        )
        return Shot(kind="framing", data=self._rng.choice(wanted), num_replies=0)

    def _junk(self) -> Shot:
        data = bytearray(self.request())
        for _ in range(self._rng.randint(1, 30)):
            at = self._rng.randrange(min(len(data), 260))
            data[at : at + self._rng.randint(0, 2)] = self._rng.randbytes(self._rng.randint(0, 3))
        return Shot(kind="junk", data=bytes(data), num_replies=0)

    def _pipelined(self) -> Shot:
        num = self._rng.randint(2, 6)
        data = b"".join(self._rng.choice((self._accept, self._body, self._valid))().data for _ in range(num))
        return Shot(kind="pipelined", data=data, num_replies=num)
