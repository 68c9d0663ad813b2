"""Measure a request at rising concurrency, in repeated rounds, up to the saturation point."""

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
"""The sweep stops at this multiple of the saturation point: higher levels only add waiting."""

MAX_FAILED_PART = 0.1
"""The sweep stops when a larger part of the requests of a level fails."""

AfterRound = Callable[[], Awaitable[None]]


@define
class ConcurrencySweep:
    """A sweep of one request over concurrency levels. `levels()` returns the results so far."""

    send_request: SendRequest
    concurrencies: Sequence[int]
    rounds: int
    seconds: float
    max_requests: int
    """Maximum number of requests; every round of every level gets the same share."""

    on_level: Callable[[int], None]
    """Called with each concurrency level before it is measured."""

    after_round: AfterRound | None = None
    """Called after each round of a level."""

    _rounds: defaultdict[int, list[RoundResult]] = field(
        factory=lambda: defaultdict(list), init=False
    )

    async def run(self) -> None:
        """Raise the concurrency until far beyond the saturation point, then repeat these levels.

        Raises:
            KnowledgeError: the server refuses the request.
        """
        for number in self.concurrencies:
            await self._measure(number)
            if self._is_far_beyond_saturation(number):
                break
        for _ in range(self.rounds - 1):
            for number in list(self._rounds):
                await self._measure(number)

    def levels(self) -> Sequence[ConcurrencyLevel]:
        """Return the results of the measured levels."""
        return [
            _summarize_level(number, rounds) for number, rounds in self._rounds.items() if rounds
        ]

    def first_error(self) -> KnowledgeError | None:
        """Return the first error, or None."""
        all_errors = (
            error
            for rounds in self._rounds.values()
            for round_ in rounds
            for error in round_.errors
        )
        return next(all_errors, None)

    def find_saturation(self) -> saturation_point.SaturationPoint | None:
        """Return the saturation point, by the median rates, since machines pause now and then."""
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
