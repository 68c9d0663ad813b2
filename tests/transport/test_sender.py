"""Retries and errors of a real client over a mocked aiohttp."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import anyio
import pytest
from aiohttp.client_reqrep import ConnectionKey
from aioresponses import aioresponses
from aioresponses.compat import normalize_url
from yarl import URL

import dify_kb
from dify_kb import AsyncClient, AttemptEvent, Policy, Retry, Timeout
from dify_kb.config import KEEP_ALIVE
from dify_kb.transport import open_session

BASE = "http://dify.test/v1"
KEY = "dataset-Secret123"
D1 = "11111111-1111-4111-8111-111111111111"
D2 = "22222222-2222-4222-8222-222222222222"
LIST = f"{BASE}/datasets?page=1&limit=20"
FIRST = f"{BASE}/datasets?page=1&limit=1"
CREATE = f"{BASE}/datasets"
BY_FILE = f"{BASE}/datasets/{D1}/document/create-by-file"
BY_TEXT = f"{BASE}/datasets/{D1}/document/create-by-text"
ONE = f"{BASE}/datasets/{D1}"
QUICK = Policy().scaled(0.001)
EMPTY_PAGE = {"data": [], "has_more": False, "limit": 20, "total": 0, "page": 1}
RATE = {
    "code": "forbidden",
    "message": "Sorry, you have reached the knowledge base request rate limit of your"
    " subscription.",
    "status": 403,
}
DATASET: dict[str, object] = {
    **dict.fromkeys(
        [
            "description",
            "data_source_type",
            "indexing_technique",
            "updated_by",
            "embedding_model",
            "embedding_model_provider",
            "embedding_available",
            "retrieval_model_dict",
            "doc_form",
            "external_knowledge_info",
            "external_retrieval_model",
            "doc_metadata",
        ]
    ),
    "id": D1,
    "name": "Handbook",
    "provider": "vendor",
    "permission": "only_me",
    "app_count": 0,
    "document_count": 0,
    "word_count": 0,
    "created_by": D2,
    "created_at": 1795248442,
    "updated_at": 1795248442,
    "tags": [],
    "built_in_field_enabled": False,
}
DOCUMENT: dict[str, object] = {
    **dict.fromkeys(
        [
            "data_source_info",
            "dataset_process_rule_id",
            "tokens",
            "error",
            "disabled_at",
            "disabled_by",
            "display_status",
            "word_count",
            "hit_count",
            "doc_form",
            "doc_metadata",
        ]
    ),
    "id": D2,
    "name": "a.txt",
    "position": 1,
    "data_source_type": "upload_file",
    "created_from": "api",
    "created_by": D2,
    "created_at": 1795248442,
    "indexing_status": "waiting",
    "enabled": True,
    "archived": False,
}
CREATED_BODY = {"document": DOCUMENT, "batch": "20261121080722123456"}
HTML_TEMPLATE = "<html><head><title>502 Bad Gateway</title></head></html>"
REFUSED = aiohttp.ClientConnectorError(
    ConnectionKey(
        "dify.test",
        80,
        is_ssl=False,
        ssl=True,
        proxy=None,
        proxy_auth=None,
        proxy_headers_hash=None,
    ),
    ConnectionRefusedError(111, "Connection refused"),
)


class Response(aiohttp.ClientResponse):
    """A response with `stream_writer`, which aiohttp 3.14 requires and aioresponses 0.7.9 lacks."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        writer = cast("Any", SimpleNamespace(output_size=0))
        super().__init__(*args, stream_writer=writer, **kwargs)


class FakeServer(aioresponses):
    """A server that sends prepared responses in order."""

    def add(self, *args: Any, **kwargs: Any) -> None:
        super().add(*args, **{**kwargs, "response_class": Response})

    def count_requests(self, method: str, url: str) -> int:
        return len(self.requests_to(method, url))

    def requests_to(self, method: str, url: str) -> list[Mapping[str, Any]]:
        return [call.kwargs for call in self.requests.get((method, normalize_url(url)), [])]


@pytest.fixture
def server() -> Iterator[FakeServer]:
    faked = FakeServer()
    with faked:
        yield faked


