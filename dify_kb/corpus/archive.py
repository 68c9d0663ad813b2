"""Office files are archives; what one unpacks to is looked at before anybody unpacks it."""

from __future__ import annotations

import zipfile
from io import BytesIO
from typing import Final

from .unread import ExtractError, parsing

_MAX_UNPACKED: Final = 200_000_000
"""Bytes of all members, pictures included: a parser holds them in memory."""

MAX_TREE: Final = 32_000_000
"""Bytes of XML where a parser makes a tree of it, ten times as large; 1,000 pages are 15 MB."""

MAX_STREAM: Final = 64_000_000
"""Bytes of XML where it goes through it only."""

_MAX_MEMBERS: Final = 5_000

_METHODS: Final = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
"""All that Office files use; Python inflates these, and only these, piece by piece."""


def check_archive(content: bytes, max_xml: int) -> None:
    """Refuse an archive that is none, or that unpacks to more than a server should hold.

    The sizes are the directory's, and zipfile never unpacks more of a member than it states.
    The real server has no such limit.

    Raises:
        ExtractError: see above.
    """
    with parsing(), zipfile.ZipFile(BytesIO(content)) as archive:
        members = archive.infolist()
    if len(members) > _MAX_MEMBERS or not _METHODS.issuperset(m.compress_type for m in members):
        raise ExtractError("This embedded server does not unpack such an archive.")
    size = sum(member.file_size for member in members)
    xml = sum(m.file_size for m in members if m.filename.lower().endswith((".xml", ".rels")))
    if size > _MAX_UNPACKED or xml > max_xml:
        raise ExtractError(
            f"The file unpacks to {size:,} bytes, {xml:,} of them XML; this embedded server"
            f" unpacks at most {_MAX_UNPACKED:,} and {max_xml:,}."
        )
