"""Concurrent changes by other clients, and stale lists: F31, F32, F33, F34."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import anyio
import pytest
from aiohttp import web
from attrs import evolve
from fault_case import FaultCase, check_load, check_next_load, count_outcomes
from invariants import count_violations
from load_environment import CREATE, KEY, POLICY, LoadEnvironment, create_environment, wait_until

from dify_kb import AsyncClient, Dataset, Outcome, Policy
from dify_kb.emulator import DocumentState, Emulator, ManualClock, Settings

THEIRS = b"somebody else's text"

LAG = 0.1
"""Seconds by which lists are stale: a third of the quarantine, like 10 s of 30 s."""


@asynccontextmanager
async def run_stale_list_proxy(url: str) -> AsyncIterator[str]:
    """Run a proxy that omits new documents from lists, like a lagging database replica."""
    created: dict[str, float] = {}

    async def forward(request: web.Request) -> web.Response:
        body = await request.read()
        creates = request.path.endswith("create-by-file")
        name = ""
        if creates:
            name = body.split(b'filename="', 1)[1].split(b'"', 1)[0].decode()
            created.setdefault(name, time.monotonic() + 3600)
        headers = {k: v for k, v in request.headers.items() if k not in {"Host", "Accept-Encoding"}}
        target = url.removesuffix("/v1") + request.path_qs
        try:
            async with session.request(request.method, target, data=body, headers=headers) as got:
                content = await got.read()
                kept = {"Content-Type": got.headers.get("Content-Type", "")}
        except aiohttp.ClientError:
            # The connection broke; break the client's connection too.
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        finally:
            if creates:
                created[name] = min(created[name], time.monotonic() + LAG)
        if request.method == "GET" and request.path.endswith("/documents") and got.status == 200:
            page = json.loads(content)
            now = time.monotonic()
            page["data"] = [one for one in page["data"] if created.get(one["name"], 0.0) <= now]
            content = json.dumps(page).encode()
        return web.Response(status=got.status, body=content, headers=kept)

    app = web.Application(client_max_size=2**30)
    app.router.add_route("*", "/{path:.*}", forward)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    async with aiohttp.ClientSession() as session:
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        finally:
            await runner.cleanup()


PATIENT = evolve(POLICY, load_timing=Policy().scaled(0.05).load_timing)
"""Polls less often: the lag of the lists does not grow on a busy machine."""


async def test_f31_stale_lists_lose_no_document(tmp_path: Path) -> None:
    """Sending a lost create again because a list omits it would duplicate its chunks."""
    with Emulator(api_key=KEY) as emulator:
        async with (
            create_environment(emulator, tmp_path, 40) as environment,
            run_stale_list_proxy(emulator.url) as url,
        ):
            emulator.faults.plan(
                CREATE, ["ok x3", "commit-then-reset x5", "truncate x5", "commit-then-500 x5"]
            )
            async with AsyncClient(url, KEY, policy=PATIENT) as client:
                environment.client = client
                loaded = await environment.load()
                assert not emulator.faults.left()
                check_load(FaultCase(name="", files=40, max_lookups=200), environment, loaded)
                await check_next_load(environment)


async def interfere(
    environment: LoadEnvironment,
    when: Callable[[], bool],
    work: Callable[[AsyncClient], Awaitable[None]],
) -> None:
    """Run `work` with a separate client when a condition is met."""
    async with AsyncClient(environment.emulator.url, KEY, policy=POLICY) as other:
        await wait_until(when)
        await work(other)


def has_document(environment: LoadEnvironment, name: str) -> bool:
    return any(one.name == name for one in environment.emulator.documents(environment.dataset.id))


def get_document_state(environment: LoadEnvironment, name: str) -> DocumentState:
    (one,) = [
        one for one in environment.emulator.documents(environment.dataset.id) if one.name == name
    ]
    return one


async def run_meanwhile(
    environment: LoadEnvironment, work: Callable[[AsyncClient], Awaitable[None]]
) -> None:
    """Load; run `work` concurrently when 00003.md exists."""
    async with anyio.create_task_group() as group:
        group.start_soon(
            interfere, environment, lambda: has_document(environment, "00003.md"), work
        )
        await environment.load()


SLOW = Settings(parsing=0.02, workers=2)
"""Documents stay unfinished for a while, so two indexing runs of one would overlap."""


async def test_f34_document_deleted_by_others_is_not_reported_as_loaded(tmp_path: Path) -> None:
    with Emulator(api_key=KEY, settings=SLOW) as emulator:
        async with create_environment(emulator, tmp_path, 30) as environment:

            async def delete(other: AsyncClient) -> None:
                await wait_until(
                    lambda: get_document_state(environment, "00003.md").status == "completed"
                )
                await other.documents.delete(
                    environment.dataset, get_document_state(environment, "00003.md").id
                )

            await run_meanwhile(environment, delete)
            loaded = environment.loads[-1]
            gone = loaded.results["00003.md"]
            # The load saw it either indexed before the deletion, or deleted.
            assert gone.outcome in {Outcome.ADDED, Outcome.FAILED}
            assert loaded.report.added >= 29

            again = await environment.load(retry_failed=True)
            assert count_outcomes(again) == {"unchanged": 29, "added": 1}
            assert not count_violations(environment, again).violations


async def test_f34_verification_reports_documents_deleted_during_the_load(tmp_path: Path) -> None:
    with Emulator(api_key=KEY, settings=SLOW) as emulator:
        async with create_environment(emulator, tmp_path, 30) as environment:

            async def delete(other: AsyncClient) -> None:
                await wait_until(
                    lambda: get_document_state(environment, "00003.md").status == "completed"
                )
                await other.documents.delete(
                    environment.dataset, get_document_state(environment, "00003.md").id
                )

            async with anyio.create_task_group() as group:
                group.start_soon(
                    interfere, environment, lambda: has_document(environment, "00003.md"), delete
                )
                await environment.load(wait="verified")

            loaded = environment.loads[-1]
            assert count_outcomes(loaded) == {"added": 29, "failed": 1}
            assert loaded.results["00003.md"].outcome is Outcome.FAILED
            await check_next_load(environment)


@pytest.mark.parametrize("text", ["theirs, of another length", None], ids=["other", "same length"])
async def test_f34_document_replaced_by_others_is_not_reported_as_loaded(
    tmp_path: Path, text: str | None
) -> None:
    with Emulator(api_key=KEY, settings=SLOW) as emulator:
        async with create_environment(emulator, tmp_path, 30) as environment:
            theirs = text or (environment.folder / "00003.md").read_text().replace(
                "wombat", "tapirs"
            )

            async def upload(other: AsyncClient) -> None:
                await other.documents.create_by_file(
                    environment.dataset, theirs.encode(), name="00003.md"
                )

            await run_meanwhile(environment, upload)
            loaded = environment.loads[-1]

            assert loaded.report.found == 30
            again = await environment.load(retry_failed=True)
            assert bool(again.report), list(again.report.failures())
            documents = {one.name: one for one in emulator.documents(environment.dataset.id)}
            assert len(documents) == 30
            assert all(one.status == "completed" for one in documents.values())
            ours = (environment.folder / "00003.md").stat().st_size
            assert documents["00003.md"].size == ours


async def test_f33_document_with_a_replaced_batch_is_followed_to_its_end(
    tmp_path: Path,
) -> None:
    """Another upload of the same file gives the document a new batch.

    With more than one worker, that upload doubles the chunks, whatever the load does (measured).
    """
    clock, settings = ManualClock(), Settings(parsing=1.0, workers=1)
    with Emulator(api_key=KEY, settings=settings, clock=clock) as emulator:
        async with create_environment(emulator, tmp_path, 1) as environment:

            async def upload(other: AsyncClient) -> None:
                content = (environment.folder / "00000.md").read_bytes()
                await other.documents.create_by_file(environment.dataset, content, name="00000.md")
                await wait_until(lambda: 404 in {call.status for call in emulator.history})
                clock.advance(60.0)

            async with anyio.create_task_group() as group:
                group.start_soon(
                    interfere, environment, lambda: has_document(environment, "00000.md"), upload
                )
                await environment.load(stall_after=5.0)

            result = environment.loads[-1].results["00000.md"]
            assert (result.outcome, len(result.warnings)) == (Outcome.ADDED, 1)
            assert get_document_state(environment, "00000.md").chunks == 1
            assert count_outcomes(await environment.load()) == {"unchanged": 1}


async def test_f32_foreign_documents_are_handled_by_on_existing(tmp_path: Path) -> None:
    """An enabled document is replaced; a disabled one is neither replaced nor duplicated."""
    with Emulator(api_key=KEY) as emulator:
        async with create_environment(emulator, tmp_path, 6) as environment:
            await _upload_foreign_documents(
                environment.client, environment.dataset, ["00001.md", "00002.md"]
            )
            rows = {
                row.name: row.id
                async for row in environment.client.documents.iter(environment.dataset)
            }
            await environment.client.documents.disable(environment.dataset, [rows["00002.md"]])
            emulator.faults.plan(CREATE, ["commit-then-reset x3"])

            loaded = await environment.load()

            counted = count_violations(environment, loaded)
            assert not [wrong for wrong in counted.violations if "falsely" not in wrong]
            assert count_outcomes(loaded) == {"added": 4, "updated": 1, "skipped": 1}
            assert "disabled" in str(loaded.results["00002.md"].reason)


async def _upload_foreign_documents(
    client: AsyncClient, dataset: Dataset, names: list[str]
) -> None:
    created = [
        await client.documents.create_by_file(evolve(dataset), THEIRS, name=name) for name in names
    ]
    await client.documents.wait(dataset, created)


@pytest.mark.parametrize(
    ("on_existing", "ends"),
    [("skip", {"added": 2, "skipped": 1}), ("fail", {"added": 2, "failed": 1})],
)
async def test_f32_lost_create_does_not_overwrite_a_foreign_upload(
    tmp_path: Path, on_existing: str, ends: dict[str, int]
) -> None:
    slow = evolve(POLICY, load_timing=evolve(POLICY.load_timing, late_create_after_disconnect=0.8))
    with Emulator(api_key=KEY) as emulator:
        async with create_environment(emulator, tmp_path, 3, policy=slow) as environment:
            emulator.faults.plan(CREATE, ["ok", "reset"])

            def lost() -> bool:
                return "reset" in emulator.faults.met().get(CREATE, {})

            async def upload(other: AsyncClient) -> None:
                await _upload_foreign_documents(other, environment.dataset, ["00001.md"])

            async with anyio.create_task_group() as group:
                group.start_soon(interfere, environment, lost, upload)
                await environment.load(concurrency=1, on_existing=on_existing)

            loaded = environment.loads[-1]
            assert count_outcomes(loaded) == ends
            assert "exists" in str(loaded.results["00001.md"].reason)
            assert get_document_state(environment, "00001.md").size == len(THEIRS)
            again = await environment.load(on_existing=on_existing)
            assert again.report.unchanged == 2
            assert not again.created
