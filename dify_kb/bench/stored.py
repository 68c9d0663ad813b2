"""Reports as JSON files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, cast

from dify_kb.errors import ConfigError
from dify_kb.wire import codec

from .quality.report import QualityReport
from .report import FORMAT, InstanceReport

if TYPE_CHECKING:
    from pathlib import Path

Report = InstanceReport | QualityReport

SHAPES: dict[object, type[Report]] = {"bench": InstanceReport, "eval": QualityReport}


def dumped(report: Report) -> str:
    """Write a report as one line of JSON."""
    return json.dumps(codec.fields(report), ensure_ascii=True)


def loaded(file: Path) -> Report:
    """Read a report: the last one in a file of JSON Lines.

    Raises:
        ConfigError: there is none that this version reads.
    """
    try:
        values = [_value(line) for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read ({error}).", hint="Name a report.") from error
    reports = [value for value in values if value.get("type") in SHAPES]
    if not reports:
        raise ConfigError(
            f"{file} holds no report.", hint="`dify-kb bench --save FILE` writes one; so does eval."
        )
    if reports[-1].get("format") != FORMAT:
        raise ConfigError(
            f"{file} holds a report of format {reports[-1].get('format')!r}, not {FORMAT}.",
            hint="Read it with the version of dify-kb that wrote it, or measure again.",
        )
    try:
        return codec.decode(SHAPES[reports[-1]["type"]], reports[-1])
    except codec.DecodeError as error:
        raise ConfigError(
            f"{file} holds a report that cannot be read: {error}.", hint="Measure again."
        ) from error


def _value(line: str) -> dict[str, object]:
    try:
        value = json.loads(line)
    except ValueError:
        return {}
    return cast("dict[str, object]", value) if isinstance(value, dict) else {}
