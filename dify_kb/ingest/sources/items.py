"""The types that a source can have: items with key and content, paths, and named lists."""

from __future__ import annotations

import builtins
import os
from collections.abc import AsyncIterable, Iterable, Mapping

from attrs import field, frozen

from dify_kb.argument_checks import check_constructor
from dify_kb.errors import ConfigError

from .file_source import FileSource


@check_constructor
@frozen
class Item:
    """A document to load under a given key, with exactly one of `path`, `bytes` and `text`.

    The document is named after the key, whose extension determines how the server parses it; `.txt`
    is appended to the name of a `text` whose key has no supported extension. Unlike the keys of
    files in folders, the key is not normalized to NFC. `metadata`, by field name, is set once the
    document is indexed.

    Raises:
        ConfigError: the key or the path is empty, or not exactly one content is given.
    """

    key: str
    path: str | os.PathLike[str] | None = field(default=None, kw_only=True)
    bytes: builtins.bytes | None = field(default=None, kw_only=True, repr=False)
    text: str | None = field(default=None, kw_only=True, repr=False)
    metadata: Mapping[str, object] | None = field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if not self.key.strip("/ "):
            raise ConfigError(
                f"Invalid item key: {self.key!r}.", hint="Pass a relative path or a name."
            )
        if sum(part is not None for part in (self.path, self.bytes, self.text)) != 1:
            raise ConfigError(f"Item {self.key!r} needs exactly one of path, bytes and text.")
        if self.path is not None:
            require_path(self.path)

    @property
    def data(self) -> builtins.bytes | None:
        """The content as bytes; None for a path."""
        return self.bytes if self.text is None else self.text.encode()

    @property
    def weight(self) -> int:
        """The approximate memory of the content, in bytes."""
        return len(self.bytes or self.text or "")


def require_path(path: str | os.PathLike[str]) -> None:
    """Check that a path is valid.

    Raises:
        ConfigError: the path is empty or cannot be the path of a file.
        TypeError: it is another object, such as an element of a list.
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(
            f"An element of source must be a path, an Item or a FileSource, not {path!r}"
        )
    text = os.fspath(path)
    if not text:
        raise ConfigError(
            "The path is empty.",
            hint='Check for an unset variable; pass "." for the current folder.',
        )
    if "\0" in text:
        raise ConfigError(f"The path {text!r} contains a NUL character.")
    try:
        os.fsencode(text)
    except UnicodeEncodeError as error:
        raise ConfigError(f"The path {text!r} contains an unpaired surrogate.") from error


Element = str | os.PathLike[str] | Item | FileSource


@frozen
class NamedSource:
    """A list of files with a name that identifies its journal.

    To share the journal of a folder, use the folder's path as the name. All elements count as named
    explicitly: an excluded element fails instead of being skipped.
    """

    elements: Iterable[Element]
    name: str


Source = Element | Iterable[Element] | AsyncIterable[Element] | NamedSource
"""A folder, a file, a URL, an item or a `FileSource`, or an iterable of these, possibly
asynchronous."""