def client(**options: Any) -> AsyncClient:
    return AsyncClient(BASE, KEY, **{"policy": QUICK, **options})


# --- calls that read


async def test_a_read_is_sent_again_after_passing_failures(server: FakeServer) -> None:
    """A 500 or 502 of a server that restarts should not end a program."""
    server.get(LIST, status=500, payload={"code": "unknown", "message": "Internal Server Error"})
    server.get(LIST, status=502, body=HTML_TEMPLATE, content_type="text/html")
    server.get(LIST, payload=EMPTY_PAGE)

    async with client() as kb:
        page = await kb.datasets.list()

    assert page.total == 0
    assert server.count_requests("GET", LIST) == 3


async def test_a_read_is_sent_again_when_the_server_was_not_reached(server: FakeServer) -> None:
    """A container that is still starting refuses connections."""
    server.get(LIST, exception=REFUSED)
    server.get(LIST, payload=EMPTY_PAGE)

    async with client() as kb:
        await kb.datasets.list()

    assert server.count_requests("GET", LIST) == 2


async def test_a_read_is_sent_again_when_its_answer_was_cut(server: FakeServer) -> None:
    """The response is incomplete; repeating a read has no side effect."""
    server.get(LIST, body='{"data": [')
    server.get(LIST, exception=aiohttp.ServerDisconnectedError())
    server.get(LIST, payload=EMPTY_PAGE)

    async with client() as kb:
        await kb.datasets.list()

    assert server.count_requests("GET", LIST) == 3


async def test_a_read_gives_up_with_its_last_error(server: FakeServer) -> None:
    """Three 500s are not temporary; the error is that of the server."""
    server.get(LIST, status=500, payload={"code": "unknown", "message": "no"}, repeat=True)

    async with client() as kb:
        with pytest.raises(dify_kb.ServerError, match="unknown: no"):
            await kb.datasets.list()

    assert server.count_requests("GET", LIST) == 3


async def test_an_unreachable_server_is_given_up(server: FakeServer) -> None:
    """After six attempts the error names the address and the reason."""
    server.get(LIST, exception=REFUSED, repeat=True)

    async with client() as kb:
        with pytest.raises(dify_kb.ConnectError, match="cannot connect to") as raised:
            await kb.datasets.list()

    assert server.count_requests("GET", LIST) == 6
    assert "connection refused" in str(raised.value)
    assert not raised.value.delivered


async def test_a_refusal_is_not_sent_again(server: FakeServer) -> None:
    """A retry would return the same error."""
    server.get(ONE, status=404, payload={"code": "not_found", "message": "Dataset not found."})

    async with client() as kb:
        with pytest.raises(dify_kb.NotFoundError):
            await kb.datasets.get(D1)

    assert server.count_requests("GET", ONE) == 1


async def test_a_delete_is_sent_again(server: FakeServer) -> None:
    """A delete is idempotent, so it is retried after a lost response."""
    server.delete(ONE, exception=aiohttp.ServerDisconnectedError())
    server.delete(ONE, status=200, body="204\n")

    async with client() as kb:
        await kb.datasets.delete(D1)

    assert server.count_requests("DELETE", ONE) == 2


async def test_a_delete_that_meets_its_own_success_succeeds(server: FakeServer) -> None:
    """The first attempt succeeded without a response; the 404 confirms it."""
    server.delete(ONE, exception=aiohttp.ServerDisconnectedError())
    server.delete(ONE, status=404, payload={"code": "not_found", "message": "Dataset not found."})

    async with client() as kb:
        await kb.datasets.delete(D1)

    assert server.count_requests("DELETE", ONE) == 2


async def test_a_page_is_no_proof_that_a_delete_succeeded(server: FakeServer) -> None:
    """A proxy without its server may respond 404."""
    server.delete(ONE, exception=aiohttp.ServerDisconnectedError())
    server.delete(ONE, status=404, body=HTML_TEMPLATE, content_type="text/html")

    async with client() as kb:
        with pytest.raises(dify_kb.NotFoundError) as raised:
            await kb.datasets.delete(D1)

    assert raised.value.after_lost_response


