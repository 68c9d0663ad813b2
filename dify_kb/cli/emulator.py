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
    host: option_types.HostOption = "127.0.0.1",
    port: option_types.PortOption = 5001,
    db: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="SQLite file with the server's data; default: in memory.",
            parser=option_types.parse_path,
        ),
    ] = None,
    server_version: Annotated[
        str,
        typer.Option(
            metavar="VERSION", help="Dify version to emulate: 1.4.3, 1.8.1, 1.12.1, 1.14.2 or 1.16."
        ),
    ] = "1.16",
    faults: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|-|JSON",
            help='Faults to inject, e.g. {"documents.create_by_file": ["503 x3"]}.',
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
            f"Emulating Dify {server_version}; press Ctrl-C to stop.\n"
            f"  export DIFY_BASE_URL={url}\n"
            f"  export DIFY_API_KEY={server.api_key}"
        )

    async def main() -> int:
        await serve(server, announce)
        return 0

    command.run(main)


def _read_fault_plans(argument: str) -> dict[str, object]:
    """Parse fault plans: JSON in the argument, in a file, or on standard input (`-`).

    Raises:
        ConfigError: the file cannot be read, or does not contain JSON.
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
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"Cannot read fault plans from {argument!r}: {reason}.",
            hint="Pass a JSON file, JSON text, or - for standard input.",
        ) from error
    return plans
