"""A rule for runs of the indexer, or for calls of models: which, and what becomes of them."""

from __future__ import annotations

from collections import deque
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from dify_kb.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence


class Worded(Protocol):
    """A failure that was planned in a word."""

    @property
    def word(self) -> str:
        """The word."""
        ...


F = TypeVar("F", bound=Worded)


class Rule(Generic[F]):
    """Words that are taken off by what matches, one by each."""

    def __init__(self, words: Sequence[F], *, names: str, every: int, always: bool) -> None:
        if every < 1:
            raise ConfigError(f"Every {every}th time is never.", hint="Give a number from 1.")
        self._words = deque(words)
        self._names = names
        self._every = every
        self._always = always
        self._seen = 0

    def take(self, name: str) -> F | None:
        """Take the word for this document or model; None where the rule is not about it."""
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
        """Tell the words that were not taken; a rule without an end has none."""
        return [] if self._always else [word.word for word in self._words]
