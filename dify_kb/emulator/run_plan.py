"""A rule for runs of the indexer: which documents, and what becomes of them."""

from __future__ import annotations

from collections import deque
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from dify_kb.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .words import RunFault


class RunRule:
    """Words that are taken off by the runs that match, one by each."""

    def __init__(self, words: Sequence[RunFault], *, names: str, every: int, always: bool) -> None:
        if every < 1:
            raise ConfigError(f"Every {every}th run is none.", hint="Give a number from 1.")
        self._words = deque(words)
        self._names = names
        self._every = every
        self._always = always
        self._seen = 0

    def take(self, document: str) -> RunFault | None:
        """Take the word of a run of this document; None where the rule is not about it."""
        if not self._words or not fnmatchcase(document, self._names):
            return None
        self._seen += 1
        if self._seen % self._every:
            return None
        word = self._words.popleft()
        if self._always:
            self._words.append(word)
        return word

    def left(self) -> list[str]:
        """Tell the words that were not taken; a rule without an end has none."""
        return [] if self._always else [word.word for word in self._words]
