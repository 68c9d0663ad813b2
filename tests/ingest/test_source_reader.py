"""The batches in which a source is read."""

from __future__ import annotations

import pytest

from dify_kb.ingest.sources.source_reader import MAX_BATCH, MIN_BATCH, next_batch_size


@pytest.mark.parametrize(
    ("number", "seconds", "expected"),
    [
        pytest.param(MIN_BATCH, 10.0, MIN_BATCH, id="20 files per second"),
        pytest.param(MIN_BATCH, 0.0, 2 * MIN_BATCH, id="first batch, queued immediately"),
        pytest.param(400, 0.1, 800, id="at most doubled"),
        pytest.param(1600, 1.0, 1600, id="files of one second"),
        pytest.param(MAX_BATCH, 0.1, MAX_BATCH, id="maximum"),
        pytest.param(MAX_BATCH, 100.0, MIN_BATCH, id="slow server"),
    ],
)
def test_batch_size_is_the_number_of_files_per_second(
    number: int, seconds: float, expected: int
) -> None:
    assert next_batch_size(number, seconds) == expected
