"""A server with fixed responses, immediate or after a latency, to measure the cost of clients.

`python benchmarks/null_server.py [SECONDS]` prints its port and serves until it is terminated. It
reads each request to the end, discards the body, and responds as 1.12.1 did (recordings 170 and
1001), with a new document for each create request. Every dataset id exists and lists the documents
that were created in it, all of them indexed. `GET /_spent` returns the CPU time of the server, in
seconds.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import subprocess
import sys
import time
from collections import defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast
from urllib.parse import parse_qs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DATASET_ID = "11111111-1111-4111-8111-111111111111"
DOCUMENT = {
    "id": "1e685707-cc0a-4cc2-9fff-7d078ed81aec",
    "position": 12,
    "data_source_type": "upload_file",
    "data_source_info": {"upload_file_id": "48cdc302-0291-467b-87f4-0c90bc7100a7"},
    "data_source_detail_dict": {
        "upload_file": {
            "id": "48cdc302-0291-467b-87f4-0c90bc7100a7",
            "name": "a.txt",
            "size": 169,
            "extension": "txt",
            "mime_type": "text/plain",
            "created_by": "852c006f-7d6f-494e-b6d3-a38b31a1e929",
            "created_at": 1795246359.289459,
        }
    },
    "dataset_process_rule_id": "701d6eea-b6fa-4517-9769-51240ce07f82",
    "name": "a.txt",
    "created_from": "api",
    "created_by": "852c006f-7d6f-494e-b6d3-a38b31a1e929",
    "created_at": 1795246359,
    "tokens": None,
    "indexing_status": "waiting",
    "error": None,
    "enabled": True,
    "disabled_at": None,
    "disabled_by": None,
    "archived": False,
    "display_status": "queuing",
    "word_count": None,
    "hit_count": 0,
    "doc_form": "text_model",
    "doc_metadata": None,
    "summary_index_status": None,
    "need_summary": False,
}
NULLS = (
    "data_source_type updated_by embedding_model embedding_model_provider embedding_available"
    " retrieval_model_dict external_knowledge_info external_retrieval_model doc_metadata"
)
DATASET: Mapping[str, object] = {
    **dict.fromkeys(NULLS.split()),
    "id": DATASET_ID,
    "name": "null",
    "description": None,
    "provider": "vendor",
    "permission": "only_me",
    "indexing_technique": "economy",
    "app_count": 0,
    "document_count": 0,
    "word_count": 0,
    "created_by": DATASET_ID,
    "created_at": 1795246359,
    "updated_at": 1795246359,
    "tags": [],
    "doc_form": "text_model",
    "built_in_field_enabled": False,
}
SERVER_INFO = {"welcome": "Dify OpenAPI", "api_version": "v1", "server_version": "1.12.1"}


def build_response(value: object) -> bytes:
    """Return a response with the headers of a server behind nginx."""
    return build_created_response(json.dumps(value, separators=(",", ":")).encode())


def build_created_response(body: bytes) -> bytes:
    """Return a response with this body."""
    head = (
        "HTTP/1.1 200 OK\r\nServer: nginx/1.27.4\r\nDate: Fri, 21 Nov 2026 08:00:00 GMT\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        "Connection: keep-alive\r\nX-Version: 1.12.1\r\nX-Env: PRODUCTION\r\n\r\n"
    )
    return head.encode() + body


OWN_ID, OWN_BATCH = str(DOCUMENT["id"]).encode(), b"20261121073239207337"
CREATED = build_response({"document": DOCUMENT, "batch": OWN_BATCH.decode()})
WELCOME = build_response(SERVER_INFO)
INDEXED = {"indexing_status": "completed", "display_status": "available", "word_count": 700}
ROW = json.dumps({**DOCUMENT, **INDEXED, "tokens": 160}, separators=(",", ":")).encode()
STATUS = {"indexing_status": "completed", "completed_segments": 4, "total_segments": 4}

latency = 0.0
created: defaultdict[str, list[int]] = defaultdict(list)
"""The numbers of the documents of each dataset, the oldest first."""


class NullProtocol(asyncio.Protocol):
    """A connection. Each request is answered after its last byte."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is not a subclass
        self._head = b""
        self._left: int | None = None

    def data_received(self, data: bytes) -> None:
        """Count received bytes. Requests are not pipelined."""
        if self._left is None:
            self._head, end, body = (self._head + data).partition(b"\r\n\r\n")
            if not end:
                return
            self._left = content_length(self._head) - len(body)
        else:
            self._left -= len(data)
        if self._left <= 0:
            head, self._head, self._left = self._head, b"", None
            self._answer(route_request(head))

    def _answer(self, reply: bytes) -> None:
        if latency:
            asyncio.get_running_loop().call_later(latency, self._transport.write, reply)
        else:
            self._transport.write(reply)