async def test_a_404_that_is_a_bug_of_the_version_is_no_proof_either(server: FakeServer) -> None:
    """1.8.1 returns 404 for every delete of a child chunk."""
    url = f"{ONE}/documents/{D1}/segments/{D1}/child_chunks/{D1}"
    server.delete(url, exception=aiohttp.ServerDisconnectedError())
    server.delete(
        url,
        status=404,
        payload={"code": "not_found", "message": "Child chunk not found."},
        headers={"X-Version": "1.8.1"},
    )

    async with client() as kb:
        with pytest.raises(dify_kb.NotFoundError):
            await kb.child_chunks.delete(D1, D1, D1, D1)


@pytest.mark.parametrize(
    "message",
    [
        "Another document metadata operation is running, please wait a moment.",
        "Segment is deleting.",
    ],
)
async def test_a_repetition_waits_for_the_own_earlier_attempt(
    server: FakeServer, message: str
) -> None:
    """The server still carries out the attempt whose response was lost."""
    url = f"{ONE}/documents/{D1}/segments/{D1}"
    server.delete(url, exception=aiohttp.ServerDisconnectedError())
    server.delete(url, status=400, payload={"code": "invalid_param", "message": message})
    server.delete(url, status=404, payload={"code": "not_found", "message": "Segment not found."})

    async with client() as kb:
        await kb.segments.delete(D1, D1, D1)


async def test_a_busy_object_is_refused_without_an_own_earlier_attempt(server: FakeServer) -> None:
    url = f"{ONE}/documents/{D1}/segments/{D1}"
    server.delete(
        url, status=400, payload={"code": "invalid_param", "message": "Segment is deleting."}
    )

    async with client() as kb:
        with pytest.raises(dify_kb.BadRequestError) as raised:
            await kb.segments.delete(D1, D1, D1)

    assert not raised.value.after_lost_response


@pytest.mark.parametrize("before", [None, 429])
async def test_a_delete_of_what_was_never_there_is_refused(
    server: FakeServer, before: int | None
) -> None:
    """No earlier attempt can have deleted the resource."""
    if before is not None:
        server.delete(ONE, status=before, payload={"code": "too_many_requests"})
    server.delete(ONE, status=404, payload={"code": "not_found", "message": "Dataset not found."})

    async with client() as kb:
        with pytest.raises(dify_kb.NotFoundError):
            await kb.datasets.delete(D1)


async def test_a_search_is_a_read(server: FakeServer) -> None:
    """A search is a POST, but changes nothing."""
    url = f"{ONE}/retrieve"
    server.post(url, status=504, body=HTML_TEMPLATE, content_type="text/html")
    server.post(url, payload={"query": {"content": "a"}, "records": []})

    async with client() as kb:
        found = await kb.datasets.retrieve(D1, "a")

    assert found.records == ()
    assert server.count_requests("POST", url) == 2


# --- calls that create


async def test_a_create_waits_for_an_overloaded_server(server: FakeServer) -> None:
    """After 503 nothing was created, so even a create is retried, after `Retry-After`."""
    server.post(CREATE, status=503, headers={"Retry-After": "0.05"}, body=HTML_TEMPLATE)
    server.post(CREATE, payload=DATASET)
    started = anyio.current_time()

    async with client() as kb:
        dataset = await kb.datasets.create("Handbook")

    assert dataset.id == D1
    assert server.count_requests("POST", CREATE) == 2
    assert anyio.current_time() - started >= 0.05


async def test_a_create_is_sent_again_when_nothing_was_sent(server: FakeServer) -> None:
    """A refused connection proves that nothing was sent."""
    server.post(CREATE, exception=REFUSED)
    server.post(CREATE, payload=DATASET)

    async with client() as kb:
        await kb.datasets.create("Handbook")

    assert server.count_requests("POST", CREATE) == 2


