"""Generate manuals of imaginary machines from a seed. Pure.

Only `random()` is used: it is the only generator function that is stable across Python versions.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from attrs import frozen

if TYPE_CHECKING:
    from .languages import Fact, Language

T = TypeVar("T")

_NORMAL = statistics.NormalDist()


class StableRandom:
    """A random generator that is stable across Python versions."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def integer_below(self, number: int) -> int:
        """Return an integer from 0 to `number` - 1."""
        return int(self._random.random() * number)

    def integer_between(self, low: int, high: int) -> int:
        """Return an integer from `low` to `high`, both included."""
        return low + self.integer_below(high - low + 1)

    def choice(self, values: Sequence[T]) -> T:
        """Return one of the values."""
        return values[self.integer_below(len(values))]

    def log_normal_size(self, median: float, spread: float, low: int, high: int) -> int:
        """Return a log-normally distributed integer, limited to `low` to `high`."""
        normal = _NORMAL.inv_cdf(min(max(self._random.random(), 1e-9), 1 - 1e-9))
        return round(min(max(median * math.exp(spread * normal), low), high))


FILLER_SENTENCES = (2, 6)
"""Minimum and maximum number of filler sentences before, and after, the fact of a section."""


@frozen(kw_only=True)
class Question:
    """A query, the document that answers it, and the sentence with the answer."""

    query: str
    document: str
    answer: str
    language: str


@frozen(kw_only=True)
class ManualSection:
    """A heading and sentences, one of which is a fact."""

    heading: str
    sentences: Sequence[str]
    query: str
    answer: str


@frozen(kw_only=True)
class Manual:
    """A title and sections."""

    title: str
    sections: Sequence[ManualSection]
    space: str

    def section_text(self, section: ManualSection) -> str:
        """Return the text of a section."""
        return self.space.join(section.sentences)


def generate_manual(rng: StableRandom, language: Language, product: str, size: int) -> Manual:
    """Generate a manual of about `size` bytes of text, with at least one section.

    Each combination of part and fact occurs at most once; filler makes up the rest of the size.
    """
    pairs = [(part, fact) for part in language.parts for fact in language.facts]
    sections: list[ManualSection] = []
    written = 0
    while pairs and (not sections or written < size):
        part, fact = pairs.pop(rng.integer_below(len(pairs)))
        section = _generate_section(rng, language, product, part, fact)
        sections.append(section)
        written += sum(len(sentence.encode()) for sentence in section.sentences)
    if written < size:
        filler = _generate_filler(rng, language, rng.choice(language.parts), size - written)
        last = sections[-1]
        sections[-1] = ManualSection(
            heading=last.heading,
            sentences=[*last.sentences, *filler],
            query=last.query,
            answer=last.answer,
        )
    return Manual(
        title=language.title.format(product=product), sections=sections, space=language.space
    )


def _generate_section(
    rng: StableRandom, language: Language, product: str, part: str, fact: Fact
) -> ManualSection:
    words = {"part": part, "product": product, "value": rng.integer_between(fact.low, fact.high)}
    answer = fact.text.format(**words)
    before, after = (
        [
            rng.choice(language.filler).format(**words)
            for _ in range(rng.integer_between(*FILLER_SENTENCES))
        ]
        for _ in range(2)
    )
    return ManualSection(
        heading=f"{fact.heading}: {part}",
        sentences=[*before, answer, *after],
        query=fact.question.format(**words),
        answer=answer,
    )


def _generate_filler(rng: StableRandom, language: Language, part: str, size: int) -> Sequence[str]:
    sentences: list[str] = []
    while size > 0:
        sentences.append(rng.choice(language.filler).format(part=part))
        size -= len(sentences[-1].encode()) + len(language.space)
    return sentences
