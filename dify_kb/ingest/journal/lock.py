"""One run at a time: a lock that the system takes away from a process that dies."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from dify_kb.errors import JournalError

if TYPE_CHECKING:
    from io import TextIOWrapper


class Lock:
    """Holds `PATH-lock` until `release`. The file stays: to delete it would race with the next.

    Raises:
        JournalError: another process, or another load of this one, holds it.
        OSError: the file system has no locks, or the folder cannot be written.
    """

    def __init__(self, journal: Path) -> None:
        self._path = Path(f"{journal}-lock")
        self._file: TextIOWrapper = self._path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = self._owner()
            self._file.close()
            raise JournalError(
                f"The journal {journal} is in use{owner}.",
                hint="Wait for that load to end, or give this one a journal of its own.",
            ) from error
        except OSError:
            self._file.close()
            raise
        self._process = os.getpid()
        self._file.truncate(0)
        json.dump({"pid": self._process, "host": socket.gethostname()}, self._file)
        self._file.flush()

    def release(self) -> None:
        """Let the next one in.

        Closing alone would not, as long as a process lives that was forked off this one; and such
        a process must not unlock what its parent holds.
        """
        if os.getpid() == self._process:
            fcntl.flock(self._file, fcntl.LOCK_UN)
        self._file.close()

    def _owner(self) -> str:
        try:
            self._file.seek(0)
            owner = json.load(self._file)
            return f" by process {owner['pid']} on {owner['host']}"
        except (ValueError, KeyError, TypeError, OSError):
            return ""
