"""Limits on the size of extracted texts, tables, Office archives and PDF streams."""

from __future__ import annotations

import re
import zipfile
import zlib
from io import BytesIO
from typing import TYPE_CHECKING, Final

from .extract_errors import ExtractError, translate_parser_errors

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


_MAX_CHARACTERS: Final = 50_000_000
"""Of the whole text. Pages may share their content, and every row repeats the columns' names."""

_MAX_ROWS_OR_PAGES: Final = 2_000_000
"""Twice the rows that a sheet of Excel can have."""

MAX_CELLS: Final = 10_000_000
"""Places of a table, empty ones included: a value at the far end of a row makes it long."""

_MAX_UNPACKED: Final = 200_000_000
"""Bytes of all members, pictures included: a parser holds them in memory."""

MAX_XML_TREE: Final = 32_000_000
"""Bytes of XML where a parser makes a tree of it, ten times as large; 1,000 pages are 15 MB."""

MAX_XML_STREAM: Final = 64_000_000
"""Bytes of XML where it goes through it only."""

_MAX_MEMBERS: Final = 5_000

_COMPRESSION_METHODS: Final = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
"""All that Office files use; Python inflates these, and only these, piece by piece."""


_MAX_PDF_STREAM: Final = 32_000_000
"""Bytes of one page's drawing. PDFium needs 18 times as much (measured with 15 and 100 MB)."""

_MAX_PDF_STREAMS: Final = 250_000_000
"""Bytes of all of them; PDFium draws some 8 MB a second (measured)."""

_PDF_STREAM: Final = re.compile(rb">>\s*stream\r?\n")
_IGNORED_PDF_STREAM: Final = re.compile(rb"/(?:Image|EmbeddedFile)\b")
_PDF_DICTIONARY_BYTES: Final = 1000
"""Bytes before a stream where it says what it is."""

_BLOCK_SIZE: Final = 65_536


def collect_texts(texts: Iterable[str]) -> list[str]:
    """Collect the texts while there is room for them.

    Raises:
        ExtractError: they are more than a server should hold.
    """
    collected: list[str] = []
    remaining = _MAX_CHARACTERS
    for text in texts:
        remaining -= len(text)
        if remaining < 0 or len(collected) == _MAX_ROWS_OR_PAGES:
            raise ExtractError(
                f"This embedded server reads at most {_MAX_CHARACTERS:,} characters,"
                f" in {_MAX_ROWS_OR_PAGES:,} rows or pages."
            )
        collected.append(text)
    return collected


def too_many_cells_error() -> ExtractError:
    """Say that a table is larger than a server should hold."""
    return ExtractError(f"This embedded server reads at most {MAX_CELLS:,} cells of tables.")


def check_archive_size(content: bytes, max_xml: int) -> None:
    """Refuse an archive that is none, or that unpacks to more than a server should hold.

    The sizes are the directory's, and zipfile never unpacks more of a member than it states.
    The real server has no such limit.

    Raises:
        ExtractError: see above.
    """
    with translate_parser_errors(), zipfile.ZipFile(BytesIO(content)) as archive:
        members = archive.infolist()
    if len(members) > _MAX_MEMBERS or not _COMPRESSION_METHODS.issuperset(
        m.compress_type for m in members
    ):
        raise ExtractError("This embedded server does not unpack such an archive.")
    size = sum(member.file_size for member in members)
    xml = sum(m.file_size for m in members if m.filename.lower().endswith((".xml", ".rels")))
    if size > _MAX_UNPACKED or xml > max_xml:
        raise ExtractError(
            f"The file unpacks to {size:,} bytes, {xml:,} of them XML; this embedded server"
            f" unpacks at most {_MAX_UNPACKED:,} and {max_xml:,}."
        )


def check_pdf_streams(content: bytes) -> None:
    """Refuse a pdf whose drawings unpack to more than a server should hold.

    Looks at what is deflated once, as nearly everything is; pictures and attachments are not
    unpacked when a text is read. The real server has no such limit.

    Raises:
        ExtractError: see above.
    """
    total = 0
    for match in _PDF_STREAM.finditer(content):
        if _IGNORED_PDF_STREAM.search(
            content, max(0, match.start() - _PDF_DICTIONARY_BYTES), match.end()
        ):
            continue
        size = 0
        for piece in _iter_inflated_sizes(content, match.end()):
            size += piece
            if size > _MAX_PDF_STREAM or total + size > _MAX_PDF_STREAMS:
                raise ExtractError(
                    "This embedded server unpacks at most"
                    f" {_MAX_PDF_STREAM:,} bytes of a page, and {_MAX_PDF_STREAMS:,} of a file."
                )
        total += size


def _iter_inflated_sizes(content: bytes, offset: int) -> Iterator[int]:
    """Unpack what begins there; yield the sizes of the pieces."""
    decompressor = zlib.decompressobj()
    try:
        while not decompressor.eof and offset < len(content):
            yield len(
                decompressor.decompress(content[offset : offset + _BLOCK_SIZE], _MAX_PDF_STREAM)
            )
            while decompressor.unconsumed_tail:
                yield len(decompressor.decompress(decompressor.unconsumed_tail, _MAX_PDF_STREAM))
            offset += _BLOCK_SIZE
    except zlib.error:
        return  # packed in another way, or not at all
