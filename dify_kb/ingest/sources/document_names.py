"""Derive document names from keys, and keys from file names normalized to NFC.

A name is plain if the key can be restored from it; otherwise it contains `~` and 8 hex digits of a
hash of the key. Different keys therefore have different names, and the name of a key never depends
on other files.

macOS and some file servers return `é` as two code points (NFD), most others as one (NFC). Only if a
folder contains both names, as is possible on Linux, do keys keep the form on disk.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING
from unicodedata import is_normalized, normalize

from attrs import define, field

from dify_kb.models import DOCUMENT_EXTENSIONS

if TYPE_CHECKING:
    from collections.abc import Sequence

UNSTRUCTURED_EXTENSIONS = frozenset({"doc", "eml", "epub", "msg", "ppt", "pptx", "xml"})
"""Accepted only by servers with `ETL_TYPE=Unstructured` (Dify's `api/constants/__init__.py`)."""

TEXT_EXTENSIONS = frozenset(
    {"csv", "htm", "html", "markdown", "md", "mdx", "properties", "txt", "vtt"}
)
"""Extensions that the server processes as text, without conversion."""


MAX_NAME_LENGTH = 180
"""Characters. The server truncates names longer than 200 at their first dot, so that different
names could become equal."""

_REFUSED = re.compile(r'[\\:*?"<>|%\x00-\x1f\x7f-\x9f\ud800-\udfff]')
_TAGGED = re.compile(r"~[0-9a-f]{8}(\.|$)")
_EXTENSION = re.compile(r"\.([A-Za-z][A-Za-z0-9]{0,15})$")
_TEXT = ".txt"


def file_extension(name: str) -> str:
    """Return the extension in lower case, as the server determines it; "" if there is none."""
    _stem, dot, extension = name.rpartition(".")
    return extension.lower() if dot and "/" not in extension else ""


def document_name(key: str, *, as_text: bool = False) -> str:
    """Return the name of the document of `key`, a relative path with `/`.

    Args:
        as_text: append `.txt`, because the server does not accept the extension.

    | key | name |
    |---|---|
    | `docs/readme.md` | `docs__readme.md` |
    | `a__b.txt` (`a/b.txt` is `a__b.txt`) | `a__b~8d02b8ab.txt` |
    | `why?.md` | `why_~….md` |
    | `notes.rst` as text | `notes.rst.txt` |
    """
    plain = unicodedata.normalize("NFC", _REFUSED.sub("_", key)).replace("/", "__")
    plain = f"{plain}{_TEXT}" if as_text else plain
    if _key_of(plain) == key and len(plain) <= MAX_NAME_LENGTH and plain == plain.rstrip():
        return plain
    stem, dot, extension = plain.rpartition(".")
    tail = f"~{_hash(key)}{dot}{extension.rstrip()}"
    return f"{stem[: MAX_NAME_LENGTH - len(tail)].rstrip()}{tail}"


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


def normalize_names(names: Sequence[str]) -> Sequence[str]:
    """Return the names of one folder as used in keys, in the same order.

    Names with the same NFC form stay unchanged, so that different names remain different.
    """
    if all(is_normalized("NFC", name) for name in names):
        return names
    forms = [normalize("NFC", name) for name in names]
    count = Counter(forms)
    return [form if count[form] == 1 else name for name, form in zip(names, forms, strict=True)]


@define
class PathNormalizer:
    """Normalizes paths like `normalize_names`. Blocking.

    Lists a folder at most once, and only for a name that is not NFC.
    """

    _folders: dict[str, Mapping[str, str]] = field(factory=dict)

    def normalize(self, path: str, folder: str = "") -> str:
        """Return `path` as used in keys; a relative path is relative to `folder`."""
        if is_normalized("NFC", path):
            return path
        names: list[str] = []
        for name in path.split("/"):
            names.append(self._name(folder, name))
            folder = f"{folder}/{name}"
        return "/".join(names)

    def _name(self, folder: str, name: str) -> str:
        form = normalize("NFC", name)
        # A name that is not in the listing is another Unicode form of a listed name.
        return form if form == name else self._names_in(folder).get(name, form)

    def _names_in(self, folder: str) -> Mapping[str, str]:
        if folder not in self._folders:
            try:
                names = os.listdir(folder or ".")  # noqa: PTH208 -- names, not paths
            except (OSError, ValueError):
                names = []
            self._folders[folder] = dict(zip(names, normalize_names(names), strict=True))
        return self._folders[folder]
