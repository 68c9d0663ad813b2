from __future__ import annotations

import logging
import os
import secrets
import sys
from pathlib import Path
from typing import Annotated

import anyio
import typer
from attrs import asdict

from dify_kb.errors import ConfigError

from . import exit_codes, option_types, output
from .output import DiagnosticCheck
from .run_command import CommandContext

API_KEY_VARIABLE = "DIFY_EXTERNAL_API_KEY"
"""The environment variable of the key: all users of a machine can see a command line."""

external = typer.Typer(
    help="Serve or check an external knowledge base.",
    no_args_is_help=True,
)

ApiKeyOption = Annotated[
    str | None,
    typer.Option(metavar="KEY", help=f"API key that Dify sends; default: {API_KEY_VARIABLE}."),
]


@external.command()
def serve(
    context: typer.Context,
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER", help="Folder with the documents.", parser=option_types.parse_path
        ),
    ],
    knowledge_id: Annotated[
        str | None,
        typer.Option(
            metavar="ID", help="External knowledge ID in Dify; default: the folder's name."
        ),
    ] = None,
    api_key: ApiKeyOption = None,
    host: option_types.HostOption = "127.0.0.1",
    port: option_types.PortOption = 5002,
    db: Annotated[
        Path | None,
        typer.Option(
            "--db",
            metavar="FILE",
            help="SQLite file of the index; default: one per folder in ~/.cache/dify-kb.",
            parser=option_types.parse_path,
        ),
    ] = None,
) -> None:
    """Serve a folder as an external knowledge base until Ctrl-C.

    Changes of its files are indexed within seconds. Dify in Docker needs --host 0.0.0.0. Without
    --api-key and the environment variable a new key is generated at each start.
    """
    from dify_kb.external import FolderRetriever, create_app, serve

    command: CommandContext = context.obj
    configured_key = _resolve_key(command, api_key)
    key = configured_key or secrets.token_urlsafe(24)
    knowledge_name = knowledge_id or folder.resolve().name or "folder"
    retriever = FolderRetriever(folder, index=db)
    server = create_app({knowledge_name: retriever}, api_keys=key)
    _log_to_stderr()

    async def main() -> int:
        async with serve(server, host, port) as url:
            counts = retriever.counts
            if command.json:
                fields = {
                    "url": url,
                    "knowledge_id": knowledge_name,
                    "api_key": None if configured_key else key,
                }
                output.print_json({"type": "external", **fields, "files": counts.files})
            output.err.print(
                f"Serving {counts.files:,} files ({counts.passages:,} passages); press Ctrl-C to"
                f" stop.\n{_describe_settings(url, configured_key, key, knowledge_name)}"
            )
            await anyio.sleep_forever()
        return 0

    command.run(main)


@external.command()
def check(
    context: typer.Context,
    url: Annotated[
        str,
        typer.Argument(metavar="URL", help="API endpoint in Dify, without /retrieval."),
    ],
    api_key: ApiKeyOption = None,
    knowledge_id: Annotated[
        str | None, typer.Option(metavar="ID", help="External knowledge ID in Dify.")
    ] = None,
    query: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Query that has results, to check their records."),
    ] = None,
) -> None:
    """Check whether a server works as an external knowledge base.

    Sends some fifteen read requests as Dify does. Exit code 0 if Dify would accept the responses.
    """
    from dify_kb.external import DEFAULT_QUERY
    from dify_kb.external import check as check_server

    command: CommandContext = context.obj
    key = _resolve_key(command, api_key)
    if not key or not knowledge_id:
        raise ConfigError(
            f"Missing option {'--api-key' if not key else '--knowledge-id'}.",
            hint="Pass the API key and the external knowledge ID that you enter in Dify.",
        )

    async def main() -> int:
        failed = False
        findings = check_server(
            url, api_key=key, knowledge_id=knowledge_id, query=query or DEFAULT_QUERY
        )
        async for finding in findings:
            output.print_check(DiagnosticCheck(**asdict(finding)), json=command.json)
            failed |= finding.status == "failed"
        if not command.json:
            verdict = "does not work" if failed else "works"
            output.err.print(f"This server {verdict} as an external knowledge base of Dify.")
        return exit_codes.GENERAL_ERROR if failed else 0

    command.run(main)


def _describe_settings(url: str, configured_key: str | None, key: str, knowledge_id: str) -> str:
    """Return the settings to enter in Dify."""
    displayed = (
        "as configured"
        if configured_key
        else f"{key}  (new at each start; set {API_KEY_VARIABLE} to keep one)"
    )
    return (
        f"  API endpoint           {url}\n"
        f"  API key                {displayed}\n"
        f"  External knowledge ID  {output.escape(knowledge_id)}"
    )


def _resolve_key(command: CommandContext, configured_key: str | None) -> str | None:
    """Return the key of --api-key, before or after the command, or of the environment."""
    return configured_key or command.api_key or os.environ.get(API_KEY_VARIABLE) or None


def _log_to_stderr() -> None:
    """Log warnings of the server on stderr."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
