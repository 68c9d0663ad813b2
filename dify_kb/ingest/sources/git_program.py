"""Run the program `git` in a clone, without prompts, and read blobs with a few processes."""

from __future__ import annotations

import contextlib
import io
import os
import selectors
import signal
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, cast

from attrs import define, field

from dify_kb.errors import SourceError

from .file_source import OpenedEntry, hide_user

if TYPE_CHECKING:
    from collections.abc import Iterator

SMALL_BLOB: Final = 1024 * 1024
"""Bytes up to which a file is read at once, so that a few processes serve all threads."""

MAX_IDLE_READERS: Final = 8

CREDENTIALS_HINT: Final = (
    "Pass git+https://USER:TOKEN@…, or set up a credential helper of git or an SSH key that is"
    " used without a prompt."
)

_VARIABLES_OF_HOOKS: Final = frozenset(
    {
        "GIT_ALTERNATE_OBJECT_DIRECTORIES",
        "GIT_COMMON_DIR",
        "GIT_CONFIG",
        "GIT_DIR",
        "GIT_INDEX_FILE",
        "GIT_NAMESPACE",
        "GIT_OBJECT_DIRECTORY",
        "GIT_PREFIX",
        "GIT_SHALLOW_FILE",
        "GIT_WORK_TREE",
    }
)
"""Set in hooks of git, and wrong for another repository."""

_USER_VARIABLE, _PASSWORD_VARIABLE = "DIFY_KB_GIT_USER", "DIFY_KB_GIT_PASSWORD"
_HELPER: Final = (
    '!f() { test "$1" = get && printf "username=%s\\npassword=%s\\n"'
    f' "${_USER_VARIABLE}" "${_PASSWORD_VARIABLE}"; }}; f'
)
"""A credential helper: no file, command line or message contains the password."""


class GitError(Exception):
    """A failed command of git; the argument is its error output, without credentials."""


@define(eq=False)
class GitProgram:
    """Runs git in a clone of a repository.

    Args:
        url: address of the repository, without credentials.
        user: sent with `password` to the host of `url`; "" for git's own configuration.
        stall_timeout: seconds without output after which a command fails.
    """

    url: str
    user: str = field(repr=False)
    password: str = field(repr=False)
    stall_timeout: float
    folder: Path | None = None
    """The folder of the clone."""

    lock: int | None = None
    """A descriptor that the processes hold open."""

    _lock: threading.Lock = field(factory=threading.Lock, init=False)
    _processes: set[subprocess.Popen[bytes]] = field(factory=set, init=False)
    _idle: list[subprocess.Popen[bytes]] = field(factory=list, init=False)
    _is_ending: bool = field(default=False, init=False)

    def run(self, *arguments: str, stdin: str = "") -> str:
        """Run a command, and return its output without the last newline.

        Raises:
            GitError: the command failed.
            SourceError: it made no progress, or `end_all` was called.
        """
        output = b"".join(self.stream(*arguments, stdin=stdin))
        return output.decode("utf-8", "surrogateescape").strip()

    def stream(self, *arguments: str, stdin: str = "") -> Iterator[bytes]:
        """Yield the output of a command in blocks; errors as of `run`."""
        with tempfile.TemporaryFile() as file:
            file.write(stdin.encode())
            file.seek(0)
            process = self._start(*arguments, stdin=file, stderr=subprocess.PIPE)
        errors = b""
        try:
            for pipe, block in _read_pipes(process, self.stall_timeout):
                if pipe is process.stdout:
                    yield block
                else:
                    errors = (errors + block)[-65536:]
            if process.wait():
                raise GitError(self._remove_credentials(errors.decode("utf-8", "replace")))
        except TimeoutError as error:
            raise SourceError(
                f"Cannot read {self.url}: git made no progress for {self.stall_timeout:g} s.",
                hint="Check that the server answers, and that git needs no password or passphrase:"
                f" {CREDENTIALS_HINT}",
            ) from error
        finally:
            self.end(process)

    def _start(
        self, *arguments: str, stdin: int | IO[bytes], stderr: int = subprocess.DEVNULL
    ) -> subprocess.Popen[bytes]:
        """Start git, without a terminal at which it, or ssh, could prompt."""
        held = () if self.lock is None else (self.lock,)
        with self._lock:
            if self._is_ending:
                raise SourceError("The source was closed.")
            process = subprocess.Popen(  # noqa: S603 -- a list of arguments
                ["git", f"--git-dir={self.folder}", *self._list_settings(), *arguments],  # noqa: S607 -- of the user's PATH
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=self._make_environment(),
                start_new_session=True,
                pass_fds=held,
            )
            self._processes.add(process)
        return process

    def _list_settings(self) -> Iterator[str]:
        settings = {
            "remote.origin.url": self.url,
            "core.hooksPath": os.devnull,
            "gc.autoDetach": "false",
            "http.lowSpeedLimit": "100",
            "http.lowSpeedTime": "60",
        }
        for name, value in settings.items():
            yield from ("-c", f"{name}={value}")
        if self.user:
            place = "/".join(self.url.split("/")[:3])
            # The first value, an empty one, removes the helpers of the user's configuration.
            yield from ("-c", f"credential.{place}.helper=")
            yield from ("-c", f"credential.{place}.helper={_HELPER}")

    def _make_environment(self) -> dict[str, str]:
        kept = {name: each for name, each in os.environ.items() if name not in _VARIABLES_OF_HOOKS}
        return {
            "GIT_ASKPASS": "",
            **kept,
            "GIT_TERMINAL_PROMPT": "0",
            "SSH_ASKPASS_REQUIRE": "never",
            "LC_ALL": "C",
            _USER_VARIABLE: self.user,
            _PASSWORD_VARIABLE: self.password,
        }

    def _remove_credentials(self, text: str) -> str:
        for secret in (self.password, self.user):
            text = text.replace(secret, "…") if secret else text
        return hide_user(text)

    def open_blob(self, key: str, blob: str) -> OpenedEntry:
        """Open a blob by its id, on behalf of the file `key`.

        Raises:
            SourceError: the blob cannot be read.
        """
        with self._lock:
            reader = self._idle.pop() if self._idle else None
        reader = reader or self._start("cat-file", "--batch", stdin=subprocess.PIPE)
        stream = _BlobStream(self, key, reader)
        size = stream.request(blob)
        if size > SMALL_BLOB:
            return OpenedEntry(stream, blob, size)
        data = b"".join(iter(lambda: stream.read(SMALL_BLOB), b""))
        stream.close()
        return OpenedEntry(io.BytesIO(data), blob, size)

    def end_all(self) -> None:
        """End all processes; no other can be started until `allow`."""
        with self._lock:
            self._is_ending = True
            processes, idle = list(self._processes), list(self._idle)
            self._idle.clear()
        for process in processes:
            _kill(process)  # the thread that reads its output closes the pipes
        for process in idle:
            self.end(process)

    def allow(self) -> None:
        """Allow processes again after `end_all`."""
        self._is_ending = False

    def end(self, process: subprocess.Popen[bytes]) -> None:
        """End a process with its children, and close its pipes."""
        _kill(process)
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError, ValueError):
                    pipe.close()
        process.wait()
        with self._lock:
            self._processes.discard(process)

    def keep(self, reader: subprocess.Popen[bytes]) -> None:
        """Keep a reader of blobs for other files."""
        with self._lock:
            is_kept = not self._is_ending and len(self._idle) < MAX_IDLE_READERS
            if is_kept:
                self._idle.append(reader)
        if not is_kept:
            self.end(reader)


