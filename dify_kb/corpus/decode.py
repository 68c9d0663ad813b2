from __future__ import annotations

import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from importlib import import_module

_BINARY = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")


def decode(content: bytes, *, declared: str | None = None) -> str | None:
    """Return the text of `content`, or None where it is no text.

    UTF-8 first, and a byte order mark of it stays as U+FEFF, as on the server. Otherwise the
    encoding the document declares, and then a guess: by charset_normalizer, which the server
    uses, if it is installed; else UTF-16 with its mark, or Windows-1252.
    """
    for encoding in filter(None, ("utf-8", declared)):
        try:
            return content.decode(encoding)
        except (UnicodeError, LookupError):
            continue
    return _guess(content)


def _guess(content: bytes) -> str | None:
    try:
        detector = import_module("charset_normalizer")
    except ModuleNotFoundError:
        return _western(content)
    best = detector.from_bytes(content).best()
    return None if best is None else str(best)


def _western(content: bytes) -> str | None:
    if content.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
        return content.decode("utf-16", errors="replace")
    if _BINARY.search(content):
        return None
    try:
        return content.decode("cp1252")
    except UnicodeDecodeError:
        return content.decode("latin-1")
