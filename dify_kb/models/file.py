"""A file on its way: where its bytes are, not the bytes."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from attrs import field, frozen


@frozen(kw_only=True)
class File:
    """What a multipart file part is made of, opened afresh for each attempt.

    `content` is a path, the bytes, or a binary file that can seek, read from `start`. `size` is
    what will be promised to the server, in bytes; None is that of the path when it is first opened.
    """

    name: str
    content: Path | bytes | BinaryIO = field(repr=False)
    size: int | None = None
    start: int = 0
