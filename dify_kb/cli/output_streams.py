"""Standard output and error that cannot end a command with a traceback.

Characters that the encoding lacks are escaped. What cannot be written, because the pipe is closed,
the terminal is gone or the disk is full, is discarded; the exit code then says so.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from attrs import define

BROKEN_PIPE_EXIT = 141
"""The exit code after a write to a closed pipe, as of a program that SIGPIPE ends."""

_READER_IS_GONE = {errno.EPIPE, errno.EIO, errno.ECONNRESET}
"""Errors of a write to a closed pipe, terminal or socket."""


@define(eq=False)
class GuardedStream:
    """A text stream that discards output, instead of raising, once it cannot be written."""

    target: TextIO
    error: OSError | None = None
    """The first error of a write."""

    on_error: Callable[[int], None] = lambda _: None
    """Called with the exit code at the first error, to end a command whose output is lost."""

    is_optional: bool = False
    """Whether the command has done its work, or goes on with it without output."""

    is_quiet: bool = False
    """Whether --quiet was given; of standard error."""

    def write(self, text: str) -> int:
        """Write a text, unless an earlier write failed."""
        self._try(lambda: self.target.write(text))
        return len(text)

    def flush(self) -> None:
        """Write what is buffered, unless an earlier write failed."""
        self._try(self.target.flush)

    def final_exit_code(self, code: int) -> int:
        """Return the exit code of a command, considering whether its output was written."""
        if self.error is None:
            return code
        if self.error.errno in _READER_IS_GONE and self.is_optional:
            return code
        return code or self._error_code(self.error)

    def _try(self, call: Callable[[], object]) -> None:
        if self.error is not None:
            return
        try:
            call()
        except OSError as error:
            self.error = error
            with suppress(OSError):
                _discard(self.target.fileno())
            if not self.is_optional:
                self.on_error(self._error_code(error))

    def _error_code(self, error: OSError) -> int:
        return BROKEN_PIPE_EXIT if error.errno in _READER_IS_GONE else 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self.target, name)


def end_if_unwritable(stop: Callable[[int], None]) -> None:
    """Call `stop` with the exit code when standard output cannot be written."""
    if isinstance(sys.stdout, GuardedStream):
        sys.stdout.on_error = stop


def continue_if_unwritable() -> None:
    """Continue without output where it cannot be written; for changes of the server."""
    if isinstance(sys.stdout, GuardedStream):
        sys.stdout.is_optional = True


def set_quiet(*, quiet: bool) -> None:
    """Suppress progress, counts and hints until the program ends; failures are printed."""
    if isinstance(sys.stderr, GuardedStream):
        sys.stderr.is_quiet = quiet


def is_quiet() -> bool:
    """Return whether --quiet was given."""
    return isinstance(sys.stderr, GuardedStream) and sys.stderr.is_quiet


@contextmanager
def guard_output() -> Iterator[GuardedStream]:
    """Guard standard output and error until the block ends; return the former.

    Output to a closed stream goes to the null device.
    """
    _open_standard_descriptors()
    streams = sys.stdout, sys.stderr
    with open(os.devnull, "w", encoding="utf-8") as null:  # noqa: PTH123 -- a device
        out, err = (GuardedStream(stream or null) for stream in streams)
        for stream in (out, err):
            if isinstance(stream.target, io.TextIOWrapper):
                stream.target.reconfigure(errors="backslashreplace")
        sys.stdout, sys.stderr = out, err
        try:
            yield out
        finally:
            out.flush()
            if out.error is not None and out.error.errno not in _READER_IS_GONE:
                reason = out.error.strerror or out.error
                err.write(f"error: Cannot write to standard output: {reason}.\n")
            err.flush()
            sys.stdout, sys.stderr = streams


def _open_standard_descriptors() -> None:
    """Open the null device where a standard stream is closed.

    Otherwise the next file or socket gets its descriptor: uvloop aborts the process if a socket
    gets that of standard input.
    """
    if None in {sys.stdin, sys.stdout, sys.stderr}:
        while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:  # noqa: PLR2004 -- standard error
            pass
        os.close(descriptor)


def _discard(descriptor: int) -> None:
    """Redirect a descriptor to the null device, so that the flush at exit succeeds."""
    null_device = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null_device, descriptor)
    os.close(null_device)
