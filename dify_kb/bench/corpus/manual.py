"""A manual of a machine that does not exist: facts among what manuals say besides. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from attrs import frozen

if TYPE_CHECKING:
    from .chance import Chance
    from .tongues import Fact, Tongue

T = TypeVar("T")

SENTENCES = (2, 6)
"""Filler of a section, before and behind its fact."""


@frozen(kw_only=True)
class Question:
    """A query, the document that answers it, and the sentence that does."""

    query: str
    document: str
    answer: str
    language: str


@frozen(kw_only=True)
class Section:
    """A heading, and sentences of which one is a fact."""

    heading: str
    sentences: Sequence[str]
    query: str
    answer: str


@frozen(kw_only=True)
class Manual:
    """A title, and sections."""

    title: str
    sections: Sequence[Section]
    space: str

    def paragraphs(self, section: Section) -> str:
        """Put the sentences of a section behind each other."""
        return self.space.join(section.sentences)


def manual(chance: Chance, tongue: Tongue, product: str, size: int) -> Manual:
    """Write a manual of about `size` bytes of text, of one section at least.

    Each part of the machine is told each fact once at most; what is missing to the size then is
    filler.
    """
    pairs = [(part, fact) for part in tongue.parts for fact in tongue.facts]
    sections: list[Section] = []
    written = 0
    while pairs and (not sections or written < size):
        part, fact = pairs.pop(chance.below(len(pairs)))
        made = _section(chance, tongue, product, part, fact)
        sections.append(made)
        written += sum(len(sentence.encode()) for sentence in made.sentences)
    if written < size:
        rest = _filler(chance, tongue, chance.pick(tongue.parts), size - written)
        last = sections[-1]
        sections[-1] = Section(
            heading=last.heading,
            sentences=[*last.sentences, *rest],
            query=last.query,
            answer=last.answer,
        )
    return Manual(title=tongue.title.format(product=product), sections=sections, space=tongue.space)


def _section(chance: Chance, tongue: Tongue, product: str, part: str, fact: Fact) -> Section:
    words = {"part": part, "product": product, "value": chance.between(fact.low, fact.high)}
    answer = fact.text.format(**words)
    before, behind = (
        [chance.pick(tongue.filler).format(**words) for _ in range(chance.between(*SENTENCES))]
        for _ in range(2)
    )
    return Section(
        heading=f"{fact.heading}: {part}",
        sentences=[*before, answer, *behind],
        query=fact.question.format(**words),
        answer=answer,
    )


def _filler(chance: Chance, tongue: Tongue, part: str, size: int) -> Sequence[str]:
    sentences: list[str] = []
    while size > 0:
        sentences.append(chance.pick(tongue.filler).format(part=part))
        size -= len(sentences[-1].encode()) + len(tongue.space)
    return sentences
