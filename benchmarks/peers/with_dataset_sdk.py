"""Upload with dify-dataset-sdk, a blocking client over httpx, by path and in threads."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING

import harness
from dify_dataset_sdk import DifyDatasetClient
from dify_dataset_sdk.documents.models import Document

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def open_client(job: harness.Job) -> Iterator[harness.SendFunction]:
    """Upload by one client for all threads."""
    with DifyDatasetClient(job.key, job.server_url) as client:

        def send(file: Path) -> object:
            return client.documents.create_by_file(
                job.dataset, file, indexing_technique="economy", doc_form="text_model"
            )

        yield send


def create_decoder() -> harness.DecodeFunction:
    """Return a decoder with its document models, which its `list` does not use."""
    return lambda body: [Document(**row) for row in json.loads(body)["data"]]


if __name__ == "__main__":
    harness.main(
        {"dify-dataset-sdk": harness.run_in_threads(open_client)},
        {"dify-dataset-sdk": create_decoder},
    )
