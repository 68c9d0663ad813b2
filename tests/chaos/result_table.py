"""The table that `poe chaos` prints at its end: a row per seed, and the totals.

`poe chaos` sets CHAOS=long: 20 seeds instead of one, and dozens of kills. `CHAOS_SEED=17` starts at
another seed, for example to repeat a failed seed: the same seed causes the same faults in the same
order of calls.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final, Self

import attrs
from attrs import frozen

from dify_kb.emulator import LoadCheck

LONG: Final = os.environ.get("CHAOS") == "long"

FIRST_SEED: Final = int(os.environ.get("CHAOS_SEED", "1"))

ROWS: Final[list[ResultRow]] = []


@frozen(kw_only=True)
class ResultRow:
    """The result of one seed."""

    name: str
    seed: int = 0
    files: int = 0
    kills: int = 0
    faults: int = 0
    lost: int = 0
    doubled: int = 0
    twins: int = 0
    reposted: int = 0
    false: int = 0
    extra: int = 0
    seconds: float = 0.0

    @classmethod
    def from_check(cls, verdict: LoadCheck, false: Sequence[str], *, name: str) -> Self:
        """Create a row with the counts of a load check."""
        return cls(
            name=name,
            lost=len(verdict.lost),
            doubled=len({*verdict.doubled_chunks, *verdict.overlapped}),
            twins=len(verdict.duplicates),
            reposted=len(verdict.reposted),
            false=len(false),
            extra=sum(verdict.extra_creates.values()),
        )


def add_row(row: ResultRow) -> None:
    """Add a row to the table."""
    ROWS.append(row)


def render_table() -> list[str]:
    """Return the lines of the table, with the totals last."""
    names = [one.name for one in attrs.fields(ResultRow)]
    lines = [_format_line(names)]
    lines += [_format_line([_format_value(value) for value in attrs.astuple(row)]) for row in ROWS]
    sums = [sum(getattr(row, name) for row in ROWS) for name in names[2:]]
    return [
        *lines,
        _format_line([f"{len(ROWS)} runs", "", *(_format_value(value) for value in sums)]),
    ]


def _format_value(value: object) -> str:
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def _format_line(values: Sequence[str]) -> str:
    return f"{values[0]:<24}" + "".join(f"{value:>9}" for value in values[1:])
