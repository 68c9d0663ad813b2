"""Parse option values: durations, ranges, paths, key=value pairs."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

import dify_kb
from dify_kb.errors import ConfigError

if TYPE_CHECKING:
    from dify_kb import ProcessRule

MIB = 2**20

Technique = Literal["economy", "high_quality"]

# Values of enumerations whose modules take too long to import for a line of help.
OnExisting = Literal["overwrite", "skip", "fail"]
OnError = Literal["collect", "stop"]
Replace = Literal["in_place", "swap"]
WaitFor = Literal["accepted", "indexed", "verified"]
JournalStateName = Literal["waiting", "sending", "accepted", "done", "failed", "stalled", "emptied"]


class ModelTypeChoice(StrEnum):
    """The values of `ModelType`."""

    TEXT_EMBEDDING = "text-embedding"
    RERANK = "rerank"
    LLM = "llm"
    TTS = "tts"
    SPEECH2TEXT = "speech2text"
    MODERATION = "moderation"


class SegmentStatusChoice(StrEnum):
    """The values of `SegmentStatus`."""

    WAITING = "waiting"
    INDEXING = "indexing"
    COMPLETED = "completed"
    ERROR = "error"
    RE_SEGMENT = "re_segment"


def format_choices(choices: type[StrEnum]) -> str:
    """Return the values of a repeatable option for its help: `<a|b>`."""
    return f"<{'|'.join(choices)}>"


_UNITS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}

_DURATION = re.compile(r"(\d+(?:\.\d+)?) ?(s|m|min|h|d)?")

_RANGE = re.compile(r"(\d+)(?:-(\d+))?")


def parse_duration(option: str, text: str) -> float:
    """Parse a duration into seconds: `90`, `90s`, `30m`, `2h`, `1d`.

    Raises:
        ConfigError: the text is not a duration.
    """
    match = _DURATION.fullmatch(text.strip().lower())
    if match is None:
        raise ConfigError(
            f"Invalid duration {text!r} for {option}.", hint="Expected 90, 90s, 30m, 2h or 1d."
        )
    return float(match[1]) * _UNITS[match[2] or ""]


def parse_path(text: str) -> Path:
    """Parse a path. `Path("")` would be the current folder, so an empty one is refused.

    Raises:
        BadParameter: the path is empty, as of an unset shell variable.
    """
    if not text:
        raise typer.BadParameter("empty path. Check the shell variable in it.")
    return Path(text)


def parse_number(text: str) -> int | float | None:
    """Parse a number: `2024`, `2.5`; None if the text is not a number."""
    try:
        return int(text) if text.lstrip("-").isdecimal() else float(text)
    except ValueError:
        return None


def parse_time(what: str, text: str) -> datetime:
    """Parse a date or time: `2024-12-31`, `2024-12-31T18:00+01:00`; UTC without an offset.

    Raises:
        ConfigError: the text is neither.
    """
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            f"Invalid time {text!r} for {what}.",
            hint="Expected 2024-12-31 or 2024-12-31T18:00+01:00.",
        ) from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def parse_range(option: str, text: str) -> int | tuple[int, int]:
    """Parse a number or a range: `4`, `2-16`.

    Raises:
        ConfigError: the text is neither.
    """
    match = _RANGE.fullmatch(text.strip())
    low, high = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= low <= high:
        raise ConfigError(
            f"Invalid value {text!r} for {option}.",
            hint="Expected a number of at least 1, or a range like 2-16.",
        )
    return (low, high) if match and match[2] else low


def parse_pairs(option: str, pairs: Sequence[str]) -> dict[str, object]:
    """Parse pairs of a name and a text (`team=infra`) or a number (`year:=2024`).

    Raises:
        ConfigError: a pair is malformed, or a name is given twice.
    """
    read: dict[str, object] = {}
    for pair in pairs:
        name, value = _parse_pair(option, pair)
        if name in read:
            raise ConfigError(f"{option} sets {name!r} twice.", hint="Set each field once.")
        read[name] = value
    return read


def _parse_pair(option: str, pair: str) -> tuple[str, str | int | float]:
    name, equals, text = pair.partition("=")
    numeric = name.endswith(":")
    name = name.removesuffix(":").strip()
    if not equals or not name:
        raise ConfigError(
            f"Invalid pair {pair!r} for {option}.", hint="Expected NAME=TEXT or NAME:=NUMBER."
        )
    return name, _parse_json_number(option, name, text) if numeric else text


def _parse_json_number(option: str, name: str, text: str) -> int | float:
    try:
        value = json.loads(text, parse_constant=lambda _: None)
    except ValueError:
        value = None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(
            f"Invalid number {text!r} for {name!r} ({option}).",
            hint=f"Write {name}={text} to set a text.",
        )
    return value


DocumentStatusName = Literal[
    "queuing", "indexing", "paused", "error", "available", "disabled", "archived"
]

DatasetOption = Annotated[
    str, typer.Option("--dataset", metavar="NAME|ID", help="Name or id of the dataset.")
]
DocumentOption = Annotated[
    str, typer.Option("--document", metavar="NAME|ID", help="Name or id of the document.")
]
SegmentOption = Annotated[str, typer.Option("--segment", metavar="ID", help="Id of the chunk.")]

DocumentArguments = Annotated[
    list[str] | None, typer.Argument(metavar="NAME|ID", help="Names or ids of documents.")
]
NamePatternOption = Annotated[
    str | None, typer.Option("--name", metavar="GLOB", help="Only documents whose name matches.")
]
StatusOption = Annotated[
    DocumentStatusName | None, typer.Option("--status", help="Only documents with this status.")
]
FilterOption = Annotated[
    list[str] | None,
    typer.Option(
        "--filter",
        metavar="CONDITION",
        help="Only documents whose metadata matches, e.g. 'year >= 2024'; repeatable (all must"
        " match).",
    ),
]
AllOption = Annotated[bool, typer.Option("--all", help="All documents of the dataset.")]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Change nothing; print what would be done.")
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Delete without confirmation.")]
HostOption = Annotated[
    str, typer.Option(metavar="HOST", help="Address to listen on; 0.0.0.0 for all interfaces.")
]
PortOption = Annotated[
    int, typer.Option(metavar="PORT", help="Port to listen on; 0 chooses a free port.")
]


ChunkingMode = Literal["automatic", "custom"]


def parse_process_rule(
    mode: ChunkingMode | None, size: int | None, overlap: int | None, separator: str | None
) -> ProcessRule | None:
    """Return the chunking rule of the options; None for that of the dataset.

    Raises:
        ConfigError: the options exclude each other, or are out of range.
    """
    given = {"--chunk-size": size, "--chunk-overlap": overlap, "--separator": separator}
    custom = [option for option, value in given.items() if value is not None]
    if mode == "automatic":
        if custom:
            raise ConfigError(
                f"{custom[0]} cannot be used with --mode automatic.", hint="Remove one of them."
            )
        return dify_kb.ProcessRule.automatic()
    if mode is None and not custom:
        return None
    size = 500 if size is None else size
    return dify_kb.ProcessRule.custom(
        max_tokens=size,
        chunk_overlap=min(50, size // 10) if overlap is None else overlap,
        separator="\n" if separator is None else _unescape(separator),
    )


def _unescape(separator: str) -> str:
    return separator.replace("\\n", "\n").replace("\\t", "\t")