@pytest.mark.parametrize("status", [500, 502, 504])
async def test_a_lost_answer_does_not_upload_twice(server: FakeServer, status: int) -> None:
    """The proxy timed out, the server continued: a second upload would duplicate the chunks."""
    server.post(BY_FILE, status=status, body=HTML_TEMPLATE, content_type="text/html", repeat=True)

    async with client() as kb:
        with pytest.raises(dify_kb.OutcomeUnknownError) as raised:
            await kb.documents.create_by_file(D1, b"hello", name="a.txt")

    assert server.count_requests("POST", BY_FILE) == 1
    assert isinstance(raised.value.__cause__, dify_kb.ServerError)
    assert raised.value.__cause__.status == status
    assert raised.value.endpoint == "documents.create_by_file"


@pytest.mark.parametrize(
    "lost", [aiohttp.ServerDisconnectedError(), ConnectionResetError(104, "reset"), TimeoutError()]
)
async def test_a_lost_answer_does_not_create_twice(server: FakeServer, lost: Exception) -> None:
    """The server received the whole text and may have created the document."""
    server.post(BY_TEXT, exception=lost, repeat=True)

    async with client() as kb:
        with pytest.raises(dify_kb.OutcomeUnknownError) as raised:
            await kb.documents.create_by_text(D1, "a.txt", "hello")

    assert server.count_requests("POST", BY_TEXT) == 1
    assert isinstance(raised.value.__cause__, dify_kb.TransportError)


async def test_a_cut_answer_does_not_create_twice(server: FakeServer) -> None:
    """An incomplete 200 response was a success."""
    server.post(CREATE, body='{"id": "1', repeat=True)

    async with client() as kb:
        with pytest.raises(dify_kb.OutcomeUnknownError):
            await kb.datasets.create("Handbook")

    assert server.count_requests("POST", CREATE) == 1


async def test_a_page_in_place_of_an_answer_is_no_unknown_outcome(server: FakeServer) -> None:
    """The address is wrong, so nothing was created."""
    server.post(CREATE, body="<html><title>Dify</title></html>", content_type="text/html")

    async with client() as kb:
        with pytest.raises(dify_kb.ProtocolError, match=r"an HTML page \(Dify\)"):
            await kb.datasets.create("Handbook")


@pytest.mark.parametrize("lost", [aiohttp.ConnectionTimeoutError(), REFUSED])
async def test_a_run_whose_server_was_not_reached_was_not_started(
    server: FakeServer, lost: Exception
) -> None:
    """Without a connection the run was not started, so it can be started again."""
    server.post(f"{ONE}/pipeline/run", exception=lost)

    async with client() as kb:
        events = kb.pipeline.run(
            D1, start_node_id="1", datasource_type="local_file", datasource_info_list=[]
        )
        with pytest.raises(dify_kb.ConnectError) as raised:
            _ = [event async for event in events]

    assert not raised.value.delivered


# --- throttling


async def test_too_many_requests_are_waited_for(server: FakeServer) -> None:
    """The server rejects nine attempts and accepts the tenth."""
    for _ in range(9):
        server.post(CREATE, status=429, payload={"code": "too_many_requests", "message": "later"})
    server.post(CREATE, payload=DATASET)

    async with client() as kb:
        await kb.datasets.create("Handbook")

    assert server.count_requests("POST", CREATE) == 10


async def test_too_many_requests_are_not_retried_forever(server: FakeServer) -> None:
    """A server that always rejects must not block a program forever."""
    server.get(LIST, status=429, payload={"code": "too_many_requests"}, repeat=True)

    async with client() as kb:
        with pytest.raises(dify_kb.RateLimitedError):
            await kb.datasets.list()

    assert server.count_requests("GET", LIST) == 10


async def test_a_retry_after_of_minutes_is_raised_not_waited_for(server: FakeServer) -> None:
    """A list() once waited for 47 minutes and blocked all other calls of the client."""
    answer_busy = {"code": "too_many_requests", "message": "later"}
    server.get(LIST, status=429, payload=answer_busy, headers={"Retry-After": "300"}, repeat=True)

    async with client() as kb:
        with pytest.raises(dify_kb.RateLimitedError) as raised:
            await kb.datasets.list()

    assert raised.value.retry_after == 300
    assert server.count_requests("GET", LIST) == 1


