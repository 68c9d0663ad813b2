"""The fixtures of the pytest plugin, used in nested pytest runs."""

from __future__ import annotations

import pytest
from run_user_tests import EXAMPLE, run_passing_test, run_test

from dify_kb import testing

pytest_plugins = ["pytester"]


def test_readme_example_passes(pytester: pytest.Pytester) -> None:
    assert "1 passed" in run_passing_test(pytester, EXAMPLE.read_text())


def test_readme_example_is_short() -> None:
    """The README shows it."""
    assert len(EXAMPLE.read_text().splitlines()) <= 20


def test_readme_example_detects_a_lost_document(pytester: pytest.Pytester) -> None:
    """A test that cannot fail proves nothing."""
    status, output = run_test(
        pytester, EXAMPLE.read_text().replace("(dataset, items)", "(dataset, items[:1])")
    )

    assert status == 1
    assert "lost=['Return.txt']" in output


def test_documents_are_indexed_immediately_by_default(pytester: pytest.Pytester) -> None:
    run_passing_test(
        pytester,
        """
        def test_load(tmp_path, dify_emulator, dify_client):
            (tmp_path / "a.md").write_text("Wombats dig at night.")
            dataset = dify_client.datasets.create("A", indexing_technique="economy")
            report = dify_client.load(dataset, tmp_path)
            assert (report.found, report.added) == (1, 1)
            assert dify_client.datasets.retrieve(dataset, "wombats").records
            assert [event.status for event in dify_emulator.runs] == [None, "completed"]
        """,
    )


def test_held_documents_are_indexed_by_dify_index_now(pytester: pytest.Pytester) -> None:
    """This also works repeatedly, and if a document is created again before its first run."""
    run_passing_test(
        pytester,
        """
        import pytest

        def load(client, dataset, folder, text):
            for name in ("a.txt", "b.txt"):
                (folder / name).write_text(text)
            client.load(dataset, folder, wait="accepted")

        @pytest.mark.dify_emulator(hold_indexing=True)
        def test_hold(tmp_path, dify_emulator, dify_client, dify_clock, dify_index_now):
            dataset = dify_client.datasets.create("A", indexing_technique="economy")
            load(dify_client, dataset, tmp_path, "one")
            dify_client.documents.create_by_file(dataset, b"twice", name="a.txt")
            before = dify_clock.now()
            assert {d.status for d in dify_emulator.documents(dataset.id)} != {"completed"}
            assert dify_clock.now() == before
            assert dify_index_now() == []
            load(dify_client, dataset, tmp_path, "two")
            assert {d.status for d in dify_emulator.documents(dataset.id)} != {"completed"}
            assert dify_index_now() == []
            assert not dify_client.datasets.retrieve(dataset, "one").records
            assert dify_client.datasets.retrieve(dataset, "two").records
        """,
    )


