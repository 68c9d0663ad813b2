"""Requests recorded from four server versions, replayed against the emulator."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import attrs
import pytest
from emulator_client import run_emulator
from replay_recordings import RecordedObjects, Replay, has_models, read_recordings

from dify_kb.emulator import ManualClock, Settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KNOWN_DIFFERENCES: dict[str, dict[str, str]] = {
    "1.4.3": {},
    "1.8.1": {
        "153-text-custom-get": "the latest of two rules that were created in the same second",
        "686-docmeta-get-after-partial": "the partial update before it (685) was not recorded",
    },
    "1.12.1": {
        "279-list-docs-status=queuing": "a document was still waiting during the request",
        "443-big-segments-indexing": "the document had some of its chunks during the request",
    },
    "1.14.2": {
        "443-big-segments-indexing": "the document had some of its chunks during the request",
        "1280-array-patch-dataset": "the documents of the dataset were not recorded",
        "1385-patchdoc-segments": "the file before it (1384) was not recorded",
        "1472-tags-of-a-after": "the request that unbound the tags (1471) was not recorded",
        "1613-md-time-string-get": "the value before it (1612) was not recorded",
        "1617-md-number-string-get": "the value before it (1616) was not recorded",
        "1636-md-doc-of-other-dataset": "the document of the other dataset was not recorded",
        "1733-state-queuing-disable": "the status of the document was forced in the database",
        "1946-rt-filter-builtin-on-uploader-is": "the account of the server had another name",
        "1958-rt-doc-hit-count": "the order in which the values were assigned was not recorded",
    },
}
"""Cases with different responses, and the reason."""


MIN_CASES = {"1.4.3": 633, "1.8.1": 619, "1.12.1": 616, "1.14.2": 1210}
"""Minimum number of replayed cases, so that no case is skipped unnoticed."""


@pytest.mark.parametrize("version", KNOWN_DIFFERENCES)
@pytest.mark.timeout(120)
async def test_recorded_requests_get_responses_of_the_recorded_shape(
    version: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Tests against the emulator are valid only if it responds like the recorded servers."""
    rows = read_recordings(version)
    # The deadlock of updates was fixed in the recorded 1.12.1. A single worker can be held.
    settings = Settings(parsing=1.0, update_hangs=False, models=False, workers=1)
    replay, results = Replay(ManualClock(), RecordedObjects.from_rows(rows), version), []
    path = tmp_path / "server.db"
    for models in (False, True):
        settings = attrs.evolve(settings, models=models)
        batch = [row for row in rows if has_models(row) is models]
        async with run_emulator(
            path, version=version, settings=settings, clock=replay.clock
        ) as client:
            replay.client = client
            results += [await replay.replay_case(row) for row in batch]

    sent = [result for result in results if not result.skip_reason]
    differing = {result.case: result.differences for result in sent if result.differences}
    summary = f"{version}: replayed {len(sent)} of {len(rows)}, {len(sent) - len(differing)} equal"
    messages = Counter(result.has_same_message for result in sent)
    summary += f"; {messages[True]} of {messages[True] + messages[False]} error messages identical"
    skipped = Counter(result.skip_reason for result in results if result.skip_reason)
    skipped_lines = [f"  {count} not replayed: {reason}" for reason, count in skipped.items()]
    print("\n".join([summary, *skipped_lines]))  # noqa: T201
    record_property(f"replayed {version}", summary)
    new = {
        case: differences
        for case, differences in differing.items()
        if case not in KNOWN_DIFFERENCES[version]
    }
    assert not new, "\n".join(
        f"{case}: {'; '.join(differences[:4])}" for case, differences in new.items()
    )
    assert len(sent) >= MIN_CASES[version], summary
    assert set(KNOWN_DIFFERENCES[version]) <= set(differing), "cases no longer differ"