async def test_a_pause_of_another_call_is_not_waited_for_longer_than_the_own_limit(
    server: FakeServer,
) -> None:
    """A load in the same client may wait for minutes; a search must not."""
    server.get(LIST, status=429, headers={"Retry-After": "30"}, repeat=True)
    server.get(ONE, payload=DATASET)

    async with client() as kb:
        loading = kb.with_options(retry=Retry(total=None))
        searching = kb.with_options(retry=Retry(total=20))
        async with anyio.create_task_group() as group:
            group.start_soon(loading.datasets.list)
            while not kb._sender.limiter.remaining_pause:
                await anyio.lowlevel.checkpoint()
            with pytest.raises(dify_kb.RateLimitedError) as raised:
                await searching.datasets.get(D1)
            assert raised.value.retry_after is not None
            assert 20 < raised.value.retry_after <= 33
            group.cancel_scope.cancel()

    assert server.count_requests("GET", ONE) == 0


async def test_calls_in_a_pause_occupy_no_slot(server: FakeServer) -> None:
    """Otherwise a call that may not wait would wait for a slot of those that may."""
    server.get(LIST, status=429, headers={"Retry-After": "30"}, repeat=True)

    async with client(concurrency=1) as kb:
        loading = kb.with_options(retry=Retry(total=None))
        async with anyio.create_task_group() as group:
            group.start_soon(loading.datasets.list)
            group.start_soon(loading.datasets.list)
            while not kb._sender.limiter.remaining_pause:
                await anyio.lowlevel.checkpoint()
            with pytest.raises(dify_kb.RateLimitedError):
                await kb.with_options(retry=Retry(total=1)).datasets.get(D1)
            group.cancel_scope.cancel()


async def test_the_rate_limit_of_dify_is_waited_for(server: FakeServer) -> None:
    """The 403 differs from permanent ones only in its message."""
    server.post(CREATE, status=403, payload=RATE)
    server.post(CREATE, payload=DATASET)

    async with client() as kb:
        await kb.datasets.create("Handbook")

    assert server.count_requests("POST", CREATE) == 2


async def test_a_full_plan_is_not_waited_for(server: FakeServer) -> None:
    """A retry does not reduce the number of documents."""
    full = {"message": "The number of documents has reached the limit of your subscription."}
    server.post(BY_FILE, status=403, payload={"code": "forbidden", **full})

    async with client() as kb:
        with pytest.raises(dify_kb.QuotaExceededError):
            await kb.documents.create_by_file(D1, b"hello", name="a.txt")

    assert server.count_requests("POST", BY_FILE) == 1


async def test_a_pause_requested_by_the_server_holds_back_all_calls(server: FakeServer) -> None:
    """The limit applies to the whole server: seven more calls would be rejected as well."""
    server.get(LIST, status=429, headers={"Retry-After": "0.1"})
    server.get(LIST, payload=EMPTY_PAGE)
    server.get(ONE, payload=DATASET)
    ended: dict[str, float] = {}

    def listener(event: AttemptEvent) -> None:
        ended[event.endpoint] = anyio.current_time()

    async with client(on_event=listener) as kb:
        started = anyio.current_time()
        async with anyio.create_task_group() as group:
            group.start_soon(kb.datasets.list)
            while not ended:
                await anyio.lowlevel.checkpoint()
            group.start_soon(kb.datasets.get, D1)

    assert ended["datasets.get"] - started >= 0.1


async def test_a_delay_of_one_call_does_not_hold_back_the_others(server: FakeServer) -> None:
    """A refused connection is not a request to pause."""
    slow = Policy(retry=Retry(base_delay=0.3))
    server.get(LIST, exception=REFUSED)
    server.get(LIST, payload=EMPTY_PAGE)
    server.get(ONE, payload=DATASET)
    order: list[str] = []

    def listener(event: AttemptEvent) -> None:
        order.append(event.endpoint)

    async with (
        client(policy=slow, on_event=listener, concurrency=1) as kb,
        anyio.create_task_group() as group,
    ):
        group.start_soon(kb.datasets.list)
        while not order:
            await anyio.lowlevel.checkpoint()
        await kb.datasets.get(D1)

    assert order == ["datasets.list", "datasets.get", "datasets.list"]


