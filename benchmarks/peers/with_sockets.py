"""Upload over bare sockets, the lower bound: one thread, with only the required headers."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import urlsplit

import harness

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FRONT = (
    b'--0a1b\r\nContent-Disposition: form-data; name="data"\r\n\r\n%b\r\n--0a1b\r\n'
    b'Content-Disposition: form-data; name="file"; filename="%b"\r\n'
    b"Content-Type: application/octet-stream\r\n\r\n"
)
END = b"\r\n--0a1b--\r\n"


@dataclass
class FileRange:
    """The unsent rest of an open file."""

    file: BinaryIO
    at: int
    length: int

    def __len__(self) -> int:
        return self.length - self.at

    def send_to(self, socket: socket.socket) -> bool:
        """Send a part by `sendfile`; return whether everything is sent."""
        self.at += os.sendfile(socket.fileno(), self.file.fileno(), self.at, len(self))
        if not len(self):
            self.file.close()
        return not len(self)


@dataclass
class Buffer:
    """The unsent rest of some bytes."""

    left: memoryview

    def send_to(self, socket: socket.socket) -> bool:
        """Send a part; return whether everything is sent."""
        self.left = self.left[socket.send(self.left) :]
        return not self.left


def build_request(job: harness.Job, file: Path) -> list[Buffer | FileRange]:
    """Return the parts of a request: head, file and end."""
    front = FRONT % (json.dumps(harness.REQUEST_DATA).encode(), file.name.encode())
    size = len(job.read_content(file)) if job.held else file.stat().st_size
    where = urlsplit(job.upload_url)
    head = (
        f"POST {where.path} HTTP/1.1\r\nHost: {where.netloc}\r\nAuthorization: Bearer {job.key}\r\n"
        "Content-Type: multipart/form-data; boundary=0a1b\r\n"
        f"Content-Length: {len(front) + size + len(END)}\r\n\r\n"
    )
    if job.held:
        return [Buffer(memoryview(b"".join((head.encode(), front, job.read_content(file), END))))]
    stretch = FileRange(file.open("rb"), 0, size)
    return [Buffer(memoryview(head.encode() + front)), stretch, Buffer(memoryview(END))]


class Connection:
    """A connection that sends one file after the other."""

    def __init__(self, job: harness.Job, files: Iterator[Path]) -> None:
        where = urlsplit(job.url)
        self.socket = socket.create_connection((where.hostname, where.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(0)
        self._job, self._files = job, files
        self._out: list[Buffer | FileRange] = []
        self._came = b""

    def start_next_request(self) -> bool:
        """Start to send the next file; return False if there is none."""
        file = next(self._files, None)
        self._out = [] if file is None else build_request(self._job, file)
        self.write()
        return file is not None

    def write(self) -> None:
        """Send as much as the socket accepts."""
        with contextlib.suppress(BlockingIOError):
            while self._out:
                if self._out[0].send_to(self.socket):
                    del self._out[0]

    @property
    def selector_events(self) -> int:
        """The selector events to wait for."""
        return selectors.EVENT_READ | (selectors.EVENT_WRITE if self._out else 0)

    def read(self) -> bool:
        """Receive a part of the response, and return whether it is complete."""
        came = self.socket.recv(65536)
        if not came:
            raise ConnectionResetError("the server closed the connection")
        self._came += came
        head, end, body = self._came.partition(b"\r\n\r\n")
        if not end or len(body) < int(head.partition(b"Content-Length: ")[2].split(b"\r\n")[0]):
            return False
        if not head.startswith(b"HTTP/1.1 200") or not json.loads(body)["document"]["id"]:
            raise ValueError(head)
        self._came = b""
        return True


def send_files(job: harness.Job, files: Iterator[Path]) -> None:
    """Send all files over `at_once` connections."""
    with selectors.DefaultSelector() as selector:
        open_ = 0
        for _ in range(job.at_once):
            connection = Connection(job, files)
            if connection.start_next_request():
                selector.register(connection.socket, connection.selector_events, connection)
                open_ += 1
            else:
                connection.socket.close()
        while open_:
            for key, ready in selector.select():
                connection = key.data
                if ready & selectors.EVENT_WRITE:
                    connection.write()
                if (
                    ready & selectors.EVENT_READ
                    and connection.read()
                    and not connection.start_next_request()
                ):
                    selector.unregister(connection.socket)
                    connection.socket.close()
                    open_ -= 1
                elif connection.selector_events != key.events:
                    selector.modify(connection.socket, connection.selector_events, connection)


def upload_over_sockets(job: harness.Job) -> harness.JobCost:
    """Send the files of a job."""
    warm_up, files = job.list_files(job.warm_up), job.list_files(job.folder)
    send_files(job, iter(warm_up))
    meter = harness.Meter(job)
    send_files(job, meter.iter_files(files))
    return meter.finish()


if __name__ == "__main__":
    harness.main({"sockets": upload_over_sockets}, {"json": lambda: json.loads})
