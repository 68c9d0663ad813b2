"""The program: its options, the table of its commands, and one way to run them."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from attrs import frozen
from typer.core import TyperCommand, TyperGroup
from typer.main import get_group

from dify_kb.errors import ConfigError, KnowledgeError

from . import exit_codes, option_types, output
from .run_command import CommandContext, Invocation

if TYPE_CHECKING:
    from ssl import SSLContext

    from dify_kb import Policy

PROGRAM_OPTIONS = {
    **dict.fromkeys(("--url", "--api-key", "--header", "--proxy", "--ca"), 1),
    **dict.fromkeys(("--trust-env", "--json", "-q", "--quiet", "-v", "--verbose"), 0),
}
"""Options of the program and how many values each takes."""


@frozen
class CommandEntry:
    """Where a command is defined, and its line in the help of the program."""

    module: str
    """Defines a function of this name, or the `Typer` of a group of commands."""

    summary: str


COMMANDS: Mapping[str, CommandEntry] = {
    "doctor": CommandEntry("doctor", "Check address, key, version and models."),
    "emulator": CommandEntry("emulator", "Run the embedded Dify-compatible server until Ctrl-C."),
    "eval": CommandEntry("evaluate", "Measure how well retrieval finds what is known to be there."),
    "load": CommandEntry("load", "Load folders of files into a dataset."),
    "search": CommandEntry("search", "Search a dataset and show the passages, the best first."),
    "stats": CommandEntry("stats", "Count documents, words, chunks, errors, and what is stuck."),
    "bench": CommandEntry("bench", "Measure how fast an instance is."),
    "datasets": CommandEntry("datasets", "Knowledge bases."),
    "documents": CommandEntry("documents", "The documents of a dataset."),
    "child-chunks": CommandEntry("child_chunks", "The child chunks of a chunk."),
    "external": CommandEntry(
        "external", "Serve a folder as an external knowledge base of Dify, or check such a server."
    ),
    "journal": CommandEntry("journal", "Show and export the journals of loads."),
    "metadata": CommandEntry("metadata", "Metadata fields, and their values on documents."),
    "models": CommandEntry("models", "The models that the workspace offers."),
    "segments": CommandEntry("segments", "The chunks of a document."),
    "tags": CommandEntry("tags", "Tags of datasets; since Dify 1.4.2."),
}
"""All commands, in the order of the help."""


class CommandTable(TyperGroup):
    """Imports the module of a command only when it is run."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Replace the command's entry in the help by the command itself."""
        name, entry, rest = super().resolve_command(ctx, args)
        return name, None if entry is None else _load_command(name), rest


app = typer.Typer(
    cls=CommandTable,
    name="dify-kb",
    help="Load thousands of files into the knowledge bases of your own Dify, and search them.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
)


@app.callback()
def _set_global_options(
    context: typer.Context,
    url: Annotated[
        str | None,
        typer.Option(
            envvar="DIFY_BASE_URL",
            help="Address of the Dify API, or emulator:PATH for the embedded server.",
        ),
    ] = None,
    api_key: Annotated[
        str | None, typer.Option(help="Knowledge key (dataset-…); else DIFY_API_KEY is read.")
    ] = None,
    header: Annotated[
        list[str] | None, typer.Option(metavar="NAME:VALUE", help="Sent with every request.")
    ] = None,
    proxy: Annotated[str | None, typer.Option(help="Address of an HTTP proxy.")] = None,
    trust_env: Annotated[
        bool, typer.Option("--trust-env", help="Use the proxies of the environment.")
    ] = False,
    ca: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="CA certificates (PEM) to trust.", parser=option_types.parse_path
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Write JSON Lines on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Tell each retry.")] = False,
) -> None:
    if verbose:
        logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    context.obj = CommandContext(
        url=url,
        api_key=api_key,
        headers=dict(_parse_header(text) for text in header or ()),
        proxy=proxy,
        trust_env=trust_env,
        ssl=None if ca is None else _load_ca_file(ca),
        json=json,
        quiet=quiet,
        verbose=verbose,
        invocation=context.obj,
    )


def run(arguments: Sequence[str], *, policy: Policy | None = None) -> int:
    """Run the program and give its exit code."""
    invocation = Invocation(arguments=tuple(arguments), policy=policy)
    if sys.stdin is None:
        # uvloop aborts the process where a socket gets the number of standard input.
        os.open(os.devnull, os.O_RDONLY)
    try:
        with exit_codes.print_warnings():
            _build_program()(hoist_program_options(arguments), prog_name="dify-kb", obj=invocation)
    except KnowledgeError as error:
        code = exit_codes.exit_code_for(error)
        output.print_error(error)
        if "--json" in arguments:
            output.print_json(
                {"type": "error", "error": error.summary, "hint": error.hint, "exit": code}
            )
        return code
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else exit_codes.GENERAL_ERROR
    return 0


@cache
def _build_program() -> TyperGroup:
    """Put the program together. Commands are loaded as they are run; help needs their names."""
    program = get_group(app)
    for name, entry in COMMANDS.items():
        program.add_command(TyperCommand(name, help=entry.summary))
    return program


@cache
def _load_command(name: str) -> Any:
    """Import the module of a command."""
    entry = COMMANDS[name]
    target = getattr(import_module(f".{entry.module}", __package__), entry.module)
    parent = typer.Typer(rich_markup_mode=None)
    if isinstance(target, typer.Typer):
        parent.add_typer(target, name=name)
    else:
        parent.command(name)(target)
    return get_group(parent).commands[name]


def hoist_program_options(arguments: Sequence[str]) -> list[str]:
    """Let the options of the program stand behind the command as well."""
    program: list[str] = []
    command: list[str] = []
    remaining = list(arguments)
    while remaining:
        word = remaining.pop(0)
        if word == "--":
            return [*program, *command, word, *remaining]
        name, equals, _ = word.partition("=")
        value_count = PROGRAM_OPTIONS.get(name, -1)
        if value_count < 0:
            command.append(word)
        else:
            program += [word, *(remaining[:value_count] if not equals else [])]
            remaining = remaining if equals else remaining[value_count:]
    return [*program, *command]


def _parse_header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise ConfigError(f"--header is {text!r}.", hint="Write NAME:VALUE.")
    return name.strip(), value.strip()


def _load_ca_file(file: Path) -> SSLContext:
    from ssl import SSLError, create_default_context

    try:
        return create_default_context(cafile=file)
    except (OSError, SSLError) as error:
        raise ConfigError(
            f"--ca is {file}, which holds no certificates ({error.strerror or error}).",
            hint="Name a PEM file.",
        ) from error
