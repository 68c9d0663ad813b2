"""The commands put together, and one way to run them."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import Annotated, Any

import anyio
import typer
from attrs import frozen

from dify_kb import AsyncClient
from dify_kb.errors import KnowledgeError

from . import exits, show

GLOBAL = {"--url": 1, "--api-key": 1, "--json": 0, "-q": 0, "--quiet": 0, "-v": 0, "--verbose": 0}
"""Options of the program and how many values each takes."""

app = typer.Typer(
    name="dify-kb",
    help="Load thousands of files into the knowledge bases of your own Dify, and search them.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
)


@frozen
class Session:
    """What the program was told before the command."""

    url: str | None
    api_key: str | None
    json: bool
    quiet: bool
    verbose: bool

    def client(self, *, concurrency: int | None = None) -> AsyncClient:
        """Make a client of the server that was named, not open yet."""
        return AsyncClient(self.url, self.api_key, concurrency=concurrency)

    def run(self, main: Callable[[], Coroutine[Any, Any, int]]) -> None:
        """Run a command in a loop and end with its exit code.

        Raises:
            typer.Exit: with the code.
        """
        with exits.terminated() as met:
            try:
                code = anyio.run(main, backend_options={"use_uvloop": _has_uvloop()})
            except KeyboardInterrupt:
                code = exits.TERMINATED if met.is_set() else exits.INTERRUPTED
                show.err.print("Interrupted.")
        raise typer.Exit(code)


@app.callback()
def _program(
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
    json: Annotated[bool, typer.Option("--json", help="Write JSON Lines on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Tell each retry.")] = False,
) -> None:
    if verbose:
        logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    context.obj = Session(url, api_key, json, quiet, verbose)


def run(arguments: Sequence[str]) -> int:
    """Run the program and give its exit code."""
    from . import datasets, doctor, documents, emulator, load, search  # noqa: F401 -- they register

    try:
        app(hoisted(arguments), prog_name="dify-kb")
    except KnowledgeError as error:
        code = exits.exit_code(error)
        show.failure(error)
        if "--json" in arguments:
            show.line({"type": "error", "error": error.summary, "hint": error.hint, "exit": code})
        return code
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else exits.ERROR
    return 0


def hoisted(arguments: Sequence[str]) -> list[str]:
    """Let the options of the program stand behind the command as well."""
    program: list[str] = []
    command: list[str] = []
    left = list(arguments)
    while left:
        word = left.pop(0)
        if word == "--":
            return [*program, *command, word, *left]
        name, equals, _ = word.partition("=")
        takes = GLOBAL.get(name, -1)
        if takes < 0:
            command.append(word)
        else:
            program += [word, *(left[:takes] if not equals else [])]
            left = left if equals else left[takes:]
    return [*program, *command]


def _has_uvloop() -> bool:
    try:
        import uvloop  # noqa: F401 -- asked for by anyio
    except ImportError:
        return False
    return True
