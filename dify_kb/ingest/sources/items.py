"""Elements of a source: items that bring a key and content, paths, and named lists of both."""

from __future__ import annotations

import builtins
import os
from collections.abc import AsyncIterable, Iterable, Mapping

from attrs import field, frozen

from dify_kb.errors import ConfigError


@frozen
class Item:
    """A document to load under a key of its own, with exactly one of `path`, `bytes` and `text`.

    The document is named after the key, so the extension of the key tells the server how to read
    it; a `text` whose key has no extension of a document gets `.txt`. The key is used as given:
    unlike the keys of files found in folders, it is not normalized to NFC. `metadata` is set by
    field name once the document is indexed.

    Raises:
        ConfigError: the key or the path is empty, or there is not exactly one content.
    """

    key: str
    path: str | os.PathLike[str] | None = field(default=None, kw_only=True)
    bytes: builtins.bytes | None = field(default=None, kw_only=True, repr=False)
    text: str | None = field(default=None, kw_only=True, repr=False)
    metadata: Mapping[str, object] | None = field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if not self.key.strip("/ "):
            raise ConfigError(
                f"Invalid item key: {self.key!r}.", hint="Pass a relative path, or any name."
            )
        if sum(part is not None for part in (self.path, self.bytes, self.text)) != 1:
            raise ConfigError(
                f"Item {self.key!r} needs exactly one of path, bytes and text.",
            )
        if self.path is not None:
            require_path(self.path)

    @property
    def data(self) -> builtins.bytes | None:
        """The content in memory, as it is sent; None for a path."""
        return self.bytes if self.text is None else self.text.encode()

    @property
    def weight(self) -> int:
        """About how much memory the content takes, in bytes."""
        return len(self.bytes or self.text or "")


def require_path(path: str | os.PathLike[str]) -> None:
    """Check that a path can be one.

    Raises:
        ConfigError: it is empty, or contains a NUL character.
    """
    text = os.fspath(path)
    if not text:
        raise ConfigError(
            "The path is empty.",
            hint='Check that a variable is not unset; pass "." for the current folder.',
        )
    if "\0" in text:
        raise ConfigError(f"The path {text!r} contains a NUL character.")


Element = str | os.PathLike[str] | Item


@frozen
class NamedSource:
    """A list of files under a name that identifies its journal.

    A list of the files of one folder is named by that folder's path, and so shares its journal.
    Each element is named explicitly: one that a rule leaves out has failed, not been skipped.
    """

    elements: Iterable[Element]
    name: str


Source = Element | Iterable[Element] | AsyncIterable[Element] | NamedSource
"""A folder, a file, an item, or several of them; also from a generator, async or not."""
