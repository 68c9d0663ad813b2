"""Event streams over real sockets, and the ways in which they end."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import anyio
import pytest
from scripted_server import D1, EMPTY_PAGE, HTML_TEMPLATE, KEY, Request, ScriptedServer, open_client

import dify_kb
from dify_kb import AsyncClient, AttemptEvent, Event, Events, Policy, Timeout
from dify_kb.models import DatasourceType

HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nX-Version: 1.16.0\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)


def run_pipeline(client: AsyncClient) -> Events:
    return client.pipeline.run(
        D1,
        start_node_id="1",
        datasource_type=DatasourceType.LOCAL_FILE,
        datasource_info_list=[{"reference": "f1"}],
    )


async def start_event_stream(request: Request) -> None:
    await request.drain()
    await request.stream.send(HEAD)


async def send_chunk(request: Request, data: bytes) -> None:
    """Send one chunk of a stream."""
    await request.stream.send(b"%x\r\n%b\r\n" % (len(data), data))


async def send_event(request: Request, name: str, **fields: object) -> None:
    data = json.dumps({"event": name, **fields})
    await send_chunk(request, f"data: {data}\n\n".encode())


async def end_event_stream(request: Request) -> None:
    await request.stream.send(b"0\r\n\r\n")
    request.keep = True


async def collect_names(events: Events, names: list[str]) -> None:
    async for event in events:
        names.append(event.event)  # noqa: PERF401 -- keeps events received before an error


async def read_names(events: Events) -> list[str]:
    return [event.event async for event in events]


async def test_events_are_given_as_they_come() -> None:
    """The server sends the next event only after the client has received the previous one."""
    seen = anyio.Event()

    async def step(request: Request) -> None:
        await start_event_stream(request)
        await send_event(request, "started", data={"title": "数据"})
        await seen.wait()
        await send_event(request, "finished")
        await end_event_stream(request)

    events: list[Event] = []

    async with open_client(ScriptedServer(step)) as client:
        with anyio.fail_after(10):
            async for event in run_pipeline(client):
                events.append(event)
                seen.set()

    assert [event.event for event in events] == ["started", "finished"]
    assert events[0].data["data"] == {"title": "数据"}


async def test_an_event_may_come_in_pieces_and_two_in_one() -> None:
    """TCP and proxies may split and join the events."""

    async def step(request: Request) -> None:
        await start_event_stream(request)
        for piece in (b": ping\n\nda", b'ta: {"event": "a"}\r\n\r', b"\ndata: ", b'{"event": "b"}'):
            await send_chunk(request, piece)
        await send_chunk(request, b'\n\ndata: {"event": "c"}\n\n')
        await end_event_stream(request)

    async with open_client(ScriptedServer(step)) as client:
        assert await read_names(run_pipeline(client)) == ["a", "b", "c"]


async def test_a_run_is_sent_when_it_is_followed() -> None:
    """Without iteration, the run is not started."""

    async def step(request: Request) -> None:
        await start_event_stream(request)
        await end_event_stream(request)

    server = ScriptedServer(step)

    async with open_client(server) as client:
        events = run_pipeline(client)
        before = len(server.requests)
        assert await read_names(events) == []

    (request,) = server.requests
    assert before == 0
    assert request.first == f"POST /v1/datasets/{D1}/pipeline/run HTTP/1.1"
    assert request.headers["authorization"] == f"Bearer {KEY}"


async def test_a_run_records_the_version_and_notifies_the_listener() -> None:
    seen: list[AttemptEvent] = []

    async def step(request: Request) -> None:
        await start_event_stream(request)
        await send_event(request, "workflow_started")
        await end_event_stream(request)

    async with open_client(ScriptedServer(step), on_event=seen.append) as client:
        assert await read_names(run_pipeline(client)) == ["workflow_started"]
        assert client.server_version == "1.16.0"

    assert [(event.endpoint, event.status, event.error) for event in seen] == [
        ("pipeline.run", 200, None)
    ]


async def test_a_blocking_run_is_one_event() -> None:
    """With `response_mode="blocking"`, the server returns JSON instead of a stream."""

    async def step(request: Request) -> None:
        await request.drain()
        await request.answer(200, b'{"task_id": "t1", "data": {"status": "succeeded"}}')

    async with open_client(ScriptedServer(step)) as client:
        (event,) = [event async for event in run_pipeline(client)]

    assert event.data == {"task_id": "t1", "data": {"status": "succeeded"}}


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, {"code": "invalid_param", "message": "no", "status": 400}, dify_kb.BadRequestError),
        (404, {"code": "not_found", "message": "no", "status": 404}, dify_kb.NotFoundError),
        (503, {"code": "unknown", "message": "later"}, dify_kb.ServerError),
    ],
)
async def test_a_refusal_before_the_stream_is_its_error(
    status: int, body: Mapping[str, Any], kind: type[dify_kb.ApiError]
) -> None:
    """The request is not retried, as a run must not be repeated."""

    async def step(request: Request) -> None:
        await request.drain()
        await request.answer(status, json.dumps(body).encode())

    server = ScriptedServer(step)

    async with open_client(server) as client:
        with pytest.raises(kind) as raised:
            await read_names(run_pipeline(client))

    assert raised.value.endpoint == "pipeline.run"
    assert len(server.requests) == 1


async def test_a_server_without_pipelines_is_reported() -> None:
    async def step(request: Request) -> None:
        await request.drain()
        await request.answer(404, HTML_TEMPLATE % b"404 Not Found", {"X-Version": "1.12.1"})

    async with open_client(ScriptedServer(step)) as client:
        with pytest.raises(dify_kb.NotFoundError, match=r"it was added in 1\.14\.2"):
            await read_names(run_pipeline(client))


async def test_a_page_in_place_of_a_stream_is_no_success() -> None:
    async def step(request: Request) -> None:
        await request.drain()
        await request.answer(200, HTML_TEMPLATE % b"Dify")

    async with open_client(ScriptedServer(step)) as client:
        with pytest.raises(dify_kb.ProtocolError, match=r"an HTML page \(Dify\)"):
            await read_names(run_pipeline(client))


async def test_a_broken_stream_yields_its_events_then_raises() -> None:
    """Without an error, the run would seem to have finished."""

    async def step(request: Request) -> None:
        await start_event_stream(request)
        await send_event(request, "started")

    server = ScriptedServer(step)
    names: list[str] = []

    async with open_client(server) as client:
        with pytest.raises(dify_kb.TransportError, match="lost the connection") as raised:
            await collect_names(run_pipeline(client), names)

    assert names == ["started"]
    assert raised.value.delivered
    assert len(server.requests) == 1


async def test_a_stream_that_falls_silent_is_given_up() -> None:
    """The timeout applies to the time between events, not to the whole run."""

    async def step(request: Request) -> None:
        await start_event_stream(request)
        for _ in range(3):
            await send_event(request, "working")
            await anyio.sleep(0.05)
        await request.stream.receive()

    names: list[str] = []
    policy = Policy(timeout=Timeout(answer=0.1))

    async with open_client(ScriptedServer(step), policy=policy) as client:
        with pytest.raises(dify_kb.RequestTimeoutError, match=r"no event received for 0\.1 s"):
            await collect_names(run_pipeline(client), names)

    assert names == ["working"] * 3


async def test_stopping_iteration_early_closes_the_connection() -> None:
    """Otherwise the server would continue to send events for minutes."""
    gone = anyio.Event()

    async def step(request: Request) -> None:
        await start_event_stream(request)
        await send_event(request, "started")
        try:
            await request.stream.receive()
        except anyio.EndOfStream:
            gone.set()

    async with open_client(ScriptedServer(step)) as client:
        async for _ in run_pipeline(client):
            break
        with anyio.fail_after(10):
            await gone.wait()

    assert gone.is_set()


async def test_cancelling_iteration_closes_the_connection() -> None:
    gone = anyio.Event()

    async def step(request: Request) -> None:
        await start_event_stream(request)
        await send_event(request, "started")
        try:
            await request.stream.receive()
        except anyio.EndOfStream:
            gone.set()

    async with open_client(ScriptedServer(step)) as client:
        with anyio.move_on_after(0.05) as scope:
            await read_names(run_pipeline(client))
        with anyio.fail_after(10):
            await gone.wait()

    assert scope.cancelled_caught


async def test_other_calls_go_on_while_events_are_followed() -> None:
    """Users poll documents on events, also with a limit of one request in flight."""

    async def step(request: Request) -> None:
        await start_event_stream(request)
        for _ in range(3):
            await send_event(request, "working")
        await end_event_stream(request)

    async def answer_empty_page(request: Request) -> None:
        await request.answer(200, EMPTY_PAGE)

    server = ScriptedServer(step, answer_empty_page)
    names: list[str] = []

    async with open_client(server, concurrency=1) as client:
        with anyio.fail_after(10):
            async for event in run_pipeline(client):
                names.append(event.event)
                await client.datasets.list()

    assert names == ["working"] * 3
    assert len(server.requests) == 4
