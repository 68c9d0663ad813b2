"""What is found of a base's retrieval: frozen values that travel as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import frozen

from dify_kb.bench.numbers import Latency
from dify_kb.bench.report import FORMAT, Where

from .metrics import Mean


@frozen(kw_only=True)
class Row:
    """One way to search one base. `mrr` and `ndcg` are within the largest k."""

    base: str
    """How the base was cut, or its name."""

    method: str
    recall: Mapping[str, Mean]
    """By k."""

    mrr: Mean
    ndcg: Mean
    missed: int
    """Queries of which nothing relevant was found."""

    tied: bool
    """Whether its nDCG cannot be told from that of the best row."""

    characters: float
    """Of a passage, on average: longer ones hold more, and cost more to read."""

    latency: Latency | None


@frozen(kw_only=True)
class Missed:
    """A query of which nothing relevant was found by the best row."""

    query: str
    relevant: Sequence[str]


@frozen(kw_only=True)
class QualityReport:
    """How well an instance finds what is known to be there."""

    where: Where
    source: str
    """Where the queries are from."""

    queries: int
    documents: int
    models: Sequence[str]
    ks: Sequence[int]
    rows: Sequence[Row]
    """The best nDCG first."""

    missed: Sequence[Missed]
    notes: Sequence[str]
    requests: int
    seconds: float
    type: str = "eval"
    format: int = FORMAT
