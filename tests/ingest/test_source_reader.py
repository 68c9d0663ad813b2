"""How many files of a scan form a batch."""

from __future__ import annotations

import pytest

from dify_kb.ingest.sources.source_reader import MAX_BATCH, MIN_BATCH, next_batch_size


@pytest.mark.parametrize(
    ("number", "seconds", "expected"),
    [
        pytest.param(MIN_BATCH, 10.0, MIN_BATCH, id="a server that takes 20 a second"),
        pytest.param(MIN_BATCH, 0.0, 2 * MIN_BATCH, id="the first, which the queue swallows"),
        pytest.param(400, 0.1, 800, id="twice as many at most"),
        pytest.param(1600, 1.0, 1600, id="those of a second"),
        pytest.param(MAX_BATCH, 0.1, MAX_BATCH, id="no more than this"),
        pytest.param(MAX_BATCH, 100.0, MIN_BATCH, id="a server that became slow"),
    ],
)
def test_batch_size_is_the_number_of_files_per_second(
    number: int, seconds: float, expected: int
) -> None:
    assert next_batch_size(number, seconds) == expected
