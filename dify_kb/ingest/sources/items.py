"""What can be loaded besides folders: items that name their own key and bring their content."""

from __future__ import annotations

import builtins
import os
from collections.abc import AsyncIterable, Iterable, Mapping

from attrs import field, frozen

from dify_kb.errors import ConfigError


@frozen
class Item:
    """One thing to load, under a key of its own: exactly one of `path`, `bytes` and `text`.

    The document is named after the key, so the key's extension tells the server how to read it;
    a `text` whose key has no extension of a document gets `.txt`. `metadata` is set by field name
    once the document is indexed.

    Raises:
        ConfigError: the key is empty, or it has no content, or two.
    """

    key: str
    path: str | os.PathLike[str] | None = field(default=None, kw_only=True)
    bytes: builtins.bytes | None = field(default=None, kw_only=True, repr=False)
    text: str | None = field(default=None, kw_only=True, repr=False)
    metadata: Mapping[str, object] | None = field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if not self.key.strip("/ "):
            raise ConfigError(f"{self.key!r} is no key.", hint="Pass a relative path, or any name.")
        if sum(part is not None for part in (self.path, self.bytes, self.text)) != 1:
            raise ConfigError(
                f"The item {self.key!r} has no content, or two.",
                hint="Pass one of path, bytes and text.",
            )

    @property
    def data(self) -> builtins.bytes | None:
        """Its content in memory, as it is sent; None for a path."""
        return self.bytes if self.text is None else self.text.encode()

    @property
    def weight(self) -> int:
        """How much memory its content takes, about."""
        return len(self.bytes or self.text or "")


Element = str | os.PathLike[str] | Item


@frozen
class NamedSource:
    """Elements under a name, which journals tell their source from others by: a list of files of
    a folder has that folder's path, so that it shares the folder's journal.
    """

    elements: Iterable[Element]
    name: str


Source = Element | Iterable[Element] | AsyncIterable[Element] | NamedSource
"""A folder, a file, an item, or several of them; also from a generator, async or not."""
