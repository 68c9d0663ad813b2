"""The `dify-kb` program: global options, the table of commands, errors and exit codes."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from attrs import frozen
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_group

from dify_kb.errors import ConfigError, KnowledgeError
from dify_kb.profiles import load_ca_file

from . import completion, exit_codes, option_types, usage_errors
from .command_line import PROGRAM_OPTIONS, hoist_program_options
from .output_streams import guard_output, set_quiet
from .run_command import CommandContext, Invocation

if TYPE_CHECKING:
    from dify_kb import Policy


@frozen
class CommandEntry:
    """The module of a command, and its summary in the program's help."""

    module: str
    """Defines a function of the same name, or the `Typer` of a group of commands."""

    summary: str
    """The first line of the command's own help."""


COMMANDS: Mapping[str, CommandEntry] = {
    "doctor": CommandEntry("doctor", "Check address, key, version, models and limits."),
    "emulator": CommandEntry("emulator", "Run the embedded Dify-compatible server until Ctrl-C."),
    "eval": CommandEntry("evaluate", "Measure retrieval quality with queries of known answers."),
    "load": CommandEntry("load", "Load folders of files into a dataset."),
    "export": CommandEntry("export", "Export a dataset to an archive."),
    "import": CommandEntry(
        "import_archive", "Import an archive: the same documents with exactly the same chunks."
    ),
    "copy": CommandEntry(
        "copy_dataset", "Copy a dataset to another server, or under another name."
    ),
    "verify": CommandEntry("verify", "Verify an archive by its checksums."),
    "sync": CommandEntry(
        "sync", "Sync a dataset with a folder: add, update, rename and delete documents."
    ),
    "diff": CommandEntry(
        "diff", "Show what a sync would change, or compare two datasets or archives."
    ),
    "search": CommandEntry("search", "Search a dataset and print the best passages."),
    "monitor": CommandEntry("monitor", "Follow queue, indexing speed and errors over time."),
    "stats": CommandEntry("stats", "Count documents, chunks, errors and stuck documents."),
    "bench": CommandEntry("bench", "Measure the performance of a Dify server."),
    "datasets": CommandEntry("datasets", "Manage datasets (knowledge bases)."),
    "documents": CommandEntry("documents", "Manage the documents of a dataset."),
    "child-chunks": CommandEntry("child_chunks", "Manage the child chunks of a chunk."),
    "external": CommandEntry("external", "Serve or check an external knowledge base."),
    "journal": CommandEntry("journal", "Show, export and delete the journals of loads."),
    "metadata": CommandEntry("metadata", "Manage metadata fields and their values."),
    "models": CommandEntry("models", "List the models of the workspace."),
    "segments": CommandEntry("segments", "Manage the chunks of a document."),
    "tags": CommandEntry("tags", "Manage tags of datasets (Dify 1.4.2 or later)."),
    "guide": CommandEntry("guide", "Print a guide, or list the guides."),
}
"""All commands, in the order of the program's help."""


class CommandTable(TyperGroup):
    """A group that imports the module of a command only when the command runs."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any
    ) -> Any:
        """Parse the command line; global options may follow the command."""
        if extra.get("resilient_parsing") and args and PROGRAM_OPTIONS.get(args[-1]):
            args = []  # the value of a global option is completed, not that of the command
        return super().make_context(info_name, hoist_program_options(args), parent, **extra)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Replace the entry that the program's help shows with the command itself."""
        name, entry, rest = super().resolve_command(ctx, args)
        return name, None if entry is None else _load_command(name), rest


