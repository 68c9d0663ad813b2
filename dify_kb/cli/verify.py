from __future__ import annotations

from typing import Annotated

import attrs
import typer

from .export import ArchiveArgument
from .operands import Operand, parse_operand
from .run_command import CommandContext


def verify(
    context: typer.Context,
    archive: ArchiveArgument,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|ID", help="Also compare the archive with this dataset, or PROFILE:NAME."
        ),
    ] = None,
) -> None:
    """Verify an archive by its checksums.

    Reads every member; sends no request without --against.

    Exit codes: 0 complete and undamaged, 1 damaged, incomplete, or different from --against.
    """
    import anyio.to_thread

    from dify_kb.archive import verify_archive

    from . import archive_output
    from .compare import compare_operands

    command: CommandContext = context.obj
    other = None if against is None else parse_operand(against)

    async def main() -> int:
        report = await anyio.to_thread.run_sync(verify_archive, archive)
        if report and other is not None:
            operand = Operand(text=str(archive), path=archive)
            comparison = await compare_operands(command, operand, other)
            report = attrs.evolve(report, comparison=comparison)
        archive_output.print_report(
            report, lambda: archive_output.print_verification(report), json=command.json
        )
        return report.exit_code

    command.run(main)
