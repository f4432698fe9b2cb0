"""A TCP proxy between devices and the cloud that records every byte of both directions."""

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field


@dataclass
class Connection:
    """Bytes of one connection, by direction."""

    from_device: bytearray = field(default_factory=bytearray)
    from_cloud: bytearray = field(default_factory=bytearray)


@dataclass
class RecordedLink:
    """The proxy's port and the connections so far."""

    port: int
    connections: list[Connection] = field(default_factory=list)

    @property
    def from_devices(self) -> bytes:
        return b"".join(each.from_device for each in self.connections)

    @property
    def from_cloud(self) -> bytes:
        return b"".join(each.from_cloud for each in self.connections)


def _copy(source: socket.socket, sink: socket.socket, record: bytearray) -> None:
    with suppress(OSError):
        while chunk := source.recv(65_536):
            record += chunk
            sink.sendall(chunk)
        sink.shutdown(socket.SHUT_WR)


@contextmanager
def recorded_link(cloud_port: int) -> Iterator[RecordedLink]:
    """Forward connections to `cloud_port`; on exit every connection has ended and is complete."""

    class Forward(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            connection = Connection()
            link.connections.append(connection)
            with socket.create_connection(("127.0.0.1", cloud_port)) as cloud:
                back = threading.Thread(target=_copy, args=(cloud, self.request, connection.from_cloud))
                back.start()
                _copy(self.request, cloud, connection.from_device)
                back.join()

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Forward) as server:
        link = RecordedLink(port=server.server_address[1])
        accepting = threading.Thread(target=server.serve_forever, args=(0.02,))
        accepting.start()
        try:
            yield link
        finally:
            server.shutdown()
            accepting.join()
