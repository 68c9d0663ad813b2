"""Compare two datasets or archives, for `dify-kb diff` and `dify-kb verify`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from .operands import ARCHIVE_SUFFIXES, parse_operand
from .run_command import CommandContext

if TYPE_CHECKING:
    from dify_kb import CompareReport

    from .operands import Operand


def is_comparison(words: Sequence[str]) -> bool:
    """Return whether words are two datasets or archives, and not sources of a sync."""
    return len(words) == 2 and any(  # noqa: PLR2004 -- two operands
        word.endswith(ARCHIVE_SUFFIXES)
        or (Path(word) / "manifest.json").is_file()
        or not ("://" in word or Path(word).exists())
        for word in words
    )


def run_comparison(command: CommandContext, a: str, b: str) -> None:
    """Compare two operands and exit: 0 if they are equal, 1 if they differ.

    Raises:
        ConfigError: an operand is invalid.
        typer.Exit: with the exit code.
    """
    from . import archive_output

    first, second = parse_operand(a, archives=True), parse_operand(b, archives=True)

    async def main() -> int:
        report = await compare_operands(command, first, second)
        archive_output.print_report(
            report, lambda: archive_output.print_comparison(report), json=command.json
        )
        return report.exit_code

    command.run(main)


async def compare_operands(
    command: CommandContext, first: Operand, second: Operand
) -> CompareReport:
    """Compare two operands; opens a client for each server that is needed."""
    import anyio.to_thread

    from dify_kb.archive import compare_archives

    from . import archive_output

    if first.path is not None and second.path is not None:
        return await anyio.to_thread.run_sync(compare_archives, first.path, second.path)
    show = archive_output.ArchiveProgressPrinter()
    async with AsyncExitStack() as stack:
        clients = {
            operand.profile: await stack.enter_async_context(operand.create_client(command))
            for operand in (first, second)
            if operand.path is None
            and (operand is first or first.path or first.profile != second.profile)
        }
        any_client = next(iter(clients.values()))
        here = any_client if first.path else clients[first.profile]
        there = any_client if second.path else clients[second.profile]
        return await here.compare(
            first.path or await first.find_dataset(here),
            second.path or await second.find_dataset(there),
            target=there,
            on_event=show,
        )
