"""Benchmark plans: the measurements of a run, and the limits of its load. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from attrs import evolve, frozen

from dify_kb.errors import ConfigError

KIB, MIB = 1024, 1024 * 1024

CONCURRENCIES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
"""Concurrency levels. A sweep stops before levels far beyond the saturation point."""

MAX_SEARCH_METHODS = 5
"""Maximum number of search methods of a dataset, see `search_methods.py`."""

CHUNK_SIZES = (200, 500, 1500)
"""Default chunk sizes, in characters."""

TOP_KS = (1, 3, 5, 10)
"""Default numbers of top chunks that are evaluated."""

Technique = Literal["economy", "high_quality"]


@frozen(kw_only=True)
class UploadPlan:
    """Uploads of files of one size."""

    size: int
    """File size, in bytes."""

    concurrencies: Sequence[int]
    rounds: int
    seconds: float
    """Duration of one round at one concurrency level."""

    max_documents: int
    """Maximum number of documents, over all rounds."""


@frozen(kw_only=True)
class SearchPlan:
    """Searches by each method of the dataset."""

    top_k: Sequence[int]
    concurrencies: Sequence[int]
    rounds: int
    seconds: float
    max_searches: int
    """Maximum number of searches per method and `top_k`."""


@frozen(kw_only=True)
class LoadEstimate:
    """The maximum load of a run on the server."""

    documents: int
    bytes: int
    searches: int
    at_once: int
    seconds: float


@frozen(kw_only=True)
class BenchmarkPlan:
    """A whole run. Every number is a limit that the run keeps."""

    name: str
    uploads: Sequence[UploadPlan]
    documents: int
    """Number of documents whose indexing is measured."""

    corpus_bytes: int
    """Maximum total size of these documents, in bytes."""

    indexing_timeout: float
    """Seconds after which unfinished documents are given up."""

    search: SearchPlan
    seconds: float
    """Maximum duration of the run, without the deletion of its datasets."""

    @classmethod
    def quick(cls) -> BenchmarkPlan:
        """Return a plan of two minutes: the saturation point, and the rest coarsely."""
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
        """Return a plan of twenty minutes that measures everything."""
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
        """Return the maximum load of the run on the server."""
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
        """Return a copy of the plan with a lower maximum concurrency.

        Raises:
            ConfigError: the maximum is below 1.
        """
        if at_once < 1:
            raise ConfigError(f"Invalid maximum concurrency: {at_once}.", hint="Allow at least 1.")
        uploads = [
            evolve(upload, concurrencies=_at_most(upload.concurrencies, at_once))
            for upload in self.uploads
        ]
        search = evolve(self.search, concurrencies=_at_most(self.search.concurrencies, at_once))
        return evolve(self, uploads=uploads, search=search)


def _at_most(numbers: Sequence[int], most: int) -> Sequence[int]:
    return [number for number in numbers if number <= most]
