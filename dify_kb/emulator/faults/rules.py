"""Rules that select runs of the indexer or calls of models, and their faults."""

from __future__ import annotations

from collections import deque
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from dify_kb.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence


class Worded(Protocol):
    """A fault that has a word."""

    @property
    def word(self) -> str:
        """The word."""
        ...


F = TypeVar("F", bound=Worded)


class Rule(Generic[F]):
    """A queue of faults; each match takes one."""

    def __init__(self, words: Sequence[F], *, names: str, every: int, always: bool) -> None:
        if every < 1:
            raise ConfigError(f"Invalid value for every: {every}.", hint="It must be at least 1.")
        self._words = deque(words)
        self._names = names
        self._every = every
        self._always = always
        self._seen = 0

    def take(self, name: str) -> F | None:
        """Return the fault for this document or model; None if the rule does not match."""
        if not self._words or not fnmatchcase(name, self._names):
            return None
        self._seen += 1
        if self._seen % self._every:
            return None
        word = self._words.popleft()
        if self._always:
            self._words.append(word)
        return word

    def left(self) -> list[str]:
        """Return the words that were not taken; a rule without an end has none."""
        return [] if self._always else [word.word for word in self._words]
