"""The row of a file in the journal, and its values in SQLite."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any

import attrs
from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Sequence


class State(enum.StrEnum):
    """The last state of a file that is known for certain.

    | state | the server has | the next run |
    |---|---|---|
    | waiting | nothing of it, or what it had before | sends it |
    | sending | perhaps | looks before it sends |
    | accepted | the document, not seen indexed | follows it |
    | done | the document, indexed | leaves it alone |
    | failed | a document that failed, or refused it | leaves it alone unless told to try again |
    | stalled | the document; its indexing stopped moving | looks once; re-creates it if told to |
    | emptied | a document without chunks: its replacement failed | sends it before all others |
    """

    WAITING = "waiting"
    SENDING = "sending"
    ACCEPTED = "accepted"
    DONE = "done"
    FAILED = "failed"
    STALLED = "stalled"
    EMPTIED = "emptied"


@frozen(kw_only=True)
class Row:
    """A file of the journal. `size` in bytes, `sent_at` in seconds since the epoch.

    `mtime_ns`, `ctime_ns` and `inode` are those of the file when it was read; None where a change
    since might not show, so that contents are compared.

    `previous` is the uploaded file that its document had before the latest send, so that the new
    one can be told from it; `content` is the SHA-256 of what was sent, `rule` and `labels` are
    fingerprints of how it was to be cut and labelled.
    """

    key: str
    name: str
    size: int
    mtime_ns: int | None
    ctime_ns: int | None = None
    inode: int | None = None
    content: bytes
    rule: str
    labels: str
    state: State
    attempts: int
    sent_at: float
    previous: str | None
    document_id: str | None
    batch: str | None
    upload_file_id: str | None
    reason: str | None


COLUMNS = tuple(attribute.name for attribute in attrs.fields(Row))


def to_sqlite(value: Any) -> Any:
    """Convert a value for SQLite, whose text must be UTF-8, unlike names of files."""
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            return value.encode(errors="surrogatepass")
    return value


def from_sqlite(value: Any) -> Any:
    """Convert a value of SQLite back."""
    return value.decode(errors="surrogatepass") if isinstance(value, bytes) else value


def parse_row(values: Sequence[Any]) -> Row:
    """Create a row from the values of `COLUMNS`."""
    fields = dict(zip(COLUMNS, values, strict=True))
    for name in ("key", "name", "reason"):
        fields[name] = from_sqlite(fields[name])
    fields["state"] = State(fields["state"])
    return Row(**fields)
