"""Build the parts of a multipart body around a file, which is opened per attempt."""

from __future__ import annotations

import secrets
from typing import Protocol

from attrs import frozen

from dify_kb.models import File

from . import codec


class FileRequest(Protocol):
    """A request model that is sent as a multipart form."""

    @property
    def file(self) -> File:
        """The file part; all other fields are sent as JSON in the part `data`."""
        ...


@frozen
class MultipartForm:
    """A multipart body: the file, and the bytes before and after it."""

    content_type: str
    head: bytes
    file: File
    tail: bytes

    def content_length(self, content: int) -> int:
        """Return the length of the whole body for a file of `content` bytes."""
        return len(self.head) + content + len(self.tail)


def build_multipart(body: FileRequest) -> MultipartForm:
    """Build a multipart form with the parts `data` (JSON) and `file`.

    The file name is sent as raw UTF-8, which the server stores unchanged. A percent-encoded name
    would be stored encoded (measured).
    """
    boundary = secrets.token_hex(16)
    data = codec.to_json(body).decode()
    data_part = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="data"\r\n\r\n{data}\r\n'
        if data != "{}"
        else ""
    )
    filename = _escape_filename(body.file.name)
    head = (
        f"{data_part}--{boundary}\r\n"
        f'Content-Disposition: form-data; name="file"; filename="{filename}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    return MultipartForm(
        content_type=f"multipart/form-data; boundary={boundary}",
        head=head.encode(),
        file=body.file,
        tail=f"\r\n--{boundary}--\r\n".encode(),
    )


def _escape_filename(name: str) -> str:
    """Escape quotes and line breaks as browsers do; the server rejects the escaped name."""
    return name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
