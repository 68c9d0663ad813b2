from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import pytest
from attrs import define, field
from virtual_time import run

from dify_kb import Loading
from dify_kb.errors import (
    BadRequestError,
    ConnectError,
    KnowledgeError,
    RateLimitedError,
    RequestTimeoutError,
    ServerError,
    UnauthorizedError,
)
from dify_kb.ingest.engine.gate import GOOD, Gate, passing

TIMES = Loading()
PROBE = "datasets.get"
DOWN = ConnectError("refused", endpoint=PROBE)


@define
class Scene:
    """A gate before a server that answers as `server` says at a time."""

    server: Callable[[float], KnowledgeError | None]
    probes: list[float] = field(factory=list)
    told: list[str] = field(factory=list)
    gate: Gate = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.gate = Gate(
            self.probe,
            TIMES,
            lambda: self.told.append("closed"),
            lambda: self.told.append("reopened"),
            lambda error: self.told.append(f"given up: {error.summary}"),
        )

    async def probe(self) -> None:
        now = anyio.current_time()
        self.probes.append(now)
        if error := self.server(now):
            raise error

    def play(self, act: Callable[[], Awaitable[None]]) -> None:
        async def scene() -> None:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.gate.run)
                await act()
                tasks.cancel_scope.cancel()

        run(scene)


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (DOWN, True),
        (RequestTimeoutError("late", endpoint=PROBE), True),
        (ServerError("503", endpoint=PROBE, status=503), True),
        (RateLimitedError("429", endpoint=PROBE, status=429), True),
        (UnauthorizedError("401", endpoint=PROBE, status=401), False),
        (BadRequestError("400", endpoint=PROBE, status=400), False),
    ],
)
def test_what_may_pass_is_told_from_what_does_not(error: KnowledgeError, *, passes: bool) -> None:
    assert passing(error) is passes


def test_nobody_waits_and_nothing_is_asked_while_it_is_open() -> None:
    scene = Scene(lambda _: DOWN)

    async def act() -> None:
        await scene.gate.passed()
        await anyio.sleep(1000)

    scene.play(act)

    assert scene.probes == []


def test_it_opens_after_two_good_probes_in_a_row() -> None:
    answers = iter([None, DOWN, None, None])
    scene = Scene(lambda _: next(answers))
    passed: list[float] = []

    async def act() -> None:
        scene.gate.close(DOWN)
        await scene.gate.passed()
        passed.append(anyio.current_time())

    scene.play(act)

    assert scene.probes == [1, 2, 4, 5]
    assert passed == [5]
    assert scene.told == ["closed", "reopened"]
    assert GOOD == 2


def test_probes_come_less_often_while_it_stays_away() -> None:
    scene = Scene(lambda now: DOWN if now < 200 else None)

    async def act() -> None:
        scene.gate.close(DOWN)
        await scene.gate.passed()

    scene.play(act)

    gaps = [after - before for before, after in zip([0, *scene.probes], scene.probes, strict=False)]
    assert gaps[:5] == [1, 2, 4, 8, 16]
    assert max(gaps) == TIMES.probe_longest
    assert scene.told == ["closed", "reopened"]


def test_a_server_that_stays_away_is_given_up_once() -> None:
    scene = Scene(lambda _: DOWN)

    async def act() -> None:
        scene.gate.close(DOWN)
        await scene.gate.passed()
        await anyio.sleep(1000)

    scene.play(act)

    assert scene.told == ["closed", "given up: refused", "reopened"]
    assert TIMES.outage < scene.probes[-1] < TIMES.outage + TIMES.probe_longest + 1


def test_a_refusal_that_does_not_pass_gives_up_at_once() -> None:
    """A key that was revoked meanwhile does not come back."""
    scene = Scene(lambda _: UnauthorizedError("no such key", endpoint=PROBE, status=401))

    async def act() -> None:
        scene.gate.close(DOWN)
        await scene.gate.passed()

    scene.play(act)

    assert scene.told == ["closed", "given up: no such key", "reopened"]
    assert len(scene.probes) == 1


def test_closing_twice_is_closing_once() -> None:
    scene = Scene(lambda _: None)

    async def act() -> None:
        scene.gate.close(DOWN)
        scene.gate.close(ServerError("503", endpoint=PROBE, status=503))
        assert scene.gate.error is DOWN
        await scene.gate.passed()
        await anyio.sleep(TIMES.probe_longest)

    scene.play(act)

    assert scene.told == ["closed", "reopened"]
    assert len(scene.probes) == GOOD


def test_it_closes_again_and_holds_those_who_come_then() -> None:
    scene = Scene(lambda _: None)
    passed: list[float] = []

    async def act() -> None:
        for _ in range(3):
            scene.gate.close(DOWN)
            await scene.gate.passed()
            passed.append(anyio.current_time())

    scene.play(act)

    assert passed == [2, 4, 6]
    assert scene.told == ["closed", "reopened"] * 3


def test_who_waited_while_it_closes_again_at_once_waits_on() -> None:
    """Those woken together would else all run into a server that is known to fail."""
    scene = Scene(lambda _: None)
    passed: list[float] = []

    async def first() -> None:
        await scene.gate.passed()
        scene.gate.close(DOWN)

    async def second() -> None:
        await scene.gate.passed()
        passed.append(anyio.current_time())

    async def act() -> None:
        scene.gate.close(DOWN)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(first)
            tasks.start_soon(second)

    scene.play(act)

    assert passed == [4]
