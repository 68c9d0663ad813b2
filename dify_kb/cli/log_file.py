"""The log file of a load: JSON Lines of its results and of the client's log records."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path

from attrs import define

from dify_kb.errors import ConfigError

from . import output

LOGGER = "dify_kb"


@define
class LoadLog:
    """A log file of JSON Lines; a write error ends the log, not the load."""

    _file: FileIO | None

    def write(self, kind: str, fields: Mapping[str, object]) -> None:
        """Append a line with the time in UTC."""
        if self._file is None:
            return
        header = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "type": kind}
        try:
            self._file.write(f"{json.dumps({**header, **fields}, default=str)}\n".encode())
        except OSError as error:
            output.err.print(
                f"warning: Logging stopped, cannot write to the log file:"
                f" {error.strerror or error}."
            )
            self._file = None


@contextmanager
def open_log(path: Path | None) -> Iterator[LoadLog]:
    """Open the log file and add the client's log records to it; without a path, log nothing.

    Raises:
        ConfigError: the file cannot be opened for writing.
    """
    if path is None:
        yield LoadLog(None)
        return
    try:
        file = path.open("ab", buffering=0)
    except OSError as error:
        raise ConfigError(
            f"Cannot write to {path} (--log-file): {error.strerror or error}.",
            hint="Pass a file in a folder that exists and is writable.",
        ) from error
    with file:
        log = LoadLog(file)
        handler = _LoadLogHandler(log)
        logger = logging.getLogger(LOGGER)
        level = logger.level
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        try:
            yield log
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)


class _LoadLogHandler(logging.Handler):
    def __init__(self, log: LoadLog) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        fields = {
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "endpoint": getattr(record, "endpoint", None),
            "attempt": getattr(record, "attempt", None),
        }
        if record.exc_info:
            fields["error"] = repr(record.exc_info[1])
        self._log.write("log", fields)
