"""The user's own files instead of ours."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from dify_kb.errors import ConfigError
from dify_kb.ingest.sources.document_names import extension_of, name_of
from dify_kb.models import DOCUMENT_EXTENSIONS, MAX_FILE_SIZE, MAX_QUERY

from .chance import Chance
from .make import SEED, Sample

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

TEXT = frozenset({"txt", "md", "markdown", "mdx", "csv", "vtt", "properties"})
"""Extensions of files that can be asked for what they say."""

ASKED = (20, 200)
"""Characters of a line that makes a question."""


def own_files(folder: Path, *, documents: int, size: int) -> Sequence[Sample]:
    """Read a fair choice of the files of a folder that the server takes.

    The same files are chosen each time, and hidden ones are left out.

    Args:
        documents: files at most.
        size: bytes of them at most, in all.

    Raises:
        ConfigError: it is no folder, or there is nothing in it that the server takes.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder.", hint="Name a folder with documents.")
    paths = sorted(path for path in folder.rglob("*") if _fits(path, folder))
    chance, chosen, left = Chance(SEED), list[Sample](), size
    while paths and len(chosen) < documents:
        path = paths.pop(chance.below(len(paths)))
        if path.stat().st_size <= left:
            data = path.read_bytes()
            left -= len(data)
            chosen.append(Sample(name=name_of(path.relative_to(folder).as_posix()), data=data))
    if not chosen:
        raise ConfigError(
            f"{folder} holds no document that can be measured with.",
            hint=f"Servers take {', '.join(sorted(DOCUMENT_EXTENSIONS))}, up to 15 MiB.",
        )
    return chosen


def questions_about(samples: Sequence[Sample], count: int) -> Sequence[str]:
    """Make queries that fit the documents, for searches whose answers nobody looks at."""
    known = [question.query for sample in samples for question in sample.questions]
    lines = known or [line for sample in samples for line in _lines(sample)]
    chance = Chance(SEED)
    queries = [chance.pick(lines)[:MAX_QUERY] for _ in range(count)] if lines else []
    return queries or [re.sub(r"[\W_]+", " ", sample.name) for sample in samples]


def _lines(sample: Sample) -> Sequence[str]:
    if extension_of(sample.name) not in TEXT:
        return []
    text = sample.data[:100_000].decode(errors="ignore")
    lines = (" ".join(line.split()) for line in text.splitlines())
    return [line[: ASKED[1]] for line in lines if len(line) >= ASKED[0]]


def _fits(path: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    taken = extension_of(path.name) in DOCUMENT_EXTENSIONS
    return not hidden and taken and path.is_file() and 0 < path.stat().st_size <= MAX_FILE_SIZE
