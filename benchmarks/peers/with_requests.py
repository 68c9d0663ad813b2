"""Upload with requests, in threads."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING

import harness
import requests

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def open_form_sender(job: harness.Job) -> Iterator[harness.SendFunction]:
    """Upload a form, by one session with a connection per thread."""
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {job.key}"
        session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=job.at_once))

        def send(file: Path) -> object:
            with job.open_source(file) as source:
                response = session.post(
                    job.upload_url,
                    data={"data": json.dumps(harness.REQUEST_DATA)},
                    files={"file": (file.name, source)},
                )
            response.raise_for_status()
            return response.json()

        yield send


if __name__ == "__main__":
    harness.main({"requests": harness.run_in_threads(open_form_sender)})
