"""Parse the chunking options of the command line into a process rule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import dify_kb
from dify_kb.errors import ConfigError

if TYPE_CHECKING:
    from dify_kb import ProcessRule

Mode = Literal["automatic", "custom"]


def process_rule(
    mode: Mode | None, size: int | None, overlap: int | None, separator: str | None
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
        separator="\n" if separator is None else _unescaped(separator),
    )


def _unescaped(separator: str) -> str:
    return separator.replace("\\n", "\n").replace("\\t", "\t")
