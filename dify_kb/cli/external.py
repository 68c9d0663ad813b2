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
"""The variable that a key is read from; a command line is seen by all users of a machine."""

external = typer.Typer(
    help="Serve a folder as an external knowledge base of Dify, or check such a server.",
    no_args_is_help=True,
)

ApiKeyOption = Annotated[
    str | None,
    typer.Option(metavar="KEY", help=f"What Dify sends as its API key; else {API_KEY_VARIABLE}."),
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
        str | None, typer.Option(help="Its id in Dify; the folder's name unless told.")
    ] = None,
    api_key: ApiKeyOption = None,
    host: Annotated[
        str, typer.Option(help="Address to listen at; 0.0.0.0 for all, as Dify in Docker needs.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen at; 0 takes a free one.")] = 5002,
    index: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="SQLite file of the index; default: in the user's cache folder.",
            parser=option_types.parse_path,
        ),
    ] = None,
) -> None:
    """Serve a folder to Dify until Ctrl-C, and keep up with its changes."""
    from dify_kb.external import FolderRetriever, create_app, serve

    command: CommandContext = context.obj
    configured_key = _resolve_key(command, api_key)
    key = configured_key or secrets.token_urlsafe(24)
    knowledge_name = knowledge_id or folder.resolve().name or "folder"
    retriever = FolderRetriever(folder, index=index)
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
                f"{counts.files:,} files in {counts.passages:,} passages are served;"
                f" Ctrl-C ends it.\n{_describe_settings(url, configured_key, key, knowledge_name)}"
            )
            await anyio.sleep_forever()
        return 0

    command.run(main)


@external.command()
def check(
    context: typer.Context,
    url: Annotated[str, typer.Argument(help="API endpoint as in Dify, without /retrieval.")],
    api_key: ApiKeyOption = None,
    knowledge_id: Annotated[
        str | None, typer.Option(help="External knowledge ID as in Dify.")
    ] = None,
    query: Annotated[
        str | None, typer.Option(help="A question that finds something, to see records.")
    ] = None,
) -> None:
    """Ask a server as Dify does, and tell what Dify would think of it.

    Some fifteen requests that only read. Exit code 0 means that Dify would be content.
    """
    from dify_kb.external import DEFAULT_QUERY
    from dify_kb.external import check as check_server

    command: CommandContext = context.obj
    key = _resolve_key(command, api_key)
    if not key or not knowledge_id:
        raise ConfigError(
            f"{'--api-key' if not key else '--knowledge-id'} is missing.",
            hint="Dify insists on both; give those that are to be entered there.",
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
            verdict = "would not be content" if failed else "would be content"
            output.err.print(f"Dify {verdict} with this server.")
        return exit_codes.GENERAL_ERROR if failed else 0

    command.run(main)


def _describe_settings(url: str, configured_key: str | None, key: str, knowledge_id: str) -> str:
    """Tell what is to be entered in Dify."""
    displayed = (
        "the one that was given"
        if configured_key
        else f"{key}  (another one each time; set {API_KEY_VARIABLE})"
    )
    return (
        f"  API endpoint           {url}\n"
        f"  API key                {displayed}\n"
        f"  External knowledge ID  {output.escape(knowledge_id)}"
    )


def _resolve_key(command: CommandContext, configured_key: str | None) -> str | None:
    """Take the key of the command line, on which it may stand anywhere, or of the environment."""
    return configured_key or command.api_key or os.environ.get(API_KEY_VARIABLE) or None


def _log_to_stderr() -> None:
    """Let people see what goes wrong while nobody is there."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
