"""The commands put together, and one way to run them."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import cache
from pathlib import Path
from ssl import SSLContext, SSLError, create_default_context
from typing import Annotated, Any

import anyio
import typer
from attrs import frozen
from typer.main import get_command

from dify_kb import AsyncClient, Attempted, Policy
from dify_kb.errors import ConfigError, KnowledgeError

from . import exits, show, words
from .interrupt import PIPE, Interrupt, caught

GLOBAL = {
    **dict.fromkeys(("--url", "--api-key", "--header", "--proxy", "--ca"), 1),
    **dict.fromkeys(("--trust-env", "--json", "-q", "--quiet", "-v", "--verbose"), 0),
}
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


@frozen(kw_only=True)
class Call:
    """How the program was started."""

    words: Sequence[str]
    """The whole command line, without the name of the program."""

    policy: Policy | None = None
    """The client's times, where they are not the usual ones."""


@frozen(kw_only=True)
class Session:
    """What the program was told before the command."""

    url: str | None
    api_key: str | None
    headers: Mapping[str, str]
    proxy: str | None
    trust_env: bool
    ssl: SSLContext | None
    json: bool
    quiet: bool
    verbose: bool
    call: Call

    def client(
        self,
        *,
        on_event: Callable[[Attempted], None] | None = None,
        concurrency: int | None = None,
    ) -> AsyncClient:
        """Make a client of the server that was named, not open yet."""
        return AsyncClient(
            self.url,
            self.api_key,
            headers=self.headers,
            proxy=self.proxy,
            trust_env=self.trust_env,
            ssl=self.ssl,
            policy=self.call.policy,
            on_event=on_event,
            concurrency=concurrency,
        )

    def run(self, main: Callable[[], Coroutine[Any, Any, int]], *, on_first: str = "") -> None:
        """Run a command in a loop and end with its exit code.

        Args:
            on_first: what people are told when an interrupt has to wait for something.

        Raises:
            typer.Exit: with the code.
        """
        interrupt = Interrupt(lambda: show.err.print(on_first) if on_first else None)
        code = self.code_of(main, interrupt)
        if interrupt.cut and code != PIPE:
            show.err.print("Interrupted.")
        raise typer.Exit(code)

    def code_of(self, main: Callable[[], Coroutine[Any, Any, int]], interrupt: Interrupt) -> int:
        """Run a command in a loop, which `interrupt` may end early, and give its exit code."""
        with caught(interrupt):
            return anyio.run(interrupt.guarded, main, backend_options={"use_uvloop": _has_uvloop()})


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
    header: Annotated[
        list[str] | None, typer.Option(metavar="NAME:VALUE", help="Sent with every request.")
    ] = None,
    proxy: Annotated[str | None, typer.Option(help="Address of an HTTP proxy.")] = None,
    trust_env: Annotated[
        bool, typer.Option("--trust-env", help="Use the proxies of the environment.")
    ] = False,
    ca: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="CA certificates (PEM) to trust.", parser=words.path),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Write JSON Lines on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Tell each retry.")] = False,
) -> None:
    if verbose:
        logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    context.obj = Session(
        url=url,
        api_key=api_key,
        headers=dict(_header(given) for given in header or ()),
        proxy=proxy,
        trust_env=trust_env,
        ssl=None if ca is None else _authority(ca),
        json=json,
        quiet=quiet,
        verbose=verbose,
        call=context.obj,
    )


def run(arguments: Sequence[str], *, policy: Policy | None = None) -> int:
    """Run the program and give its exit code."""
    call = Call(words=tuple(arguments), policy=policy)
    if sys.stdin is None:
        # uvloop aborts the process where a socket gets the number of standard input.
        os.open(os.devnull, os.O_RDONLY)
    try:
        with exits.warned():
            _program_with_commands()(hoisted(arguments), prog_name="dify-kb", obj=call)
    except KnowledgeError as error:
        code = exits.exit_code(error)
        show.failure(error)
        if "--json" in arguments:
            show.line({"type": "error", "error": error.summary, "hint": error.hint, "exit": code})
        return code
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else exits.ERROR
    return 0


@cache
def _program_with_commands() -> Callable[..., object]:
    """Put the commands together, which takes longer than most of them."""
    from . import (  # noqa: F401 -- they register
        bench,
        changes,
        child_chunks,
        datasets,
        doctor,
        documents,
        emulator,
        evaluate,
        external,
        journal,
        load,
        metadata,
        models,
        search,
        segments,
        stats,
        tags,
    )

    return get_command(app)


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


def _header(given: str) -> tuple[str, str]:
    name, colon, value = given.partition(":")
    if not colon or not name.strip():
        raise ConfigError(f"--header is {given!r}.", hint="Write NAME:VALUE.")
    return name.strip(), value.strip()


def _authority(file: Path) -> SSLContext:
    try:
        return create_default_context(cafile=file)
    except (OSError, SSLError) as error:
        raise ConfigError(
            f"--ca is {file}, which holds no certificates ({error.strerror or error}).",
            hint="Name a PEM file.",
        ) from error


def _has_uvloop() -> bool:
    try:
        import uvloop  # noqa: F401 -- asked for by anyio
    except ImportError:
        return False
    return True
