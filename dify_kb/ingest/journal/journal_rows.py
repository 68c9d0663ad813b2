"""The rows of files in a journal, and their conversion to and from SQLite."""

from __future__ import annotations

import enum
import operator
from typing import TYPE_CHECKING, Any

import attrs
from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Sequence


class JournalState(enum.StrEnum):
    """The last known state of a file.

    | state | on the server | action of the next run |
    |---|---|---|
    | waiting | no document, or an older version | send the file |
    | sending | unknown: the document may exist | look it up before sending |
    | accepted | the document, not known to be indexed | follow it |
    | done | the document, indexed | none |
    | failed | a failed document, or none: refused | none; with `retry_failed`, send the file |
    | stalled | the document; indexing stopped | look it up; with `retry_failed`, create it again |
    | emptied | a document without chunks: its replacement failed | send the file first |
    | trashed | a document that a sync has disabled or archived, as its file is gone | send it |
    """

    WAITING = "waiting"
    SENDING = "sending"
    ACCEPTED = "accepted"
    DONE = "done"
    FAILED = "failed"
    STALLED = "stalled"
    EMPTIED = "emptied"
    TRASHED = "trashed"


@frozen(kw_only=True)
class JournalRow:
    """A file of the journal. `size` is in bytes, `sent_at` in seconds since the epoch.

    `token` is that of the file when it was read: times and inode, an ETag or a blob id. None if the
    file could change without changing it, so that contents have to be compared.

    `content` is the SHA-256 digest of the file sent; `rule` is a fingerprint of its chunking
    settings, `labels` one of its metadata (see `ingest.metadata.labels`). `previous` is the id
    of the document's uploaded file before the latest upload, which distinguishes the new version
    from the old one.
    """

    key: str
    name: str
    size: int
    token: str | None
    content: bytes
    rule: str
    labels: str
    state: JournalState
    attempts: int
    sent_at: float
    previous: str | None
    document_id: str | None
    batch: str | None
    upload_file_id: str | None
    reason: str | None


COLUMNS = tuple(attribute.name for attribute in attrs.fields(JournalRow))


def to_sqlite(value: Any) -> Any:
    """Convert a value for SQLite; text that UTF-8 cannot encode (file names) becomes bytes."""
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            return value.encode(errors="surrogatepass")
    return value


def from_sqlite(value: Any) -> Any:
    """Convert a value read from SQLite."""
    return value.decode(errors="surrogatepass") if isinstance(value, bytes) else value


def parse_row(values: Sequence[Any]) -> JournalRow:
    """Create a row from the values of `COLUMNS`."""
    fields = dict(zip(COLUMNS, values, strict=True))
    for name in ("key", "name", "reason"):
        fields[name] = from_sqlite(fields[name])
    fields["state"] = JournalState(fields["state"])
    return JournalRow(**fields)


_get_columns = operator.attrgetter(*COLUMNS)


def row_values(row: JournalRow) -> Sequence[Any]:
    """Return the values of `COLUMNS` for SQLite."""
    return [to_sqlite(value) for value in _get_columns(row)]
