"""What is told while a run goes on, and what it counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from attrs import define, field, frozen

from .report import Trouble

if TYPE_CHECKING:
    from dify_kb.transport import Attempted


@frozen(kw_only=True)
class Step:
    """What a run does now. `part` of the whole is done, from 0 to 1."""

    phase: str
    what: str
    part: float


Tell = Callable[[Step], None]
"""Hears of each step, in the loop's thread; must return at once."""


@define
class Tally:
    """Counts requests, and what they met. Give `see` to the client as `on_event`."""

    requests: int = 0
    _met: Counter[tuple[str, str]] = field(factory=Counter)
    _examples: dict[tuple[str, str], str] = field(factory=dict)

    def see(self, event: Attempted) -> None:
        """Take in one attempt."""
        self.requests += 1
        if event.error is None:
            return
        kind = str(event.status) if event.status else event.trouble or "failed"
        self._met[event.endpoint, kind] += 1
        self._examples.setdefault((event.endpoint, kind), event.error)

    def troubles(self) -> Sequence[Trouble]:
        """Sum up what was met, the most frequent first."""
        return [
            Trouble(
                endpoint=endpoint, kind=kind, count=count, example=self._examples[endpoint, kind]
            )
            for (endpoint, kind), count in self._met.most_common()
        ]