def content_length(head: bytes) -> int:
    """Return the length of the body."""
    _, found, rest = head.lower().partition(b"\r\ncontent-length:")
    return int(rest.partition(b"\r\n")[0]) if found else 0


def route_request(head: bytes) -> bytes:
    """Return the response for a method and path."""
    method, target = head.partition(b"\r\n")[0].split(b" ")[:2]
    path, _, query = target.decode().partition("?")
    if path == "/_spent":
        return build_response({"cpu": time.process_time()})
    _, found, rest = path.partition("/datasets/")
    if not found:
        return WELCOME
    dataset, documents = rest[:36], created[rest[:36]]
    if method == b"POST":
        documents.append(len(documents) + 1)
        own = document_id(dataset, documents[-1])
        return CREATED.replace(OWN_ID, own, 1).replace(OWN_BATCH, b"%020d" % documents[-1], 1)
    if rest.endswith("/indexing-status"):
        own = document_id(dataset, int(rest.split("/")[-2]))
        return build_response({"data": [{**STATUS, "id": own.decode()}]})
    if rest.endswith("/documents"):
        return list_documents(
            dataset, len(documents), {key: each[0] for key, each in parse_qs(query).items()}
        )
    return build_response({**DATASET, "id": dataset, "document_count": len(documents)})


def list_documents(dataset: str, total: int, query: Mapping[str, str]) -> bytes:
    """Return a page of the list, the newest documents first."""
    size, number = int(query.get("limit", 20)), int(query.get("page", 1))
    newest = total - (number - 1) * size
    rows = [
        ROW.replace(OWN_ID, document_id(dataset, each), 1)
        for each in range(newest, max(0, newest - size), -1)
    ]
    more = json.dumps(newest > size).encode()
    end = b'],"has_more":%b,"limit":%d,"total":%d,"page":%d}' % (more, size, total, number)
    return build_created_response(b'{"data":[' + b",".join(rows) + end)


def document_id(dataset: str, number: int) -> bytes:
    """Return the id of a document."""
    return b"%08x%b" % (number, dataset[8:].encode())


@contextmanager
def run_in_process(seconds: float = 0.0) -> Iterator[str]:
    """Run the server in another process, and yield its URL, with `/v1`."""
    command = [sys.executable, __file__, str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None  # noqa: S101 -- it is a pipe
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
        finally:
            process.terminate()


async def serve() -> None:
    """Print the port and serve until terminated."""
    server = await asyncio.get_running_loop().create_server(
        NullProtocol, "127.0.0.1", 0, backlog=1000
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    """Serve on uvloop if installed, so that the server is not the bottleneck."""
    global latency  # noqa: PLW0603 -- a process has one
    latency = float(sys.argv[1]) if sys.argv[1:] else 0.0
    if importlib.util.find_spec("uvloop") is None:
        asyncio.run(serve())
        return
    import uvloop

    uvloop.run(serve())


if __name__ == "__main__":
    main()
