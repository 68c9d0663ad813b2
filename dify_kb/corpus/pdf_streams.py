from __future__ import annotations

import re
import zlib
from typing import TYPE_CHECKING, Final

from .unread import ExtractError

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAX_STREAM: Final = 32_000_000
"""Bytes of one page's drawing. PDFium needs 18 times as much (measured with 15 and 100 MB)."""

_MAX_STREAMS: Final = 250_000_000
"""Bytes of all of them; PDFium draws some 8 MB a second (measured)."""

_STREAM: Final = re.compile(rb">>\s*stream\r?\n")
_UNREAD: Final = re.compile(rb"/(?:Image|EmbeddedFile)\b")
_ABOUT: Final = 1000
"""Bytes before a stream where it says what it is."""

_PIECE: Final = 65_536


def check_streams(content: bytes) -> None:
    """Refuse a pdf whose drawings unpack to more than a server should hold.

    Looks at what is deflated once, as nearly everything is; pictures and attachments are not
    unpacked when a text is read. The real server has no such limit.

    Raises:
        ExtractError: see above.
    """
    total = 0
    for match in _STREAM.finditer(content):
        if _UNREAD.search(content, max(0, match.start() - _ABOUT), match.end()):
            continue
        size = 0
        for piece in _inflated(content, match.end()):
            size += piece
            if size > _MAX_STREAM or total + size > _MAX_STREAMS:
                raise ExtractError(
                    "This embedded server unpacks at most"
                    f" {_MAX_STREAM:,} bytes of a page, and {_MAX_STREAMS:,} of a file."
                )
        total += size


def _inflated(content: bytes, at: int) -> Iterator[int]:
    """Unpack what begins there; yield the sizes of the pieces."""
    unpack = zlib.decompressobj()
    try:
        while not unpack.eof and at < len(content):
            yield len(unpack.decompress(content[at : at + _PIECE], _MAX_STREAM))
            while unpack.unconsumed_tail:
                yield len(unpack.decompress(unpack.unconsumed_tail, _MAX_STREAM))
            at += _PIECE
    except zlib.error:
        return  # packed in another way, or not at all
