"""The queries that come with the package: about the corpus, with one answer each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dify_kb.bench.corpus import FORMATS, Question, Sample, corpus
from dify_kb.bench.corpus.chance import Chance
from dify_kb.bench.corpus.make import SEED

from .queries import Asked, Target

if TYPE_CHECKING:
    from collections.abc import Sequence

DOCUMENTS, QUERIES = 60, 100

READ_BY_ALL = {name: share for name, share in FORMATS.items() if name in {"md", "html", "txt"}}
"""What every server reads in the same way, so that retrieval alone is compared."""


def documents(count: int = DOCUMENTS) -> Sequence[Sample]:
    """Write the documents."""
    return list(corpus(count, formats=READ_BY_ALL))


def questions(samples: Sequence[Sample], count: int = QUERIES) -> Sequence[Asked]:
    """Draw so many queries; each wants the passage with the sentence that answers it."""
    chance, left = Chance(SEED), [one for sample in samples for one in sample.questions]
    drawn = [left.pop(chance.below(len(left))) for _ in range(min(count, len(left)))]
    return [_asked(question) for question in drawn]


def _asked(question: Question) -> Asked:
    return Asked(query=question.query, relevant=[Target(text=question.answer)])
