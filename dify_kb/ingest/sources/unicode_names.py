"""Normalize file names to NFC, so that a file has the same key on every system.

macOS and some file servers return `é` as two code points (NFD), most others as one (NFC). On Linux
a folder may contain both names; only then do keys keep the form on disk.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING
from unicodedata import is_normalized, normalize

from attrs import define, field

if TYPE_CHECKING:
    from collections.abc import Sequence


def normalized_names(names: Sequence[str]) -> Sequence[str]:
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
    """Normalizes paths by the rule of `normalized_names`.

    Lists a folder only if the path has a name in it that is not NFC, and once. Blocking.
    """

    _folders: dict[str, Mapping[str, str]] = field(factory=dict)

    def normalize(self, path: str, folder: str = "") -> str:
        """Return `path` as used in keys; a relative path is below `folder`."""
        if is_normalized("NFC", path):
            return path
        names: list[str] = []
        for name in path.split("/"):
            names.append(self._name(folder, name))
            folder = f"{folder}/{name}"
        return "/".join(names)

    def _name(self, folder: str, name: str) -> str:
        form = normalize("NFC", name)
        # A name that the folder does not list is another Unicode form of one that it lists.
        return form if form == name else self._names_in(folder).get(name, form)

    def _names_in(self, folder: str) -> Mapping[str, str]:
        if folder not in self._folders:
            try:
                names = os.listdir(folder or ".")  # noqa: PTH208 -- names, not paths
            except (OSError, ValueError):
                names = []
            self._folders[folder] = dict(zip(names, normalized_names(names), strict=True))
        return self._folders[folder]
