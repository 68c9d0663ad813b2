"""How many files of a scan cross between threads at a time."""

from __future__ import annotations

import pytest

from dify_kb.ingest.sources.reader import AT_ONCE, MOST, next_size


@pytest.mark.parametrize(
    ("number", "seconds", "expected"),
    [
        pytest.param(AT_ONCE, 10.0, AT_ONCE, id="a server that takes 20 a second"),
        pytest.param(AT_ONCE, 0.0, 2 * AT_ONCE, id="the first, which the line swallows"),
        pytest.param(400, 0.1, 800, id="twice as many at most"),
        pytest.param(1600, 1.0, 1600, id="those of a second"),
        pytest.param(MOST, 0.1, MOST, id="no more than this"),
        pytest.param(MOST, 100.0, AT_ONCE, id="a server that became slow"),
    ],
)
def test_a_batch_holds_what_is_taken_in_a_second(
    number: int, seconds: float, expected: int
) -> None:
    assert next_size(number, seconds) == expected
