"""Copies between server versions: equal, or different exactly as documented."""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING

import pytest
from archive_examples import (
    FULL_DOCUMENT,
    PARENT_CHILD,
    VERSIONS,
    create_handbook,
    create_parents,
    create_questions,
    create_servers,
    open_client,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dify_kb import ProcessRule
    from dify_kb.emulator import Emulator

LONG = os.environ.get("CHAOS") == "long"
EVERY_PAIR = [(source, target) for source in VERSIONS for target in VERSIONS]
SOME_PAIRS = [
    ("1.4.3", "1.16"), ("1.16", "1.4.3"), ("1.8.1", "1.12.1"), ("1.12.1", "1.8.1"),
    ("1.14.2", "1.14.2"),
]  # fmt: skip
"""Each version as source and as target; `poe chaos` runs all 25."""

EDITED_CHILDREN = "edited child chunks (1.8 cannot delete any)"

PAIRS = EVERY_PAIR if LONG else SOME_PAIRS


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, Emulator]]:
    """Start a server per version."""
    started = dict(zip(VERSIONS, create_servers(*VERSIONS), strict=True))
    for server in started.values():
        server.start()
    yield started
    for server in started.values():
        server.stop()


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Ignore the warnings about bugs of old versions."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize(("source", "target"), PAIRS)
async def test_a_handbook_is_equal_after_a_copy(
    source: str, target: str, servers: dict[str, Emulator]
) -> None:
    """Edited, hostile, disabled, archived and empty documents, with names and metadata."""
    async with open_client(servers[source]) as here, open_client(servers[target]) as there:
        dataset = await create_handbook(here, source, f"Handbook for {target}")

        report = await here.copy(dataset, there, name=f"From {source}")

        assert report.imported
        assert report.imported.failures == {}
        found = await here.compare(dataset, report.imported.dataset_id or "", target=there)
        # 1.4.3 has no route for states: one document is disabled, one archived, one both.
        expected = {"state": 3} if target == "1.4.3" and source != "1.4.3" else {}
        assert found.counts == expected, found.differences[:3]
        assert report.imported.losses.get("disabled or archived state", 0) == sum(expected.values())


@pytest.mark.parametrize(("source", "target"), PAIRS)
async def test_questions_and_answers_are_equal_after_a_copy(
    source: str, target: str, servers: dict[str, Emulator]
) -> None:
    async with open_client(servers[source]) as here, open_client(servers[target]) as there:
        dataset = await create_questions(here, f"Questions for {target}")

        report = await here.copy(dataset, there, name=f"Questions from {source}")

        assert report.imported
        found = await here.compare(dataset, report.imported.dataset_id or "", target=there)
        assert found.counts == {}, found.differences[:3]


@pytest.mark.parametrize("rule", [PARENT_CHILD, FULL_DOCUMENT], ids=["paragraph", "full_document"])
@pytest.mark.parametrize(("source", "target"), PAIRS)
async def test_parents_and_edited_children_are_equal_after_a_copy(
    source: str, target: str, rule: ProcessRule, servers: dict[str, Emulator]
) -> None:
    """1.8.1 cannot delete child chunks, so that an edited parent keeps those of its rule."""
    async with open_client(servers[source]) as here, open_client(servers[target]) as there:
        name = f"{rule.rules.parent_mode} {target}"  # type: ignore[union-attr]  # it has rules
        dataset = await create_parents(here, rule, name, source)

        report = await here.copy(dataset, there, name=f"{name} from {source}"[:40])

        assert report.imported
        found = await here.compare(dataset, report.imported.dataset_id or "", target=there)
        expected = {"child_chunks": 1} if target == "1.8.1" and source != "1.8.1" else {}
        assert found.counts == expected, found.differences[:3]
        assert report.imported.losses.get(EDITED_CHILDREN, 0) == sum(expected.values())
