"""The labels of a file in the journal, which record its metadata.

The labels in the journal are a hash of everything that is known without reading the file, then what
was done with its front matter (`HeaderState`) and how many bytes were removed. A file is unchanged
if they are what they would be now. So that unchanged files are not read, the header itself is not
part of the hash: it changes with the file.
"""

from __future__ import annotations

import enum
import hashlib
import json
from datetime import datetime
from typing import TYPE_CHECKING

from attrs import evolve, frozen

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dify_kb.resources.metadata_validation import AssignableValue


class HeaderState(enum.StrEnum):
    """The treatment of the front matter of a document."""

    UNREAD = ""
    """It was not looked for."""

    NONE = "none"
    """There was none."""

    KEPT = "kept"
    REMOVED = "removed"


_UNSET = "unset"
"""In place of the hash of values that were not set."""


@frozen
class Labels:
    """The labels of a file: the hash of its values, and what was done with its header."""

    values: str = ""
    header: HeaderState = HeaderState.UNREAD
    removed: int = 0
    """Bytes of the file that were not sent."""

    def __str__(self) -> str:
        if not self.header:
            return self.values
        removed = f".{self.removed}" if self.removed else ""
        return f"{self.values}.{self.header}{removed}"

    @classmethod
    def parse(cls, labels: str) -> Labels:
        """Parse labels of a journal."""
        values, header, removed, *_ = *labels.split("."), "", ""
        return cls(values, HeaderState(header), int(removed or 0))

    @property
    def are_set(self) -> bool:
        """Whether the values were set."""
        return self.values != _UNSET

    def without_values(self) -> Labels:
        """Return the labels before the values are set."""
        return evolve(self, values=_UNSET) if self.header else Labels()


def metadata_fingerprint(metadata: Mapping[str, AssignableValue] | Sequence[object]) -> str:
    """Return a hash of the values; "" if there are none."""
    if not metadata:
        return ""
    encoded = json.dumps(metadata, sort_keys=True, default=_encode)
    return hashlib.sha256(encoded.encode()).hexdigest()[:16]


def _encode(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else repr(value)