# --- redirects


async def test_redirects_are_not_followed(server: FakeServer) -> None:
    """aiohttp would turn the POST into a GET, whose list of datasets looks like a success."""
    server.post(CREATE, status=301, headers={"Location": "https://dify.test/v1/datasets"})

    async with client() as kb:
        with pytest.raises(dify_kb.ApiError, match=r"https://dify\.test/v1/datasets"):
            await kb.datasets.create("Handbook")

    (call,) = server.requests_to("POST", CREATE)
    assert call["allow_redirects"] is False


# --- requests


async def test_the_key_and_custom_headers_are_sent(server: FakeServer) -> None:
    """Neither can replace the other."""
    server.get(LIST, payload=EMPTY_PAGE)

    async with client(headers={"X-Team": "docs", "Authorization": "Bearer other"}) as kb:
        await kb.datasets.list()

    (call,) = server.requests_to("GET", LIST)
    assert call["headers"]["Authorization"] == f"Bearer {KEY}"
    assert call["headers"]["X-Team"] == "docs"
    assert call["headers"]["User-Agent"].startswith("dify-kb/")


async def test_a_custom_user_agent_is_sent(server: FakeServer) -> None:
    server.get(LIST, payload=EMPTY_PAGE)

    async with client(headers={"User-Agent": "me/1"}) as kb:
        await kb.datasets.list()

    (call,) = server.requests_to("GET", LIST)
    assert call["headers"]["User-Agent"] == "me/1"


async def test_json_is_sent_as_json(server: FakeServer) -> None:
    """Without the content type the server returns 415 or 400, by version (measured)."""
    server.post(CREATE, payload=DATASET)

    async with client() as kb:
        await kb.datasets.create("Hand•buch", indexing_technique=None)

    (call,) = server.requests_to("POST", CREATE)
    assert call["headers"]["Content-Type"] == "application/json"
    assert json.loads(call["data"]) == {"name": "Hand•buch", "indexing_technique": None}


async def test_a_query_is_quoted_once(server: FakeServer) -> None:
    """The keyword `50%&page=9` must not change other parameters."""
    url = URL(f"{LIST}&keyword=50%25%26page%3D9+%C3%A9", encoded=True)
    server.get(url, payload=EMPTY_PAGE)

    async with client() as kb:
        await kb.datasets.list(keyword="50%&page=9 é")

    assert server.requests


async def test_a_name_with_surrogates_is_refused_before_it_is_sent(
    server: FakeServer,
) -> None:
    """File systems allow names that are not UTF-8; JSON and headers do not."""
    async with client() as kb:
        with pytest.raises(dify_kb.ConfigError):
            await kb.documents.create_by_file(D1, b"hello", name="a\udcff.txt")
        with pytest.raises(dify_kb.ConfigError):
            await kb.documents.create_by_text(D1, "a.txt", "hello \udcff")

    assert not server.requests


# --- the key stays secret


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        (400, {"code": "invalid_param", "message": f"bad header Bearer {KEY}"}, {}),
        (401, {"code": KEY, "message": "no"}, {}),
        (404, f"<html><title>{KEY}</title></html>", {"Content-Type": "text/html"}),
        (502, f"upstream got {KEY}", {"Content-Type": "text/plain"}),
        (200, f"<html><title>{KEY}</title></html>", {"Content-Type": "text/html"}),
        (302, "", {"Location": f"https://other.test/?key={KEY}"}),
        (404, "", {"X-Version": KEY, "X-Request-Id": KEY}),
    ],
)
async def test_a_key_that_the_server_echoes_is_not_shown(
    server: FakeServer,
    caplog: pytest.LogCaptureFixture,
    status: int,
    body: object,
    headers: dict[str, str],
) -> None:
    """Debug pages and proxies echo requests, and many people can read logs."""
    caplog.set_level(logging.DEBUG)
    text = body if isinstance(body, str) else json.dumps(body)
    server.get(ONE, status=status, body=text, headers=headers, repeat=True)
    reported: list[AttemptEvent] = []

    async with client(on_event=reported.append) as kb:
        with pytest.raises(dify_kb.KnowledgeError) as raised:
            await kb.datasets.get(D1)
        version = kb.server_version

    error: BaseException | None = raised.value
    while error is not None:
        assert KEY not in f"{error} {error!r} {vars(error)}"
        error = error.__cause__
    assert KEY not in f"{reported} {version} {caplog.text}"


