"""What tests of failures have in common."""

from __future__ import annotations

from emulator_calls import Calls

CREATE = "documents.create_by_file"
BIG = b"0123456789abcdef" * 32_768
"""512 KiB."""


def names(calls: Calls, dataset: str) -> list[str]:
    return [document.name for document in calls.emulator.documents(dataset)]
