"""What is measured, how long and how much of it at most. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from attrs import evolve, frozen

from dify_kb.errors import ConfigError

KIB, MIB = 1024, 1024 * 1024

CONCURRENCIES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
"""Numbers of requests at once. None is tried that is far beyond the knee of those before."""

MAX_SEARCH_METHODS = 5
"""Ways to search that a base has at most, see `search_methods.py`."""

CHUNK_SIZES = (200, 500, 1500)
"""Characters of a chunk, when nothing else is asked for."""

TOP_KS = (1, 3, 5, 10)
"""Passages that count, when nothing else is asked for."""

Technique = Literal["economy", "high_quality"]


@frozen(kw_only=True)
class UploadPlan:
    """Uploads of one size."""

    size: int
    """Bytes."""

    concurrencies: Sequence[int]
    rounds: int
    seconds: float
    """Of one round of one number at once."""

    max_documents: int
    """Documents at most, in all rounds together."""


@frozen(kw_only=True)
class SearchPlan:
    """Searches by each method that the base has."""

    top_k: Sequence[int]
    concurrencies: Sequence[int]
    rounds: int
    seconds: float
    max_searches: int
    """Searches at most of one method and one `top_k`."""


@frozen(kw_only=True)
class LoadEstimate:
    """What a run costs the server at most."""

    documents: int
    bytes: int
    searches: int
    at_once: int
    seconds: float


@frozen(kw_only=True)
class BenchmarkPlan:
    """A whole run. Every number is a bound that is kept."""

    name: str
    uploads: Sequence[UploadPlan]
    documents: int
    """Documents of the corpus whose indexing is followed."""

    corpus_bytes: int
    """Bytes of them at most."""

    indexing_timeout: float
    """Seconds that their indexing is followed at most."""

    search: SearchPlan
    seconds: float
    """Of the whole run, without the deletion of what it made."""

    @classmethod
    def quick(cls) -> BenchmarkPlan:
        """Measure within two minutes what there is to see: the knee, and the rest roughly."""
        return cls(
            name="quick",
            uploads=(
                UploadPlan(
                    size=100 * KIB,
                    concurrencies=(1, 2, 4, 8),
                    rounds=2,
                    seconds=1.0,
                    max_documents=300,
                ),
                UploadPlan(
                    size=5 * MIB, concurrencies=(1, 2, 4), rounds=1, seconds=2.0, max_documents=36
                ),
                UploadPlan(
                    size=4 * KIB,
                    concurrencies=CONCURRENCIES[:10],
                    rounds=5,
                    seconds=1.6,
                    max_documents=5000,
                ),
            ),
            documents=20,
            corpus_bytes=4 * MIB,
            indexing_timeout=25.0,
            search=SearchPlan(
                top_k=(4,), concurrencies=(1, 4), rounds=2, seconds=0.7, max_searches=400
            ),
            seconds=105.0,
        )

    @classmethod
    def full(cls) -> BenchmarkPlan:
        """Measure everything, within twenty minutes."""
        return cls(
            name="full",
            uploads=(
                UploadPlan(
                    size=100 * KIB,
                    concurrencies=CONCURRENCIES,
                    rounds=3,
                    seconds=3.0,
                    max_documents=4000,
                ),
                UploadPlan(
                    size=5 * MIB,
                    concurrencies=CONCURRENCIES[:8],
                    rounds=2,
                    seconds=5.0,
                    max_documents=150,
                ),
                UploadPlan(
                    size=4 * KIB,
                    concurrencies=CONCURRENCIES,
                    rounds=5,
                    seconds=4.0,
                    max_documents=12000,
                ),
            ),
            documents=100,
            corpus_bytes=20 * MIB,
            indexing_timeout=300.0,
            search=SearchPlan(
                top_k=(2, 5, 20),
                concurrencies=(1, 2, 4, 8, 16, 32),
                rounds=3,
                seconds=1.0,
                max_searches=2000,
            ),
            seconds=1200.0,
        )

    def estimate_load(self) -> LoadEstimate:
        """Tell what the run costs the server at most."""
        levels = [number for upload in self.uploads for number in upload.concurrencies]
        return LoadEstimate(
            documents=self.documents + sum(upload.max_documents for upload in self.uploads),
            bytes=self.corpus_bytes
            + sum(upload.max_documents * upload.size for upload in self.uploads),
            searches=self.search.max_searches * len(self.search.top_k) * MAX_SEARCH_METHODS,
            at_once=max([*levels, *self.search.concurrencies]),
            seconds=self.seconds,
        )

    def with_max_concurrency(self, at_once: int) -> BenchmarkPlan:
        """Give the same with fewer requests at once.

        Raises:
            ConfigError: fewer than one.
        """
        if at_once < 1:
            raise ConfigError(f"At most {at_once} at once measures nothing.", hint="Allow one.")
        uploads = [
            evolve(upload, concurrencies=_at_most(upload.concurrencies, at_once))
            for upload in self.uploads
        ]
        search = evolve(self.search, concurrencies=_at_most(self.search.concurrencies, at_once))
        return evolve(self, uploads=uploads, search=search)


def _at_most(numbers: Sequence[int], most: int) -> Sequence[int]:
    return [number for number in numbers if number <= most]