async def test_the_key_is_in_no_repr_of_an_open_client(server: FakeServer) -> None:
    """Debuggers and task dumps show reprs."""
    async with client() as kb:
        shown = f"{kb!r} {kb.datasets!r} {kb.documents!r} {kb.workspace!r}"

    assert KEY not in shown
    assert not server.requests


# --- events and logs


async def test_a_listener_sees_each_attempt(server: FakeServer) -> None:
    """Progress bars, journals and benchmarks are listeners."""
    server.get(LIST, exception=REFUSED)
    server.get(LIST, status=429, payload={"code": "too_many_requests", "message": "later"})
    server.get(LIST, payload=EMPTY_PAGE)
    reported: list[AttemptEvent] = []

    async with client(on_event=reported.append) as kb:
        await kb.datasets.list()

    assert [(event.attempt, event.status) for event in reported] == [(1, None), (2, 429), (3, 200)]
    assert {event.endpoint for event in reported} == {"datasets.list"}
    assert [event.retry_in is None for event in reported] == [False, False, True]
    assert [event.error is None for event in reported] == [False, False, True]
    assert all(event.seconds >= 0 for event in reported)


async def test_a_listener_sees_the_last_failure(server: FakeServer) -> None:
    """`retry_in` is None after the last attempt, also of a failed call."""
    server.get(ONE, status=404, payload={"code": "not_found", "message": "no"})
    reported: list[AttemptEvent] = []

    async with client(on_event=reported.append) as kb:
        with pytest.raises(dify_kb.NotFoundError):
            await kb.datasets.get(D1)

    (event,) = reported
    assert (event.status, event.retry_in) == (404, None)
    assert event.error is not None


