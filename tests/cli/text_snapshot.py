"""Compare the output of commands with text files, so that its words are reviewed as a whole.

`UPDATE_SNAPSHOTS=1 pytest tests/cli/test_cli_snapshots.py` rewrites the files; review their diff.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

UPDATE_VARIABLE = "UPDATE_SNAPSHOTS"
"""The environment variable that rewrites the snapshots instead of comparing them."""

FOLDER = Path(__file__).parent / "snapshots"

_VARIABLE_PARTS = {
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}": "<id>",
    r"\b[0-9a-f]{16}\b": "<journal>",
    r"(?m)^ *\d+ s  .*\n": "",
    r"(cannot connect to \S+) \(.*\)": r"\1 (<reason>)",
    r"\d+(\.\d+)? s\b": "<n> s",
    r"\d+(\.\d+)? documents/s": "<n> documents/s",
    r"\d+ requests, \d+ retries": "<n> requests, <n> retries",
}
"""Patterns of the parts that differ between runs (progress lines too), and their placeholders."""


def mask_variable_parts(text: str, known: Mapping[str, str]) -> str:
    """Replace what differs between machines and runs: `known` texts, ids, times and counts."""
    for part, placeholder in known.items():
        text = text.replace(part, placeholder)
    for pattern, placeholder in _VARIABLE_PARTS.items():
        text = re.sub(pattern, placeholder, text)
    return text


def check_snapshot(name: str, text: str) -> None:
    """Assert that a text equals its snapshot, or rewrite the snapshot."""
    file = FOLDER / name
    if os.environ.get(UPDATE_VARIABLE):
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8"), (
        f"{file.name} differs; run with {UPDATE_VARIABLE}=1 to rewrite it, and review the diff."
    )
