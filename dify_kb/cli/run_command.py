"""Run a command: global options, client, event loop, signals and exit code."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import typer
from attrs import define, field

import dify_kb
from dify_kb import profiles
from dify_kb.errors import ConfigError

from .command_line import complete_hint
from .output_streams import end_if_unwritable

if TYPE_CHECKING:
    import asyncio
    from ssl import SSLContext

    import anyio

    from dify_kb import AsyncClient, AttemptEvent, Policy
    from dify_kb.profiles import Profile


@define(kw_only=True)
class Invocation:
    """The command line of the program, the server that it selects, and the policy of tests."""

    arguments: Sequence[str]
    """The command line without the program's name."""

    policy: Policy | None = None
    """The client's policy; None for the default."""

    profile: str | None = None
    """The profile of --profile, or of a dataset like `prod:Handbook`."""

    dataset: str = ""
    """The last dataset of the command line, without its profile."""

    def complete_hint(self, hint: str) -> str:
        """Return a hint whose commands can be run as printed, on the server of this command."""
        return complete_hint(hint, self.arguments, self.profile, self.dataset)


@define(kw_only=True)
class CommandContext:
    """The global options of the program, for its commands."""

    url: str | None
    api_key: str | None
    headers: Mapping[str, str]
    proxy: str | None
    trust_env: bool
    ssl: SSLContext | None
    json: bool
    quiet: bool
    verbose: bool
    invocation: Invocation

    def create_client(
        self,
        *,
        on_event: Callable[[AttemptEvent], None] | None = None,
        concurrency: int | None = None,
    ) -> AsyncClient:
        """Create a client with the global options; it is not open yet.

        Runs the `key_command` of the profile.

        Raises:
            ConfigError: the profile, the address or the key is missing or invalid.
        """
        profile = self.find_profile()
        return dify_kb.AsyncClient(
            self.url if profile is None else profile.url,
            self.api_key or (None if profile is None else _read_key(profile)),
            headers=self.headers,
            proxy=self.proxy,
            trust_env=self.trust_env,
            ssl=self.create_ssl_context(),
            policy=self.invocation.policy,
            on_event=on_event,
            concurrency=concurrency,
        )

    def create_ssl_context(self) -> SSLContext | None:
        """Return the certificate authorities of --ca or the profile; None for the system's.

        Raises:
            ConfigError: the file of the profile cannot be read.
        """
        profile = None if self.ssl else self.find_profile()
        return self.ssl if profile is None else profile.create_ssl_context()

    def find_profile(self) -> Profile | None:
        """Return the profile that has the address of the server; None without one.

        Raises:
            ConfigError: the profile does not exist, or the configuration file is invalid.
        """
        return None if self.url else profiles.find_profile(self.invocation.profile)

    def select_profile(self, name: str) -> None:
        """Use a profile for this command.

        Raises:
            ConfigError: --url or another profile is given.
        """
        if self.url:
            raise ConfigError(
                f"Profile {name!r} and --url cannot be combined.",
                hint="Remove --url, or pass the dataset without the profile.",
            )
        if self.invocation.profile not in {None, name}:
            raise ConfigError(
                f"Profiles {self.invocation.profile!r} and {name!r} cannot be combined.",
                hint="A command uses one server; pass one profile.",
            )
        self.invocation.profile = name

    @property
    def address(self) -> str | None:
        """The address of the server as it is configured; None if it is not."""
        profile = self.find_profile()
        return (
            (self.url or os.environ.get("DIFY_BASE_URL") or None)
            if profile is None
            else profile.url
        )

    def announce_memory(self) -> None:
        """Print a note if the data of the embedded server ends with the command."""
        from . import output

        address, _, options = (self.address or "").partition("?")
        if address == "emulator:":
            file = f"emulator:FILE{'?' if options else ''}{options}"
            output.note(
                "The embedded server of emulator: keeps its data in memory, until this command"
                f" ends. Keep it in a file with {file}."
            )

    def run(
        self, main: Callable[[], Coroutine[Any, Any, int]], *, interrupt_message: str = ""
    ) -> None:
        """Run a command in an event loop and exit with its exit code.

        Args:
            interrupt_message: printed at an interrupt, for commands that clean up.

        Raises:
            typer.Exit: with the exit code.
        """
        from . import output

        message = self.invocation.complete_hint(interrupt_message)
        interrupt = Interrupt(lambda: output.err.print(message) if message else None)
        code = self.run_interruptible(main, interrupt)
        if interrupt.was_signalled:
            output.err.print("Interrupted.")
        raise typer.Exit(code)

    def run_interruptible(
        self, main: Callable[[], Coroutine[Any, Any, int]], interrupt: Interrupt
    ) -> int:
        """Run a command in an event loop until it ends or is interrupted; return the exit code."""
        import anyio

        end_if_unwritable(interrupt.stop)
        with handle_signals(interrupt.handle_signal):
            return anyio.run(
                interrupt.run_cancellable, main, backend_options={"use_uvloop": _has_uvloop()}
            )