class _BlobStream:
    """The content of a blob, read from `git cat-file --batch`."""

    def __init__(self, git: GitProgram, key: str, reader: subprocess.Popen[bytes]) -> None:
        self._git = git
        self._key = key
        self._reader = reader
        self._left = 0
        self._is_open = True

    def request(self, blob: str) -> int:
        """Request a blob, and return its size in bytes."""
        try:
            stdin, stdout = self._pipes()
            stdin.write(f"{blob}\n".encode())
            stdin.flush()
            header = stdout.readline().split()
        except (OSError, ValueError) as error:  # ended by `end_all`
            raise self._fail() from error
        if len(header) != 3 or header[1] != b"blob":  # noqa: PLR2004 -- id, type, size
            raise self._fail()
        self._left = int(header[2])
        return self._left

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes; empty at the end."""
        if not self._left:
            return b""
        try:
            data = self._pipes()[1].read(min(size, self._left))
        except (OSError, ValueError) as error:
            raise self._fail() from error
        if not data:
            raise self._fail()
        self._left -= len(data)
        return data

    def close(self) -> None:
        """Keep the process for other blobs; end it if the blob was not read to its end."""
        if not self._is_open:
            return
        self._is_open = False
        try:
            is_usable = not self._left and self._pipes()[1].read(1) == b"\n"
        except (OSError, ValueError):
            is_usable = False
        (self._git.keep if is_usable else self._git.end)(self._reader)

    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        return cast("IO[bytes]", self._reader.stdin), cast("IO[bytes]", self._reader.stdout)

    def _fail(self) -> SourceError:
        self._is_open = False
        self._git.end(self._reader)
        return SourceError(f"Cannot read {self._key!r} from the clone.", hint="Run the load again.")


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


def _read_pipes(
    process: subprocess.Popen[bytes], timeout: float
) -> Iterator[tuple[IO[bytes], bytes]]:
    """Yield what a process writes to stdout and stderr, until it closes both.

    Raises:
        TimeoutError: it wrote nothing for `timeout` seconds.
    """
    with selectors.DefaultSelector() as selector:
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(timeout)
            if not ready:
                raise TimeoutError
            for key, _ in ready:
                pipe = cast("IO[bytes]", key.fileobj)
                if block := os.read(key.fd, 65536):
                    yield pipe, block
                else:
                    selector.unregister(pipe)
