"""Hold refused uploads until it is known whether the refusal concerns one file or all files."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from attrs import define, field

from dify_kb.ingest.error_classes import (
    SAME_PAGES,
    SAME_REFUSALS,
    is_page,
    refusal_signature,
)

from .tracked_file import TrackedFile

if TYPE_CHECKING:
    from dify_kb.errors import KnowledgeError


@define
class Refusals:
    """Uploads refused since the last accepted one, grouped by message."""

    _held: defaultdict[str, list[TrackedFile]] = field(factory=lambda: defaultdict(list))

    def __len__(self) -> int:
        return sum(map(len, self._held.values()))

    def add(self, file: TrackedFile, error: KnowledgeError) -> bool:
        """Hold a file; return whether enough equal refusals occurred to concern all files."""
        alike = self._held[refusal_signature(error)]
        alike.append(file)
        return len(alike) >= (SAME_PAGES if is_page(error) else SAME_REFUSALS)

    def release(self) -> list[TrackedFile]:
        """Remove and return all files."""
        held = [file for alike in self._held.values() for file in alike]
        self._held.clear()
        return held
