"""`load --create`: one dataset despite lost responses and concurrent creates."""

from __future__ import annotations

from pathlib import Path

import anyio.to_thread
import pytest
from cli_runner import Cli, parse_error

from dify_kb import AsyncClient, Client, Dataset
from dify_kb.cli import ensure_dataset
from dify_kb.cli.option_types import Technique
from dify_kb.emulator import Emulator
from dify_kb.emulator.store.datasets import DatasetTable
from dify_kb.models import UNSET, Unset

CREATE = "datasets.create"


def datasets(emulator: Emulator) -> list[Dataset]:
    with Client(emulator.url, emulator.api_key) as client:
        return list(client.datasets.iter())


@pytest.fixture
def _concurrent_twin(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Create a dataset of the same name between the lookup and the create request."""

    def create() -> None:
        with Client(emulator.url, emulator.api_key) as client:
            client.datasets.create("d", indexing_technique="economy")

    async def choose(_: AsyncClient) -> tuple[Technique, Unset]:
        await anyio.to_thread.run_sync(create)
        return "economy", UNSET

    monkeypatch.setattr(ensure_dataset, "_choose_technique", choose)


def test_create_with_lost_response_finds_the_dataset(
    cli: Cli, docs: Path, emulator: Emulator
) -> None:
    """A second create request would create a second dataset on some servers."""
    emulator.faults.plan(CREATE, ["commit-then-reset"])

    code, out, err = cli("load", str(docs), "--dataset", "d", "--create")

    assert code == 0
    assert "2 added" in out
    assert "Created the dataset d" in err
    assert [dataset.document_count for dataset in datasets(emulator)] == [2]
    assert not emulator.faults.left().get(CREATE)


def test_create_lost_before_arrival_is_an_error(cli: Cli, docs: Path, emulator: Emulator) -> None:
    emulator.faults.plan(CREATE, ["late 20"])

    code, _, err = cli("load", str(docs), "--dataset", "d", "--create")

    assert code == 1
    assert parse_error(err)[0].startswith("datasets.create: ")
    assert not emulator.faults.left().get(CREATE)


@pytest.mark.usefixtures("_concurrent_twin")
def test_dataset_of_a_concurrent_create_is_used(cli: Cli, docs: Path, emulator: Emulator) -> None:
    code, _, err = cli("load", str(docs), "--dataset", "d", "--create")

    assert code == 0
    assert "Using the existing dataset d: another process created it." in err
    assert [dataset.document_count for dataset in datasets(emulator)] == [2]


@pytest.mark.usefixtures("_concurrent_twin")
def test_oldest_of_equal_names_is_used_with_a_warning(
    cli: Cli, docs: Path, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dify 1.14.2 allows equal names if both datasets are created at the same time."""
    monkeypatch.setattr(DatasetTable, "ids_by_name", lambda *_: [])

    code, _, err = cli("load", str(docs), "--dataset", "d", "--create")

    assert code == 0
    oldest, other = sorted(datasets(emulator), key=lambda one: (one.created_at, one.id))
    assert (oldest.document_count, other.document_count) == (2, 0)
    assert err.count("warning: ") == 1
    assert f"2 datasets are named d; loading into the oldest, {oldest.id}." in err
    assert f"if they are not needed: {other.id}." in err
    code, out, err = cli("load", str(docs), "--dataset", "d", "--create")
    assert code == 0
    assert "2 unchanged" in out
    assert "2 datasets are named d" in err
