"""Rates that are learned from refusals or configured."""

from __future__ import annotations

import math
from random import Random

import pytest
import rate_limit_model as model

from dify_kb.errors import ConfigError
from dify_kb.ingest.pacing.rate_limit import Rate, RateLimiter


@pytest.mark.parametrize("limit", [60, 100, 600])
def test_rate_limit_is_learned_with_few_refusals(limit: int) -> None:
    tally = model.simulate_rate_limit(model.RateLimitCase(limit=limit), None, 20, seed=1)

    assert tally.accepted >= 0.9 * 20 * limit
    assert 0 < tally.refused_part <= 0.01


@pytest.mark.parametrize("limit", [10, 60, 600])
def test_configured_rate_causes_no_refusals(limit: int) -> None:
    tally = model.simulate_rate_limit(model.RateLimitCase(limit=limit), f"{limit}/min", 20, seed=1)

    assert tally.accepted >= 0.95 * 20 * limit
    assert tally.refused == 0


def test_configured_rate_per_second_is_not_exceeded() -> None:
    tally = model.simulate_rate_limit(model.RateLimitCase(limit=5, window=1.0), "5/s", 120, seed=1)

    assert tally.accepted >= 0.95 * 5 * 120
    assert tally.refused == 0


def test_rate_adapts_to_other_clients() -> None:
    tally = model.simulate_rate_limit(model.RateLimitCase(limit=100, others=40), None, 40, seed=1)

    assert tally.accepted >= 0.7 * 100 * 40
    assert tally.refused_part <= 0.02


def test_raised_rate_limit_is_detected() -> None:
    tally = model.simulate_rate_limit(model.RateLimitCase(limit=60, later=300), None, 40, seed=1)

    assert tally.accepted >= 1.25 * 60 * 40


def test_rate_is_unlimited_before_the_first_refusal() -> None:
    limiter = RateLimiter(None, Random(1))
    for number in range(1000):
        assert limiter.next_start(number / 1000) <= number / 1000
        limiter.record_start(number / 1000)
        limiter.record_accepted(number / 1000)

    assert limiter.limit is None


def test_refusal_reveals_the_rate_limit() -> None:
    """The server counted calls in flight before the refused call, if it accepts them later."""
    limiter = RateLimiter(None, Random(1))
    for _ in range(5):
        limiter.record_start(0.0)
    for _ in range(3):
        limiter.record_accepted(1.0)
    limiter.record_refused(1.1)
    limiter.record_accepted(1.2)

    assert limiter.limit == 4
    assert limiter.next_start(1.2) == 61.0


def test_unsent_call_does_not_count_against_the_rate() -> None:
    limiter = RateLimiter(Rate(1, 60.0), Random(1))
    limiter.record_start(0.0)
    assert limiter.next_start(0.0) == math.inf

    limiter.cancel_start()

    assert limiter.next_start(62.0) <= 62.0


def test_other_calls_count_against_the_rate() -> None:
    limiter = RateLimiter(Rate(2, 60.0), Random(1))
    limiter.record_accepted(0.0, started=False)
    limiter.record_accepted(1.0, started=False)

    assert limiter.next_start(2.0) == 60.0


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("100/min", Rate(100, 60.0)),
        ("5/s", Rate(5, 1.0)),
        (" 1000/H ", Rate(1000, 3600.0)),
        ("7/minute", Rate(7, 60.0)),
        (5, Rate(5, 1.0)),
        (0.5, Rate(1, 2.0)),
    ],
)
def test_rates_are_parsed(text: str | float, rate: Rate) -> None:
    assert Rate.parse(text) == rate


@pytest.mark.parametrize("text", ["", "100", "0/min", "-1/s", "5/day", "1.5/s", "5 per s", 0, -1.0])
def test_invalid_rate_raises(text: str | float) -> None:
    with pytest.raises(ConfigError, match="100/min"):
        Rate.parse(text)
