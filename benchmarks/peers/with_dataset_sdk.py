"""dify-dataset-sdk: a blocking client over httpx, here in threads. It takes paths."""

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
    """Share one client among the threads."""
    with DifyDatasetClient(job.key, job.server_url) as client:

        def send(file: Path) -> object:
            return client.documents.create_by_file(
                job.dataset, file, indexing_technique="economy", doc_form="text_model"
            )

        yield send


def create_decoder() -> harness.DecodeFunction:
    """Its models of documents; its `list` leaves them as JSON."""
    return lambda body: [Document(**row) for row in json.loads(body)["data"]]


if __name__ == "__main__":
    harness.main(
        {"dify-dataset-sdk": harness.run_in_threads(open_client)},
        {"dify-dataset-sdk": create_decoder},
    )