app = typer.Typer(
    cls=CommandTable,
    name="dify-kb",
    help="Load thousands of files into Dify datasets (knowledge bases), and search them.\n\n"
    "Global options may also follow the command.",
    no_args_is_help=True,
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
            metavar="URL",
            help="Address of the Dify API, or emulator:FILE for the embedded server; default:"
            " DIFY_BASE_URL.",
        ),
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            help="Knowledge API key (dataset-…). Other users can see it in the list of processes;"
            " prefer DIFY_API_KEY or a profile.",
        ),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Server and key from ~/.config/dify-kb/config.toml; default: DIFY_PROFILE.",
            autocompletion=completion.complete_profile,
        ),
    ] = None,
    header: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME:VALUE", help="Header sent with every request; repeatable."),
    ] = None,
    proxy: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Address of an HTTP proxy; default: no proxy."),
    ] = None,
    trust_env: Annotated[
        bool,
        typer.Option(
            "--trust-env", help="Use the proxies set by HTTP_PROXY, HTTPS_PROXY and NO_PROXY."
        ),
    ] = False,
    ca: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="CA certificates (PEM) to trust instead of those of the system; default: ca of the"
            " profile.",
            parser=option_types.parse_path,
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON Lines instead of text.")] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print only results and failures.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Print each retry and each skipped file.")
    ] = False,
    version: Annotated[  # noqa: ARG001 -- its callback exits
        bool,
        typer.Option(
            "--version",
            "-V",
            help="Print the versions of dify-kb and Python.",
            is_eager=True,
            callback=lambda value: _print_version() if value else None,
        ),
    ] = False,
) -> None:
    if verbose:
        logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    context.obj = CommandContext(
        url=url,
        api_key=api_key,
        headers=dict(_parse_header(text) for text in header or ()),
        proxy=proxy,
        trust_env=trust_env,
        ssl=None if ca is None else load_ca_file(ca, "--ca"),
        json=json,
        quiet=quiet,
        verbose=verbose,
        invocation=context.obj,
    )
    set_quiet(quiet=quiet)
    if profile:
        context.obj.select_profile(profile)


def run(arguments: Sequence[str], *, policy: Policy | None = None) -> int:
    """Run the program and return its exit code."""
    with guard_output() as stdout:
        if completion.is_requested():
            return completion.complete(_build_program())
        code = _run(Invocation(arguments=tuple(arguments), policy=policy))
        stdout.flush()
        return stdout.final_exit_code(code)


def _run(invocation: Invocation) -> int:
    arguments = invocation.arguments
    try:
        with exit_codes.print_warnings():
            code: object = _build_program()(
                list(arguments),
                prog_name=completion.PROGRAM,
                standalone_mode=False,
                obj=invocation,
            )
            return code if isinstance(code, int) else 0
    except usage_errors.ParserError as error:
        if usage_errors.is_help(error):
            error.show()  # type: ignore[attr-defined]  # its class is that of typer's version
            return exit_codes.USAGE_ERROR
        return _print_error(invocation, usage_errors.describe_usage_error(error, arguments))
    except KnowledgeError as error:
        return _print_error(invocation, error)
    except (typer.Abort, KeyboardInterrupt):
        return 128 + signal.SIGINT


def _print_error(invocation: Invocation, error: KnowledgeError) -> int:
    from . import output

    code = exit_codes.exit_code_for(error)
    error.hint = invocation.complete_hint(error.hint)
    output.print_error(error)
    if "--json" in invocation.arguments:
        output.print_json(
            {"type": "error", "error": error.summary, "hint": error.hint, "exit": code}
        )
    return code


@cache
def _build_program() -> Any:
    """Build the program. Help needs only names; a command is imported when it runs."""
    program: Any = get_command(app)
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
    command = get_group(parent).commands[name]
    _adapt_command(command)
    return command


def _adapt_command(command: Any) -> None:
    """Complete global options too, and show arguments in the help without their Python types."""
    for subcommand in getattr(command, "commands", {}).values():
        _adapt_command(subcommand)
    complete_options = command.shell_complete

    def shell_complete(context: Any, incomplete: str) -> Any:
        root = context.find_root()
        everywhere = root.command.shell_complete(root, incomplete) if incomplete[:1] == "-" else ()
        own = complete_options(context, incomplete)
        return [*own, *(item for item in everywhere if item.value in PROGRAM_OPTIONS)]

    command.shell_complete = shell_complete
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            parameter.display_type_rich = lambda ctx: ""  # noqa: ARG005 -- typer passes it by name


def _print_version() -> None:
    from importlib.metadata import version
    from platform import platform, python_version

    sys.stdout.write(
        f"{completion.PROGRAM} {version(completion.PROGRAM)}, Python {python_version()},"
        f" {platform()}\n"
    )
    raise typer.Exit


def _parse_header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise ConfigError(f"Invalid header {text!r} for --header.", hint="Pass NAME:VALUE.")
    return name.strip(), value.strip()