def run_with_client(
    context: typer.Context, main: Callable[[AsyncClient], Coroutine[Any, Any, int | None]]
) -> None:
    """Run `main` with an open client and exit with the code it returns; None is 0.

    Raises:
        typer.Exit: with the exit code.
    """
    command: CommandContext = context.obj

    async def run_main() -> int:
        async with command.create_client() as client:
            command.announce_memory()
            return await main(client) or 0

    command.run(run_main)


def is_json_output(context: typer.Context) -> bool:
    """Return whether --json was given."""
    command: CommandContext = context.obj
    return command.json


def _has_uvloop() -> bool:
    try:
        import uvloop  # noqa: F401 -- imported by anyio
    except ImportError:
        return False
    return True


SIGNALS = (signal.SIGINT, signal.SIGTERM)


@define
class Interrupt:
    """The interruption of a running command by a signal or unwritable output."""

    on_interrupt: Callable[[], None] = lambda: None
    """Called in the loop thread when the command is cancelled."""

    exit_message: Callable[[], str] = lambda: ""
    """Returns the message of a process that the second signal ends."""

    exit_code: int | None = None
    """130 or 143 after a signal, 141 after a closed pipe, 1 after a full disk, else None."""

    was_cancelled: bool = False
    """Whether the command was cancelled before it ended."""

    _cancel: Callable[[], None] = field(default=lambda: None, init=False)

    @property
    def was_signalled(self) -> bool:
        """Whether a signal cancelled the command before it ended."""
        return self.was_cancelled and self.exit_code in {128 + number for number in SIGNALS}

    async def run_cancellable(self, main: Callable[[], Awaitable[int]]) -> int:
        """Run a command until it ends or is cancelled, and return its exit code."""
        import asyncio

        import anyio

        loop = asyncio.get_running_loop()
        with anyio.CancelScope() as scope:
            self._cancel = lambda: _call_soon(loop, lambda: self._cancel_scope(scope))
            if self.exit_code is None:
                return await main()
        self.was_cancelled = True
        return self.exit_code or 0

    def stop(self, code: int) -> None:
        """Cancel the command, from any thread."""
        if self.exit_code is None:
            self.exit_code = code
            self._cancel()

    def _cancel_scope(self, scope: anyio.CancelScope) -> None:
        scope.cancel()
        self.on_interrupt()

    def handle_signal(self, number: int, _frame: FrameType | None) -> None:
        """Handle a signal: the first cancels the command, the second ends the process."""
        if self.exit_code is None:
            self.stop(128 + number)
            return
        # No locks, no cleanup: the journal is as consistent as after kill -9.
        show_cursor = "\x1b[?25h" if sys.stderr.isatty() else ""
        with suppress(OSError):
            os.write(2, f"{show_cursor}\n{self.exit_message()}\n".encode(errors="backslashreplace"))
        os._exit(128 + number)


def _read_key(profile: Profile) -> str | None:
    """Return the key of a profile; a signal ends the program, as reading blocks the event loop."""
    with handle_signals(_exit_at_signal):
        return profile.read_key()


def _exit_at_signal(number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


@contextmanager
def handle_signals(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Handle SIGINT and SIGTERM until the block ends; no effect outside the main thread."""
    try:
        previous_handlers = {number: signal.signal(number, handler) for number in SIGNALS}
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        for number, previous in previous_handlers.items():
            signal.signal(number, previous)


def _call_soon(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
    with suppress(RuntimeError):  # the loop has ended, and so has the command
        loop.call_soon_threadsafe(callback)
