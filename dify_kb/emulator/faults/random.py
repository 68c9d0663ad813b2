"""Random faults, reproducible by a seed."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from attrs import frozen

from dify_kb.errors import ConfigError

from .spec import Fault, faults


@frozen
class Chance:
    """The faults of one endpoint, each up to its share of the numbers from 0 to 1."""

    shares: Sequence[tuple[float, Fault]]
    source: random.Random

    def draw(self) -> Fault | None:
        """Draw the fault of the next call."""
        number = self.source.random()
        for bound, fault in self.shares:
            if number < bound:
                return fault
        return None


def chances(seed: int, rates: Mapping[str, Mapping[str, float]]) -> Mapping[str, Chance]:
    """Return the chances by endpoint; each draws from a source of its own.

    Raises:
        ConfigError: an unknown fault, or chances of more than 1.
    """
    return {
        # A text seeds the same in every process; a tuple would be hashed.
        endpoint: Chance(_shares(endpoint, rate), random.Random(f"{seed} {endpoint}"))
        for endpoint, rate in rates.items()
    }


def _shares(endpoint: str, rates: Mapping[str, float]) -> list[tuple[float, Fault]]:
    shares: list[tuple[float, Fault]] = []
    bound = 0.0
    for word, rate in rates.items():
        if type(rate) not in {int, float} or not 0 <= rate <= 1:
            raise ConfigError(
                f"Invalid chance {rate!r} of {word!r} for {endpoint}: expected 0 to 1."
            )
        bound += rate
        shares += [(bound, fault) for fault in faults([word])[:1]]
    # Ten times 0.1 is a little less or more than 1.
    if bound > 1 + 1e-9:
        raise ConfigError(f"The chances of {endpoint} sum to {bound:g}, which is more than 1.")
    return shares
