"""Derive the name of a document from its key alone, independently of other files.

A name is plain if the key can be restored from it; otherwise it contains `~` and 8 hex digits of a
hash of the key. Different keys therefore have different names, and the name of a key never depends
on other files.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata

from dify_kb.models import DOCUMENT_EXTENSIONS

LONGEST = 180
"""Characters. The server truncates names longer than 200 at their first dot, which would make names
equal."""

_REFUSED = re.compile(r'[\\:*?"<>|%\x00-\x1f\x7f-\x9f\ud800-\udfff]')
_TAGGED = re.compile(r"~[0-9a-f]{8}(\.|$)")
_EXTENSION = re.compile(r"\.([A-Za-z][A-Za-z0-9]{0,15})$")
_TEXT = ".txt"


def extension_of(name: str) -> str:
    """Return the extension in lower case, as the server determines it; "" if there is none."""
    _stem, dot, extension = name.rpartition(".")
    return extension.lower() if dot and "/" not in extension else ""


def name_of(key: str, *, as_text: bool = False) -> str:
    """Return the name of the document of `key`, a relative path with `/`.

    Args:
        as_text: the server does not accept the extension, so `.txt` is appended.

    | key | name |
    |---|---|
    | `docs/readme.md` | `docs__readme.md` |
    | `a__b.txt` (`a/b.txt` is `a__b.txt`) | `a__b~8d02b8ab.txt` |
    | `why?.md` | `why_~….md` |
    | `notes.rst` as text | `notes.rst.txt` |
    """
    plain = unicodedata.normalize("NFC", _REFUSED.sub("_", key)).replace("/", "__")
    plain = f"{plain}{_TEXT}" if as_text else plain
    if _key_of(plain) == key and len(plain) <= LONGEST and plain == plain.rstrip():
        return plain
    stem, dot, extension = plain.rpartition(".")
    tail = f"~{_hash(key)}{dot}{extension.rstrip()}"
    return f"{stem[: LONGEST - len(tail)].rstrip()}{tail}"


def _key_of(name: str) -> str | None:
    """Return the key of a plain name; None if the name contains a hash."""
    if _TAGGED.search(name):
        return None
    key = name.replace("__", "/")
    inner = _EXTENSION.search(key.removesuffix(_TEXT))
    if key.endswith(_TEXT) and inner and inner[1].lower() not in DOCUMENT_EXTENSIONS:
        return key.removesuffix(_TEXT)
    return key


def _hash(key: str) -> str:
    return hashlib.blake2b(key.encode(errors="surrogatepass"), digest_size=4).hexdigest()
