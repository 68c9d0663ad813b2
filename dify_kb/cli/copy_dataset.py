from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Annotated

import typer

from . import completion, name_lookup
from .export import FilesOption, FullOption
from .import_archive import ModelOption, OnExistingOption, RecutOption
from .operands import parse_operand
from .run_command import CommandContext


def copy_dataset(
    context: typer.Context,
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="Name or id of a dataset, or PROFILE:NAME.",
            autocompletion=completion.complete_dataset,
        ),
    ],
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="Name or id of the copy, or PROFILE:NAME; created if it does not exist.",
            autocompletion=completion.complete_dataset,
        ),
    ],
    on_existing: OnExistingOption = "fail",
    recut: RecutOption = False,
    embedding: ModelOption = None,
    without_files: FilesOption = False,
    full: FullOption = False,
) -> None:
    """Copy a dataset to another server, or under another name.

    Profiles select the servers: `dify-kb copy dev:Handbook prod:Handbook`. The same copy again
    reads and sends only what changed, and continues after an interruption.
    """
    from . import archive_output
    from .datasets import parse_model

    command: CommandContext = context.obj
    first, second = parse_operand(source), parse_operand(target)
    name = second.dataset or ""
    is_id = name_lookup.is_id(name)
    model = parse_model(embedding) or None

    async def main() -> int:
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(first.create_client(command))
            other = (
                client
                if first.profile == second.profile
                else await stack.enter_async_context(second.create_client(command))
            )
            report = await client.copy(
                await first.find_dataset(client),
                other,
                name=None if is_id else name,
                target_id=name if is_id else None,
                on_existing=on_existing,
                recut=recut,
                embedding=model,
                files=not without_files,
                full=full,
                on_event=archive_output.ArchiveProgressPrinter(),
            )
        exported, imported = report.exported, report.imported

        def print_lines() -> None:
            archive_output.print_export(exported)
            if imported is not None:
                archive_output.print_import(imported)

        archive_output.print_report(report, print_lines, json=command.json)
        return report.exit_code

    command.run(main, interrupt_message="Run the same command again to continue the copy.")