async def test_each_failure_is_logged_with_its_endpoint(
    server: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Logs can be filtered by endpoint and attempt."""
    caplog.set_level(logging.INFO, logger="dify_kb")
    server.get(LIST, status=503, body=HTML_TEMPLATE, content_type="text/html")
    server.get(LIST, payload=EMPTY_PAGE)

    async with client() as kb:
        await kb.datasets.list()

    (record,) = caplog.records
    assert (vars(record)["endpoint"], vars(record)["attempt"]) == ("datasets.list", 1)
    assert "503" in record.getMessage()
    assert "retry in" in record.getMessage()


async def test_the_version_of_the_server_is_remembered(server: FakeServer) -> None:
    """Every response, also an error, has the version; one without it keeps the last version."""
    server.get(ONE, status=404, headers={"X-Version": "1.8.1"}, body="{}")
    server.get(LIST, payload=EMPTY_PAGE)

    async with client() as kb:
        before = kb.server_version
        with pytest.raises(dify_kb.NotFoundError):
            await kb.datasets.get(D1)
        await kb.datasets.list()
        after = kb.server_version

    assert (before, after) == (None, "1.8.1")


async def test_ping_reads_the_version_from_an_error_response(server: FakeServer) -> None:
    """1.12.1 lacks the route, but the 404 has the version; the key does not matter."""
    server.get(f"{BASE}/", status=404, headers={"X-Version": "1.12.1"}, body=HTML_TEMPLATE)
    server.get(FIRST, status=401, payload={"code": "unauthorized", "message": "", "status": 401})

    async with client() as kb:
        info = await kb.ping()

    assert info.server_version == "1.12.1"


async def test_ping_refuses_a_wrong_path_of_a_dify_server(server: FakeServer) -> None:
    """The console's 404 has the version too, but there is no Knowledge API."""
    for url in (f"{BASE}/", FIRST):
        server.get(url, status=404, headers={"X-Version": "1.14.2"}, body=HTML_TEMPLATE)

    async with client() as kb:
        with pytest.raises(dify_kb.NotFoundError) as raised:
            await kb.ping()

    assert raised.value.hint.startswith("Check the base URL and the server")


async def test_attempt_events_have_the_time_of_the_server(server: FakeServer) -> None:
    date = "Sat, 21 Nov 2026 08:15:30 GMT"
    server.get(LIST, payload=EMPTY_PAGE, headers={"Date": date})
    events: list[dify_kb.AttemptEvent] = []

    async with client(on_event=events.append) as kb:
        await kb.datasets.list()

    assert [event.date for event in events] == [date]


# --- sessions


async def test_a_passed_session_is_used_and_not_closed(server: FakeServer) -> None:
    """The caller may use the session for other purposes."""
    server.get(LIST, payload=EMPTY_PAGE)

    async with aiohttp.ClientSession() as session:
        async with client(session=session) as kb:
            await kb.datasets.list()
        closed = session.closed

    assert not closed
    assert server.count_requests("GET", LIST) == 1


async def test_an_own_session_is_closed(server: FakeServer) -> None:
    """An open session would warn, and keep connections that other clients need."""
    async with client() as kb:
        opened = kb._connection._opened
        assert opened is not None
        session = opened.http

    assert session.closed
    assert not server.requests


async def test_the_first_call_opens_a_client(server: FakeServer) -> None:
    """As with httpx and openai, the context manager is optional."""
    server.get(LIST, payload=EMPTY_PAGE)
    kb = client()
    datasets = kb.datasets
    page = await datasets.list()
    async with kb:  # closes it
        version = kb.server_version

    assert page.total == 0
    assert version is None


async def test_a_closed_client_stays_closed(server: FakeServer) -> None:
    """Calls through objects of the open client fail, too; closing again does nothing."""
    kb = client()
    async with kb:
        datasets = kb.datasets
    await kb.aclose()

    with pytest.raises(dify_kb.ConfigError, match="is closed"):
        await datasets.list()
    with pytest.raises(dify_kb.ConfigError, match="is closed"):
        await kb.documents.list(D1)
    with pytest.raises(dify_kb.ConfigError, match="is closed"):
        await kb.__aenter__()
    assert not server.requests


async def test_a_client_of_with_options_is_not_closed_alone(server: FakeServer) -> None:
    """It shares the connections of the client that created it."""
    async with client() as kb:
        view = kb.with_options(timeout=Timeout(read=1.0))
        with pytest.raises(dify_kb.ConfigError, match="with_options"):
            await view.aclose()
        with pytest.raises(dify_kb.ConfigError, match="with_options"):
            await view.__aenter__()
    assert not server.requests


async def test_an_open_client_is_not_opened_again(server: FakeServer) -> None:
    """The second block would close the connections of the first."""
    async with client() as kb:
        with pytest.raises(dify_kb.ConfigError, match="already open"):
            await kb.__aenter__()

    assert not server.requests


async def test_with_options_shares_the_connections(server: FakeServer) -> None:
    """A default server has few connections; two clients would use sixteen."""
    server.get(LIST, status=500, body="{}", repeat=3)
    server.get(LIST, payload=EMPTY_PAGE)

    async with client() as kb:
        once = kb.with_options(retry=Retry(read_attempts=1), timeout=Timeout(read=1.0))
        with pytest.raises(dify_kb.ServerError):
            await once.datasets.list()
        count_requests = server.count_requests("GET", LIST)
        shared = once._connection is kb._connection and once._sender.limiter is kb._sender.limiter
        policy = kb._sender.policy
        still = policy.retry == QUICK.retry and policy.timeout == QUICK.timeout

    assert count_requests == 1
    assert shared
    assert still


async def test_idle_connections_are_soon_closed_and_never_limited_twice() -> None:
    """A default server has ten connections; idle ones must be available to others."""
    async with open_session(proxy=None, ssl=None) as session:
        connector = session.connector

        assert isinstance(connector, aiohttp.TCPConnector)
        assert connector._keepalive_timeout == KEEP_ALIVE
        assert connector.limit == 0
