"""Select faults: by rules for indexing runs and model calls, or at random from a seed."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Generic, Protocol, TypeVar

from attrs import frozen

from dify_kb.errors import ConfigError

from .spec import Fault, parse_faults


class FaultWithWord(Protocol):
    """A fault that is written as a word."""

    @property
    def word(self) -> str:
        """The word that the fault was parsed from."""
        ...


FaultT = TypeVar("FaultT", bound=FaultWithWord)


class FaultRule(Generic[FaultT]):
    """A queue of faults for the documents or models whose name matches a glob."""

    def __init__(self, faults: Sequence[FaultT], *, names: str, every: int, always: bool) -> None:
        if every < 1:
            raise ConfigError(f"Invalid value for 'every': {every}.", hint="Use 1 or more.")
        self._faults = deque(faults)
        self._pattern = names
        self._every = every
        self._repeats = always
        self._match_count = 0

    def take_fault(self, name: str) -> FaultT | None:
        """Remove and return the next fault for a document or model; None without a match."""
        if not self._faults or not fnmatchcase(name, self._pattern):
            return None
        self._match_count += 1
        if self._match_count % self._every:
            return None
        fault = self._faults.popleft()
        if self._repeats:
            self._faults.append(fault)
        return fault

    def list_remaining_words(self) -> list[str]:
        """Return the words of the unused faults; empty for a rule with `always`."""
        return [] if self._repeats else [fault.word for fault in self._faults]


@frozen
class RandomFaults:
    """The random faults of one endpoint, with cumulative probabilities from 0 to 1."""

    shares: Sequence[tuple[float, Fault]]
    generator: random.Random

    def draw(self) -> Fault | None:
        """Return a random fault for the next call, or None for success."""
        number = self.generator.random()
        for upper_bound, fault in self.shares:
            if number < upper_bound:
                return fault
        return None


def build_random_faults(
    seed: int, rates: Mapping[str, Mapping[str, float]]
) -> Mapping[str, RandomFaults]:
    """Return the random faults by endpoint; each endpoint has its own generator.

    Raises:
        ConfigError: a fault is unknown, or the probabilities of an endpoint exceed 1.
    """
    return {
        # A str seeds the same in every process; a tuple would be hashed.
        endpoint: RandomFaults(_build_shares(endpoint, rate), random.Random(f"{seed} {endpoint}"))
        for endpoint, rate in rates.items()
    }


def _build_shares(endpoint: str, rates: Mapping[str, float]) -> list[tuple[float, Fault]]:
    shares: list[tuple[float, Fault]] = []
    upper_bound = 0.0
    for word, rate in rates.items():
        if type(rate) not in {int, float} or not 0 <= rate <= 1:
            raise ConfigError(
                f"Invalid probability of {word!r} for {endpoint}: {rate!r}; expected 0 to 1."
            )
        upper_bound += rate
        shares += [(upper_bound, fault) for fault in parse_faults([word])[:1]]
    # The sum of ten times 0.1 is not exactly 1.
    if upper_bound > 1 + 1e-9:
        raise ConfigError(
            f"Invalid probabilities for {endpoint}: the sum is {upper_bound:g}, more than 1."
        )
    return shares
