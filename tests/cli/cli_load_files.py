"""Write files for loads, and count the create requests."""

from __future__ import annotations

from pathlib import Path

from dify_kb.emulator import Emulator

CREATE = "documents.create_by_file"


def write_files(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"the text of {name}")


def count_creates(emulator: Emulator) -> int:
    return sum(call.endpoint == CREATE for call in emulator.history)
