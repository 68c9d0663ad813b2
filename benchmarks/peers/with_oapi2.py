"""Upload with dify-oapi2, an async client over httpx, by file object."""

from __future__ import annotations

from contextlib import asynccontextmanager
from io import BytesIO
from typing import TYPE_CHECKING

import harness
from dify_oapi.api.knowledge.v1.model import (
    CreateDocumentByFileRequest,
    CreateDocumentByFileRequestBody,
    CreateDocumentByFileRequestBodyData,
    ListDocumentsResponse,
)
from dify_oapi.client import Client
from dify_oapi.core.json import JSON
from dify_oapi.core.model.request_option import RequestOption

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@asynccontextmanager
async def client(job: harness.Job) -> AsyncIterator[harness.SendFunction]:
    """Upload as in its documentation, with `at_once` keep-alive connections."""
    opened = Client.builder().domain(job.server_url).max_keepalive_connections(job.at_once).build()
    option = RequestOption.builder().api_key(job.key).build()

    async def send(file: Path) -> object:
        data = (
            CreateDocumentByFileRequestBodyData.builder()
            .indexing_technique("economy")
            .doc_form("text_model")
            .build()
        )
        request = (
            CreateDocumentByFileRequest.builder()
            .dataset_id(job.dataset)
            .request_body(CreateDocumentByFileRequestBody.builder().data(data).build())
            .file(BytesIO(job.read_content(file)), file.name)
            .build()
        )
        response = await opened.knowledge.v1.document.acreate_by_file(request, option)
        return response.document.id

    yield send
    await opened.aclose()


def create_decoder() -> harness.DecodeFunction:
    """Return its decoder from bytes to models."""
    return lambda body: JSON.unmarshal(body.decode(), ListDocumentsResponse)


if __name__ == "__main__":
    harness.main({"dify-oapi2": harness.run_in_tasks(client)}, {"dify-oapi2": create_decoder})
