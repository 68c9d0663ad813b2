from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from dify_kb.errors import ConfigError

from . import option_types, output
from .run_command import CommandContext


def emulator(
    context: typer.Context,
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen at; 0 takes a free one.")] = 5001,
    db: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="SQLite file of the server; default: in memory.",
            parser=option_types.parse_path,
        ),
    ] = None,
    server_version: Annotated[str, typer.Option(help="The Dify version to behave like.")] = "1.16",
    faults: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|-|JSON",
            help='Failures to plan, e.g. {"documents.create_by_file": ["503 x3"]}.',
        ),
    ] = None,
) -> None:
    """Run the embedded Dify-compatible server until Ctrl-C."""
    from dify_kb.emulator import Emulator, serve

    command: CommandContext = context.obj
    server = Emulator(db, version=server_version, host=host, port=port)
    if faults is not None:
        server.faults.load(_read_fault_plans(faults))

    def announce(url: str) -> None:
        if command.json:
            output.print_json({"type": "emulator", "url": url, "api_key": server.api_key})
        output.err.print(
            f"A server like Dify {server_version} listens; Ctrl-C ends it.\n"
            f"  export DIFY_BASE_URL={url}\n"
            f"  export DIFY_API_KEY={server.api_key}"
        )

    async def main() -> int:
        await serve(server, announce)
        return 0

    command.run(main)


def _read_fault_plans(argument: str) -> dict[str, object]:
    """Read plans from standard input, from an argument that is JSON, or from a file.

    Raises:
        ConfigError: there is no such file, or no JSON in it.
    """
    try:
        if argument == "-":
            text = sys.stdin.read()
        else:
            text = (
                argument if argument.lstrip().startswith("{") else Path(argument).read_text("utf-8")
            )
        plans: dict[str, object] = json.loads(text)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"--faults {argument} cannot be read: {error}.",
            hint="Name a file of JSON, or write the JSON itself, or - for standard input.",
        ) from error
    return plans
