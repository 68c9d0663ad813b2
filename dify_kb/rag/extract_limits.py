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
"""Characters per document. Pages may share content, and every row repeats the column names."""

_MAX_ROWS_OR_PAGES: Final = 2_000_000
"""Twice the rows that a sheet of Excel can have."""

MAX_CELLS: Final = 10_000_000
"""Cells of a table, including empty cells: a value at the far end makes a row long."""

_MAX_UNPACKED: Final = 200_000_000
"""Bytes of all members, including pictures: a parser keeps them in memory."""

MAX_XML_TREE: Final = 32_000_000
"""Bytes of XML for a parser that builds a tree (ten times as large); 1,000 pages are 15 MB."""

MAX_XML_STREAM: Final = 64_000_000
"""Bytes of XML for a parser that streams it."""

_MAX_MEMBERS: Final = 5_000

_COMPRESSION_METHODS: Final = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
"""The only methods that Office files use and that Python decompresses in blocks."""


_MAX_PDF_STREAM: Final = 32_000_000
"""Maximum bytes of one content stream. PDFium needs 18 times as much memory (measured at 15
and 100 MB)."""

_MAX_PDF_STREAMS: Final = 250_000_000
"""Maximum bytes of all content streams; PDFium processes about 8 MB per second (measured)."""

_PDF_STREAM: Final = re.compile(rb">>\s*stream\r?\n")
_IGNORED_PDF_STREAM: Final = re.compile(rb"/(?:Image|EmbeddedFile)\b")
_PDF_DICTIONARY_BYTES: Final = 1000
"""Bytes before a stream that are searched for its type."""

_BLOCK_SIZE: Final = 65_536


def collect_texts(texts: Iterable[str]) -> list[str]:
    """Collect the texts of a document into a list.

    Raises:
        ExtractError: the limit of characters, or of rows or pages, is exceeded.
    """
    collected: list[str] = []
    remaining = _MAX_CHARACTERS
    for text in texts:
        remaining -= len(text)
        if remaining < 0 or len(collected) == _MAX_ROWS_OR_PAGES:
            raise ExtractError(
                f"Document too large: the embedded server reads at most {_MAX_CHARACTERS:,}"
                f" characters and {_MAX_ROWS_OR_PAGES:,} rows or pages."
            )
        collected.append(text)
    return collected


def too_many_cells_error() -> ExtractError:
    """Return the error for a table that exceeds `MAX_CELLS`."""
    return ExtractError(f"Table too large: the embedded server reads at most {MAX_CELLS:,} cells.")


def check_archive_size(content: bytes, max_xml: int) -> None:
    """Check that a file is a zip archive whose unpacked size is within the limits.

    The sizes are those of the archive's directory; zipfile never unpacks more of a member than its
    stated size. The real server has no such limit.

    Raises:
        ExtractError: not an archive, or larger than a limit.
    """
    with translate_parser_errors(), zipfile.ZipFile(BytesIO(content)) as archive:
        members = archive.infolist()
    if len(members) > _MAX_MEMBERS or not _COMPRESSION_METHODS.issuperset(
        m.compress_type for m in members
    ):
        raise ExtractError(
            f"Unsupported archive: it contains more than {_MAX_MEMBERS:,} files or an unusual"
            " compression method."
        )
    size = sum(member.file_size for member in members)
    xml = sum(m.file_size for m in members if m.filename.lower().endswith((".xml", ".rels")))
    if size > _MAX_UNPACKED or xml > max_xml:
        raise ExtractError(
            f"File too large: it unpacks to {size:,} bytes, {xml:,} of them XML; the embedded"
            f" server unpacks at most {_MAX_UNPACKED:,} and {max_xml:,}."
        )


def check_pdf_streams(content: bytes) -> None:
    """Check that the content streams of a pdf unpack to less than the limits.

    Only streams compressed once with deflate are checked, which is nearly all of them. Pictures
    and attachments are ignored: text extraction does not unpack them. The real server has no such
    limit.

    Raises:
        ExtractError: a limit is exceeded.
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
                    "PDF too large: the embedded server unpacks at most"
                    f" {_MAX_PDF_STREAM:,} bytes per page and {_MAX_PDF_STREAMS:,} per file."
                )
        total += size


def _iter_inflated_sizes(content: bytes, offset: int) -> Iterator[int]:
    """Decompress the stream that starts at `offset`; yield the sizes of the blocks."""
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
        return  # another compression, or none