def test_waiting_for_held_documents_fails_with_a_hint(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test's only thread cannot advance the clock while it waits in `load`."""
    monkeypatch.setattr(testing, "_HELD_TIMEOUT", 0.3)
    run_passing_test(
        pytester,
        """
        import pytest
        from dify_kb.emulator import Settings

        @pytest.mark.parametrize("wait", ["indexed", "verified"])
        @pytest.mark.dify_emulator(settings=Settings(indexing=5))
        def test_wait(tmp_path, dify_client, dify_index_now, wait):
            (tmp_path / "a.txt").write_text("text")
            dataset = dify_client.datasets.create("A", indexing_technique="economy")
            report = dify_client.load(dataset, tmp_path, wait=wait)
            (failure,) = report.failures()
            assert "load with wait='accepted'" in failure.reason
            dify_client.load(dataset, tmp_path, wait="accepted", retry_failed=True)
            assert dify_index_now() == []
        """,
    )


def test_index_now_ends_all_runs_of_repeated_documents(
    pytester: pytest.Pytester,
) -> None:
    """Between two of its runs a document is `completed`, but not finally."""
    run_passing_test(
        pytester,
        """
        import pytest
        from dify_kb.emulator import Settings

        @pytest.mark.parametrize("turn", range(20))
        @pytest.mark.dify_emulator(settings=Settings(parsing=0.1, splitting=0.7, indexing=3.3))
        def test_runs(dify_emulator, dify_client, dify_index_now, turn):
            dataset = dify_client.datasets.create("A", indexing_technique="economy")
            for number in range(6):
                dify_client.documents.create_by_file(
                    dataset, b"text", name=f"{number % 4}.txt")
            assert dify_index_now() == []
            assert [event.kind for event in dify_emulator.runs].count("ended") == 6
        """,
    )


def test_index_now_returns_unfinished_documents(pytester: pytest.Pytester) -> None:
    """A fault plan that keeps a document from ending must not keep the test from ending."""
    run_passing_test(
        pytester,
        """
        import pytest

        @pytest.mark.dify_emulator(hold_indexing=True)
        def test_faults(dify_emulator, dify_client, dify_index_now):
            dify_emulator.faults.indexing(["hang"], names="a.*")
            dify_emulator.faults.indexing(["error too busy"], names="b.*")
            dataset = dify_client.datasets.create("A", indexing_technique="economy")
            for name in ("a.txt", "b.txt", "c.txt"):
                dify_client.documents.create_by_file(dataset, b"text", name=name)
            statuses = {state.name: state.status for state in dify_index_now()}
            assert statuses == {"a.txt": "indexing", "b.txt": "error"}
            assert dify_emulator.faults.met() == {"indexing": {"hang": 1, "error too busy": 1}}
        """,
    )


def test_nearest_marker_wins(pytester: pytest.Pytester) -> None:
    run_passing_test(
        pytester,
        """
        import pytest
        from dify_kb.emulator import Settings

        pytestmark = pytest.mark.dify_emulator(
            version="1.12.1", settings=Settings(indexing=60, quota=1))

        def test_module(dify_client):
            dify_client.ping()
            assert dify_client.server_version == "1.12.1"

        @pytest.mark.dify_emulator(version="1.4.3")
        def test_near(dify_client, dify_clock, dify_index_now):
            dataset = dify_client.datasets.create("A", indexing_technique="economy")
            assert dify_client.server_version == "1.4.3"
            dify_clock.advance(61)
            dify_client.documents.create_by_file(dataset, b"text", name="a.txt")
            assert dify_index_now() == []
        """,
    )


@pytest.mark.parametrize(
    ("marker", "message"),
    [
        (
            "hold_indexing=True, verison='1.16'",
            "Invalid arguments of marker dify_emulator: verison",
        ),
        ("'1.16'", "Invalid arguments of marker dify_emulator: '1.16'"),
        (
            "settings={'workers': 2}",
            "Invalid settings in marker dify_emulator: {'workers': 2}; expected a Settings object",
        ),
        ("version='0.1'", "Unsupported server version '0.1'"),
    ],
)
def test_invalid_marker_fails_with_a_message(
    pytester: pytest.Pytester, marker: str, message: str
) -> None:
    status, output = run_test(
        pytester,
        f"""
        import pytest

        @pytest.mark.dify_emulator({marker})
        def test_it(dify_client): ...
        """,
    )

    assert status == 1
    assert message in output


def test_environment_variables_name_the_emulator(
    pytester: pytest.Pytester,
) -> None:
    """A loader under test must not use a real server from the developer's environment."""
    run_passing_test(
        pytester,
        """
        import os
        import pytest
        from dify_kb import Client

        @pytest.fixture(scope="module", autouse=True)
        def real():
            with pytest.MonkeyPatch.context() as environment:
                environment.setenv("DIFY_BASE_URL", "https://real.example/v1")
                environment.setenv("DIFY_API_KEY", "dataset-real")
                yield
                assert os.environ["DIFY_BASE_URL"] == "https://real.example/v1"

        def test_environment(dify_emulator, monkeypatch):
            monkeypatch.setenv("OTHER", "1")
            monkeypatch.undo()
            with Client() as client:
                client.datasets.create("A")
            assert [call.endpoint for call in dify_emulator.history] == ["datasets.create"]

        def test_each_test_has_its_own(dify_client, dify_emulator):
            assert list(dify_client.datasets.iter()) == []
            assert len(dify_emulator.history) == 1
        """,
    )


def test_journals_are_kept_out_of_home_and_tmp_path(pytester: pytest.Pytester) -> None:
    """A test that loads all of `tmp_path` must not load an earlier journal with it."""
    home = pytester.path / "state-of-the-user"
    run_passing_test(
        pytester,
        f"""
        import os
        from pathlib import Path

        def test_journal(tmp_path, dify_client):
            (tmp_path / "a.txt").write_text("text")
            dataset = dify_client.datasets.create("A", indexing_technique="economy")
            for _ in range(2):
                report = dify_client.load(dataset, tmp_path)
                assert report.found == 1
            assert report.unchanged == 1
            assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
            assert list(Path(os.environ["XDG_STATE_HOME"]).rglob("*.db*"))
            assert not Path({str(home)!r}).exists()
        """,
    )


@pytest.mark.parametrize("plugins", [(), ("-p", "no:asyncio"), ("-p", "no:anyio")])
def test_async_client_needs_no_pytest_plugin(
    pytester: pytest.Pytester, plugins: tuple[str, ...]
) -> None:
    run_passing_test(
        pytester,
        """
        import anyio

        def test_async(async_dify_client):
            async def main():
                async with async_dify_client as client:
                    return await client.datasets.create("A")

            assert anyio.run(main).name == "A"
        """,
        *plugins,
    )


def test_async_client_runs_in_the_loop_of_the_test(pytester: pytest.Pytester) -> None:
    run_passing_test(
        pytester,
        """
        import pytest

        @pytest.mark.anyio
        @pytest.mark.parametrize("anyio_backend", ["asyncio"])
        async def test_anyio(async_dify_client):
            async with async_dify_client as client:
                await client.ping()

        @pytest.mark.asyncio
        async def test_asyncio(async_dify_client):
            async with async_dify_client as client:
                await client.ping()
        """,
    )
