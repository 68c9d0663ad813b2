"""A load written down as it goes: JSON Lines of each result and of what the client logs."""

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
    """Appends lines to a file; a load goes on when that cannot be written any more."""

    _file: FileIO | None

    def write(self, kind: str, fields: Mapping[str, object]) -> None:
        """Add a line, with the time in UTC."""
        if self._file is None:
            return
        header = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "type": kind}
        try:
            self._file.write(f"{json.dumps({**header, **fields}, default=str)}\n".encode())
        except OSError as error:
            output.err.print(
                f"warning: The log ends here: {(error.strerror or str(error)).lower()}."
            )
            self._file = None


@contextmanager
def open_log(path: Path | None) -> Iterator[LoadLog]:
    """Open a log, to which everything goes that the client logs; None is one that is not kept.

    Raises:
        ConfigError: it cannot be written.
    """
    if path is None:
        yield LoadLog(None)
        return
    try:
        file = path.open("ab", buffering=0)
    except OSError as error:
        raise ConfigError(
            f"--log-file is {path}: {(error.strerror or str(error)).lower()}.",
            hint="Name a file that can be written.",
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
