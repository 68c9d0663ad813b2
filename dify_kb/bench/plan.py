"""What is measured, how long and how much of it at most. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from attrs import evolve, frozen

from dify_kb.errors import ConfigError

KIB, MIB = 1024, 1024 * 1024

CLIMB = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
"""Numbers of requests at once. None is tried that is far beyond the knee of those before."""

METHODS = 5
"""Ways to search that a base has at most, see `methods`."""

Technique = Literal["economy", "high_quality"]


@frozen(kw_only=True)
class Upload:
    """Uploads of one size."""

    size: int
    """Bytes."""

    at_once: Sequence[int]
    rounds: int
    seconds: float
    """Of one round of one number at once."""

    most: int
    """Documents at most, in all rounds together."""


@frozen(kw_only=True)
class Search:
    """Searches by each method that the base has."""

    top_k: Sequence[int]
    at_once: Sequence[int]
    rounds: int
    seconds: float
    most: int
    """Searches at most of one method and one `top_k`."""


@frozen(kw_only=True)
class Load:
    """What a run costs the server at most."""

    documents: int
    bytes: int
    searches: int
    at_once: int
    seconds: float


@frozen(kw_only=True)
class Plan:
    """A whole run. Every number is a bound that is kept."""

    name: str
    uploads: Sequence[Upload]
    documents: int
    """Documents of the corpus whose indexing is followed."""

    corpus_bytes: int
    """Bytes of them at most."""

    indexing: float
    """Seconds that their indexing is followed at most."""

    search: Search
    seconds: float
    """Of the whole run, without the deletion of what it made."""

    @classmethod
    def quick(cls) -> Plan:
        """Measure within two minutes what there is to see: the knee, and the rest roughly."""
        return cls(
            name="quick",
            uploads=(
                Upload(size=100 * KIB, at_once=(1, 2, 4, 8), rounds=2, seconds=1.0, most=300),
                Upload(size=5 * MIB, at_once=(1, 2, 4), rounds=1, seconds=2.0, most=36),
                Upload(size=4 * KIB, at_once=CLIMB[:10], rounds=5, seconds=1.6, most=5000),
            ),
            documents=20,
            corpus_bytes=4 * MIB,
            indexing=25.0,
            search=Search(top_k=(4,), at_once=(1, 4), rounds=2, seconds=0.7, most=400),
            seconds=105.0,
        )

    @classmethod
    def full(cls) -> Plan:
        """Measure everything, within twenty minutes."""
        return cls(
            name="full",
            uploads=(
                Upload(size=100 * KIB, at_once=CLIMB, rounds=3, seconds=3.0, most=4000),
                Upload(size=5 * MIB, at_once=CLIMB[:8], rounds=2, seconds=5.0, most=150),
                Upload(size=4 * KIB, at_once=CLIMB, rounds=5, seconds=4.0, most=12000),
            ),
            documents=100,
            corpus_bytes=20 * MIB,
            indexing=300.0,
            search=Search(
                top_k=(2, 5, 20), at_once=(1, 2, 4, 8, 16, 32), rounds=3, seconds=1.0, most=2000
            ),
            seconds=1200.0,
        )

    def load(self) -> Load:
        """Tell what the run costs the server at most."""
        levels = [number for upload in self.uploads for number in upload.at_once]
        return Load(
            documents=self.documents + sum(upload.most for upload in self.uploads),
            bytes=self.corpus_bytes + sum(upload.most * upload.size for upload in self.uploads),
            searches=self.search.most * len(self.search.top_k) * METHODS,
            at_once=max([*levels, *self.search.at_once]),
            seconds=self.seconds,
        )

    def bounded(self, at_once: int) -> Plan:
        """Give the same with fewer requests at once.

        Raises:
            ConfigError: fewer than one.
        """
        if at_once < 1:
            raise ConfigError(f"At most {at_once} at once measures nothing.", hint="Allow one.")
        uploads = [
            evolve(upload, at_once=_upto(upload.at_once, at_once)) for upload in self.uploads
        ]
        search = evolve(self.search, at_once=_upto(self.search.at_once, at_once))
        return evolve(self, uploads=uploads, search=search)


def _upto(numbers: Sequence[int], most: int) -> Sequence[int]:
    return [number for number in numbers if number <= most]
