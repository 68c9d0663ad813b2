"""Failing name resolution and failing TLS handshakes: F1."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import anyio
import pytest
from failing_dns_and_tls import FailingResolver, run_tls_proxy
from fault_case import FaultCase, check_load, check_next_load
from invariants import find_secrets
from load_environment import KEY, POLICY, LoadEnvironment, create_environment, wait_until

from dify_kb import AsyncClient
from dify_kb.emulator import Emulator, Settings

FILES = 30

GONE = 0.5
"""Seconds of the failure; a load takes about half a second without one."""

SLOW = Settings(create_io=0.02)


async def check_all_invariants(environment: LoadEnvironment, root: Path, logged: str) -> None:
    loaded = environment.loads[-1]
    check_load(FaultCase(name="", files=FILES), environment, loaded)
    assert loaded.report.requests <= 2.2 * FILES + 60
    await check_next_load(environment)
    assert not find_secrets(environment, root, logged)


@asynccontextmanager
async def fail_meanwhile(
    environment: LoadEnvironment, fail: Callable[[], object], mend: Callable[[], object]
) -> AsyncIterator[None]:
    """Run `fail` in the middle of a load, and `mend` some time later."""

    async def meanwhile() -> None:
        await wait_until(lambda: environment.sends >= 10)
        fail()
        await anyio.sleep(GONE)
        mend()

    async with anyio.create_task_group() as group:
        group.start_soon(meanwhile)
        yield


async def test_f1_temporary_dns_failure_fails_no_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    names = FailingResolver()
    with Emulator(api_key=KEY, settings=SLOW) as emulator:
        url = f"http://dify.test:{urlsplit(emulator.url).port}/v1"
        connector = aiohttp.TCPConnector(resolver=names, use_dns_cache=False, force_close=True)
        async with (
            create_environment(emulator, tmp_path, FILES) as environment,
            aiohttp.ClientSession(connector=connector) as session,
            AsyncClient(url, KEY, session=session, policy=POLICY) as client,
        ):
            environment.client = client

            def fail() -> None:
                names.is_failing, names.lookups = True, 0

            def mend() -> None:
                names.is_failing = False
                assert 1 <= names.lookups <= 80

            async with fail_meanwhile(environment, fail, mend):
                await environment.load()
            await check_all_invariants(environment, tmp_path, caplog.text)


async def test_f1_temporary_tls_failure_fails_no_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A proxy that is being reconfigured may send plain text instead of TLS."""
    caplog.set_level("DEBUG")
    with Emulator(api_key=KEY, settings=SLOW) as emulator:
        port = urlsplit(emulator.url).port
        assert port is not None
        async with (
            create_environment(emulator, tmp_path, FILES) as environment,
            run_tls_proxy(port) as (url, front),
            AsyncClient(url, KEY, ssl=front.client_context, policy=POLICY) as client,
        ):
            environment.client = client
            before = front.handshakes

            def mend() -> None:
                front.is_broken = False
                assert 1 <= front.handshakes - before <= 80

            async with fail_meanwhile(environment, front.fail, mend):
                await environment.load()
            await check_all_invariants(environment, tmp_path, caplog.text)
