"""Parse option values: durations, ranges, paths, key=value pairs."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

import dify_kb
from dify_kb import profiles
from dify_kb.errors import ConfigError

from . import completion

if TYPE_CHECKING:
    from dify_kb import MetadataSource, ProcessRule

Technique = Literal["economy", "high_quality"]

# Values of enumerations whose modules take too long to import for a line of help.
OnExisting = Literal["overwrite", "skip", "fail"]
OnError = Literal["collect", "stop"]
Replace = Literal["in_place", "swap"]
WaitFor = Literal["accepted", "indexed", "verified"]
JournalStateName = Literal[
    "pending", "unknown", "accepted", "loaded", "failed", "stalled", "emptied", "trashed"
]


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


_RANGE = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?")

MAX_CONCURRENCY = 1000
"""The largest number of concurrent requests."""

MIN_CHUNK_SIZE, MAX_CHUNK_SIZE = 50, 4000
"""The chunk sizes in characters that servers accept, as in `dify_kb.models.process_rule`."""

MAX_NUMBER = 1e300
"""The largest number of a metadata value; JSON readers turn larger ones into infinity."""


def parse_path(text: str) -> Path:
    """Parse a path. `Path("")` would be the current folder, so an empty one is refused.

    Raises:
        BadParameter: the path is empty, as of an unset shell variable.
    """
    if not text:
        raise typer.BadParameter("empty path. Check the shell variable in it.")
    return Path(text)


def parse_source(text: str) -> str:
    """Parse a path or a URL to load.

    Raises:
        BadParameter: it is empty.
    """
    return text if "://" in text else str(parse_path(text))


def parse_number(text: str) -> int | float | None:
    """Parse a number: `2024`, `2.5`; None if the text is not a number."""
    try:
        number = int(text) if text.lstrip("-").isdecimal() else float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def parse_range(option: str, text: str) -> int | tuple[int, int]:
    """Parse a number or a range: `4`, `2-16`.

    Raises:
        ConfigError: the text is neither.
    """
    match = _RANGE.fullmatch(text.strip())
    low, high = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= low <= high <= MAX_CONCURRENCY:
        raise ConfigError(
            f"Invalid value {text!r} for {option}.",
            hint=f"Pass a number from 1 to {MAX_CONCURRENCY}, or a range like 2-16.",
        )
    return (low, high) if match and match[2] else low


def parse_pairs(option: str, pairs: Sequence[str]) -> dict[str, str | int | float]:
    """Parse pairs of a name and a text (`team=infra`) or JSON (`year:=2024`).

    Raises:
        ConfigError: a pair is malformed, or a name is given twice.
    """
    read: dict[str, str | int | float] = {}
    for pair in pairs:
        name, value = _parse_pair(option, pair)
        if name in read:
            raise ConfigError(f"{option} sets {name!r} twice.", hint="Set each field once.")
        read[name] = value
    return read


def parse_metadata_sources(
    sources: Sequence[str],
    keep_front_matter: bool,
) -> list[MetadataSource]:
    """Parse sources of metadata: `auto`, `path:{team}/**`, `table:meta.csv`.

    Raises:
        ConfigError: a source is unknown, its argument is missing, or its pattern is invalid.
    """
    if keep_front_matter and "front-matter" not in sources:
        raise ConfigError(
            "--keep-front-matter requires --metadata-from front-matter.",
            hint="Pass --metadata-from front-matter, too.",
        )
    return [_parse_metadata_source(source, keep_front_matter) for source in sources]


def _parse_metadata_source(source: str, keep_front_matter: bool) -> MetadataSource:
    name, _, argument = source.partition(":")
    match name, argument:
        case "auto", "":
            return dify_kb.Auto()
        case "path", _ if argument:
            return dify_kb.PathPattern(argument)
        case "front-matter", "":
            return dify_kb.FrontMatter(keep=keep_front_matter)
        case "sidecar", "":
            return dify_kb.Sidecar()
        case "table", _ if argument:
            return dify_kb.Table(argument)
        case "mtime", "":
            return dify_kb.FileTimes()
    raise ConfigError(
        f"Invalid source {source!r} for --metadata-from.",
        hint="Pass auto, path:PATTERN, front-matter, sidecar, table:FILE or mtime.",
    )


def _parse_pair(option: str, pair: str) -> tuple[str, str | int | float]:
    name, equals, text = pair.partition("=")
    is_json = name.endswith(":")
    name = name.removesuffix(":").strip()
    if not equals or not name:
        raise ConfigError(
            f"Invalid pair {pair!r} for {option}.",
            hint="Pass NAME=TEXT, or NAME:=JSON for a number.",
        )
    return name, _parse_json_value(option, name, text) if is_json else text


def _parse_json_value(option: str, name: str, text: str) -> str | int | float:
    try:
        value: object = json.loads(text, parse_constant=lambda _: None)
    except ValueError:
        value = None
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MAX_NUMBER:
        return value
    raise ConfigError(
        f"Invalid JSON {text!r} for {name!r} ({option}): expected a number or a string.",
        hint=f"Write {name}={text} to set a text.",
    )


DocumentStatusName = Literal[
    "queuing", "indexing", "paused", "error", "available", "disabled", "archived"
]


def select_dataset(context: typer.Context, value: str) -> str:
    """Return a dataset without its profile, which is selected: `Handbook` for `prod:Handbook`.

    A text before a colon that is not the name of a profile is part of the dataset's name. An empty
    value is the default dataset of the profile.

    Raises:
        ConfigError: there is no dataset, or the profile cannot be used.
    """
    if context.resilient_parsing:
        return value
    name, colon, dataset = value.partition(":")
    if colon and name in profiles.read_profiles().profiles:
        context.obj.select_profile(name)
    else:
        dataset = value
    if not dataset:
        profile = context.obj.find_profile()
        dataset = (profile and profile.dataset) or ""
    if not dataset:
        raise ConfigError(
            "Missing option --dataset.",
            hint=f"Pass --dataset NAME, or set {DATASET_VARIABLE} or the dataset of a profile.",
        )
    context.obj.invocation.dataset = dataset
    return dataset


def select_optional_dataset(context: typer.Context, value: str | None) -> str | None:
    """Return the dataset without its profile, or None if no dataset is given."""
    return None if value is None else select_dataset(context, value)


def select_datasets(context: typer.Context, values: list[str] | None) -> list[str] | None:
    """Return datasets without their profile, which is selected; it must be the same for all."""
    return None if values is None else [select_dataset(context, value) for value in values]


DATASET_VARIABLE = "DIFY_DATASET"

DatasetOption = Annotated[
    str,
    typer.Option(
        "--dataset",
        "-d",
        metavar="NAME|ID",
        help="Name or id of the dataset, or PROFILE:NAME.",
        envvar=DATASET_VARIABLE,
        default_factory=str,
        show_default=False,
        callback=select_dataset,
        autocompletion=completion.complete_dataset,
    ),
]
DatasetArgument = Annotated[
    str,
    typer.Argument(
        metavar="NAME|ID",
        help="Name or id of the dataset, or PROFILE:NAME.",
        callback=select_dataset,
        autocompletion=completion.complete_dataset,
    ),
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
        metavar="COND",
        help="Only documents whose metadata matches, e.g. 'year >= 2024'; repeatable (all must"
        " match).",
    ),
]
AllOption = Annotated[bool, typer.Option("--all", help="All documents of the dataset.")]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Change nothing; print what would be done.")
]
HtmlOption = Annotated[
    Path | None,
    typer.Option(
        "--html",
        metavar="FILE",
        help="Write a report with plots to FILE, as HTML.",
        parser=parse_path,
    ),
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Skip the confirmation.")]
ContainsOption = Annotated[
    str | None, typer.Option("--contains", metavar="TEXT", help="Only chunks with this text.")
]
HostOption = Annotated[
    str, typer.Option(metavar="HOST", help="Address to listen on; 0.0.0.0 for all interfaces.")
]
PortOption = Annotated[
    int,
    typer.Option(
        metavar="PORT", min=0, max=65535, help="Port to listen on; 0 chooses a free port."
    ),
]
MetadataOption = Annotated[
    list[str] | None,
    typer.Option(
        "--metadata",
        metavar="K=V",
        help="Metadata value to set, converted to the type of its field; K:=JSON sets a number in a"
        " new field; repeatable.",
    ),
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
    if overlap is not None and overlap >= size:
        raise ConfigError(
            f"--chunk-overlap {overlap} is not less than --chunk-size {size}.",
            hint=f"Pass 0 to {size - 1}.",
        )
    return dify_kb.ProcessRule.custom(
        max_tokens=size,
        chunk_overlap=min(50, size // 10) if overlap is None else overlap,
        separator="\n" if separator is None else _unescape(separator),
    )


def _unescape(separator: str) -> str:
    return separator.replace("\\n", "\n").replace("\\t", "\t")
