"""A climb through numbers of requests at once, repeated, and the knee that it shows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from attrs import define, field

from . import saturation_point
from .load_generator import RoundResult, SendRequest, generate_load
from .metrics import Latency, Spread
from .results import ConcurrencyLevel

if TYPE_CHECKING:
    from dify_kb.errors import KnowledgeError

MAX_SATURATION_MULTIPLE = 3
"""A number at once so many times the knee brings nothing but waiting, and is not tried."""

MAX_FAILED_PART = 0.1
"""A part of requests that fail with which nobody should climb on."""

AfterRound = Callable[[], Awaitable[None]]


@define
class ConcurrencySweep:
    """Measures a request at several numbers at once. `levels()` tells what is known so far."""

    send_request: SendRequest
    concurrencies: Sequence[int]
    rounds: int
    seconds: float
    max_requests: int
    """Requests at most, in all; each round of a number gets its share."""

    on_level: Callable[[int], None]
    """Called with the number at once, before it is measured."""

    after_round: AfterRound | None = None
    """Called after each round of a number."""

    _rounds: defaultdict[int, list[RoundResult]] = field(
        factory=lambda: defaultdict(list), init=False
    )

    async def run(self) -> None:
        """Climb once until it is far beyond the knee, then measure the same again.

        Raises:
            KnowledgeError: the server refuses.
        """
        for number in self.concurrencies:
            await self._measure(number)
            if self._is_far_beyond_saturation(number):
                break
        for _ in range(self.rounds - 1):
            for number in list(self._rounds):
                await self._measure(number)

    def levels(self) -> Sequence[ConcurrencyLevel]:
        """Sum up what was measured."""
        return [
            _summarize_level(number, rounds) for number, rounds in self._rounds.items() if rounds
        ]

    def first_error(self) -> KnowledgeError | None:
        """Give the first error that was met, if any was."""
        all_errors = (
            error
            for rounds in self._rounds.values()
            for round_ in rounds
            for error in round_.errors
        )
        return next(all_errors, None)

    def find_saturation(self) -> saturation_point.SaturationPoint | None:
        """Tell where the server is full, by the medians: machines stand still now and then."""
        return saturation_point.find_saturation_point(
            saturation_point.ThroughputPoint(
                concurrency=number,
                rate=Spread.from_values([round_.rate for round_ in rounds]).median,
                weight=sum(round_.answered for round_ in rounds) or 1.0,
            )
            for number, rounds in self._rounds.items()
        )

    async def _measure(self, number: int) -> None:
        self.on_level(number)
        share = max(1, self.max_requests // (len(self.concurrencies) * self.rounds))
        measured = await generate_load(
            self.send_request, concurrency=number, seconds=self.seconds, max_requests=share
        )
        self._rounds[number].append(measured)
        if self.after_round is not None:
            await self.after_round()

    def _is_far_beyond_saturation(self, number: int) -> bool:
        rounds = self._rounds[number]
        failed = sum(len(round_.errors) for round_ in rounds)
        if failed > MAX_FAILED_PART * (failed + sum(len(round_.times) for round_ in rounds)):
            return True
        saturation = self.find_saturation()
        return (
            saturation is not None
            and saturation.reached
            and number >= MAX_SATURATION_MULTIPLE * saturation.at_once
        )


def _summarize_level(number: int, rounds: Sequence[RoundResult]) -> ConcurrencyLevel:
    return ConcurrencyLevel(
        at_once=number,
        rate=Spread.from_values([round_.rate for round_ in rounds]),
        latency=Latency.from_seconds([time for round_ in rounds for time in round_.times]),
        errors=sum(len(round_.errors) for round_ in rounds),
    )
