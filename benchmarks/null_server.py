"""A server that answers a create at once: what a client costs is measured against it.

`python benchmarks/null_server.py` prints its port and serves until it is terminated. It reads a
request to the end of its body, and answers as 1.12.1 did (recording 170), each create with another
document. A dataset is whatever is asked for, and tells how many documents were created in it.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
from collections import Counter
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Mapping

ID = "11111111-1111-4111-8111-111111111111"
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
    "id": ID,
    "name": "null",
    "description": None,
    "provider": "vendor",
    "permission": "only_me",
    "indexing_technique": "economy",
    "app_count": 0,
    "document_count": 0,
    "word_count": 0,
    "created_by": ID,
    "created_at": 1795246359,
    "updated_at": 1795246359,
    "tags": [],
    "doc_form": "text_model",
    "built_in_field_enabled": False,
}
SERVER_INFO = {"welcome": "Dify OpenAPI", "api_version": "v1", "server_version": "1.12.1"}


def reply(value: object) -> bytes:
    """Write a reply with the headers that a server sends behind nginx."""
    body = json.dumps(value, separators=(",", ":")).encode()
    head = (
        "HTTP/1.1 200 OK\r\nServer: nginx/1.27.4\r\nDate: Fri, 21 Nov 2026 08:00:00 GMT\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        "Connection: keep-alive\r\nX-Version: 1.12.1\r\nX-Env: PRODUCTION\r\n\r\n"
    )
    return head.encode() + body


CREATED = reply({"document": DOCUMENT, "batch": "20261121073239207337"})
OWN_ID = str(DOCUMENT["id"]).encode()
WELCOME = reply(SERVER_INFO)
created: Counter[str] = Counter()
"""How many documents each dataset has."""


class Answer(asyncio.Protocol):
    """Answers each request of a connection once its last byte came."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by its type
        self._came = b""

    def data_received(self, data: bytes) -> None:
        """Count what came; one request at a time is under way, as HTTP/1.1 has it."""
        came = self._came + data if self._came else data
        head, end, body = came.partition(b"\r\n\r\n")
        if end and len(body) >= length(head):
            self._came = b""
            self._transport.write(answer(head))
        else:
            self._came = came


def length(head: bytes) -> int:
    """Tell how long the body will be."""
    _, found, rest = head.lower().partition(b"\r\ncontent-length:")
    return int(rest.partition(b"\r\n")[0]) if found else 0


def answer(head: bytes) -> bytes:
    """Choose the reply by method and path."""
    _, found, rest = head.partition(b"\r\n")[0].partition(b"/datasets/")
    if not found:
        return WELCOME
    dataset = rest[:36].decode()
    if not head.startswith(b"POST"):
        return reply({**DATASET, "id": dataset, "document_count": created[dataset]})
    created[dataset] += 1
    return CREATED.replace(OWN_ID, b"%08x-0000-4000-8000-000000000000" % created.total(), 1)


async def serve() -> None:
    """Print the port and serve until terminated."""
    server = await asyncio.get_running_loop().create_server(Answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    """Serve on the fastest loop there is, so that the server is not what is measured."""
    if importlib.util.find_spec("uvloop") is None:
        asyncio.run(serve())
        return
    import uvloop

    uvloop.run(serve())


if __name__ == "__main__":
    main()
