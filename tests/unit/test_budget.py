"""How much failing is put up with."""

from __future__ import annotations

from dify_kb.ingest.pacing.budget import Budget, Failure


def test_failures_in_a_row_break_it() -> None:
    budget = Budget()
    for _ in range(19):
        budget.failed(0.0, "failed")
    assert not budget.broken

    budget.failed(0.0, "failed")

    assert budget.broken


def test_kinds_of_failure_weigh_differently() -> None:
    def until_broken(kind: Failure) -> int:
        budget, count = Budget(), 0
        while not budget.broken:
            budget.failed(0.0, kind)
            count += 1
        return count

    assert [until_broken(kind) for kind in ("timeout", "failed", "throttled")] == [10, 20, 40]


def test_one_failure_in_ten_is_put_up_with() -> None:
    budget = Budget()
    for number in range(1000):
        if number % 10:
            budget.succeeded(0.0)
        else:
            budget.failed(0.0, "failed")

    assert not budget.broken


def test_a_failure_a_second_is_put_up_with() -> None:
    budget = Budget()
    for second in range(1000):
        budget.failed(float(second), "failed")

    assert not budget.broken


def test_time_alone_does_not_mend_it() -> None:
    budget = Budget()
    for _ in range(20):
        budget.failed(0.0, "failed")
    budget.succeeded(600.0)
    assert budget.broken

    budget.mended(600.0)

    assert not budget.broken


def test_after_an_outage_it_breaks_sooner() -> None:
    budget = Budget()
    budget.mended(0.0)
    for _ in range(10):
        budget.failed(0.0, "failed")

    assert budget.broken
