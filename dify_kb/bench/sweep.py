"""A climb through numbers of requests at once, repeated, and the knee that it shows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from attrs import define, field

from . import knee
from .drive import Request, Round, drive
from .numbers import Latency, Spread
from .report import Level

if TYPE_CHECKING:
    from dify_kb.errors import KnowledgeError

BEYOND = 3
"""A number at once so many times the knee brings nothing but waiting, and is not tried."""

SHAKY = 0.1
"""A part of requests that fail with which nobody should climb on."""

After = Callable[[], Awaitable[None]]


@define
class Sweep:
    """Measures a request at several numbers at once. `levels()` tells what is known so far."""

    request: Request
    at_once: Sequence[int]
    rounds: int
    seconds: float
    most: int
    """Requests at most, in all; each round of a number gets its share."""

    tell: Callable[[int], None]
    """Called with the number at once, before it is measured."""

    after: After | None = None
    """Called after each round of a number."""

    _runs: defaultdict[int, list[Round]] = field(factory=lambda: defaultdict(list), init=False)

    async def run(self) -> None:
        """Climb once until it is far beyond the knee, then measure the same again.

        Raises:
            KnowledgeError: the server refuses.
        """
        for number in self.at_once:
            await self._measure(number)
            if self._far(number):
                break
        for _ in range(self.rounds - 1):
            for number in list(self._runs):
                await self._measure(number)

    def levels(self) -> Sequence[Level]:
        """Sum up what was measured."""
        return [_level(number, rounds) for number, rounds in self._runs.items() if rounds]

    def error(self) -> KnowledgeError | None:
        """Give the first error that was met, if any was."""
        met = (
            error for rounds in self._runs.values() for round_ in rounds for error in round_.errors
        )
        return next(met, None)

    def knee(self) -> knee.Knee | None:
        """Tell where the server is full, by the medians: machines stand still now and then."""
        return knee.find(
            knee.Point(
                at_once=number,
                rate=Spread.of([round_.rate for round_ in rounds]).median,
                weight=sum(round_.answered for round_ in rounds) or 1.0,
            )
            for number, rounds in self._runs.items()
        )

    async def _measure(self, number: int) -> None:
        self.tell(number)
        share = max(1, self.most // (len(self.at_once) * self.rounds))
        measured = await drive(self.request, at_once=number, seconds=self.seconds, most=share)
        self._runs[number].append(measured)
        if self.after is not None:
            await self.after()

    def _far(self, number: int) -> bool:
        rounds = self._runs[number]
        failed = sum(len(round_.errors) for round_ in rounds)
        if failed > SHAKY * (failed + sum(len(round_.times) for round_ in rounds)):
            return True
        found = self.knee()
        return found is not None and found.reached and number >= BEYOND * found.at_once


def _level(number: int, rounds: Sequence[Round]) -> Level:
    return Level(
        at_once=number,
        rate=Spread.of([round_.rate for round_ in rounds]),
        latency=Latency.of([time for round_ in rounds for time in round_.times]),
        errors=sum(len(round_.errors) for round_ in rounds),
    )
