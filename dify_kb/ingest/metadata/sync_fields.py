"""The metadata fields of a sync, which record in the dataset what a document was made from.

| field | value |
|---|---|
| `sync_source` | `<id of the sync>:<key>` |
| `sync_hash` | `<content>:<rule>:<labels>:<trashed>` |

`content` is the SHA-256 digest of the file, followed by `@` and its token (ETag, blob id) if the
source has tokens. `rule` and `labels` are fingerprints of the chunking settings and the metadata,
`trashed` the time in seconds since the epoch at which a sync took the document out of retrieval.
All parts are percent-encoded. Values of any length are kept through replacement and update on
1.4.3, 1.12.1 and 1.14.2 (measured); NUL is refused.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Self
from urllib.parse import quote, unquote

from attrs import frozen

from dify_kb.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

SOURCE_FIELD = "sync_source"
HASH_FIELD = "sync_hash"
SYNC_FIELDS = frozenset({SOURCE_FIELD, HASH_FIELD})

_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_SURROGATES = re.compile("[\ud800-\udfff\0%]")


def check_sync_id(sync_id: str) -> str:
    """Return the id of a sync.

    Raises:
        ConfigError: it has other characters than letters, digits, `.`, `_` and `-`, or over 64.
    """
    if not _ID.fullmatch(sync_id):
        raise ConfigError(
            f"Invalid id of a sync: {sync_id!r}.",
            hint="Use 1 to 64 letters, digits, '.', '_' or '-'.",
        )
    return sync_id


@frozen(kw_only=True)
class SyncFields:
    """The content of both fields of a document."""

    sync_id: str
    key: str
    content: bytes = b""
    token: str | None = None
    rule: str = ""
    labels: str = ""
    trashed: int | None = None

    def values(self) -> dict[str, str]:
        """Return the values by field name."""
        token = "" if self.token is None else f"@{_encode(self.token)}"
        trashed = "" if self.trashed is None else str(self.trashed)
        parts = (f"{self.content.hex()}{token}", _encode(self.rule), _encode(self.labels), trashed)
        return {
            SOURCE_FIELD: f"{self.sync_id}:{_encode_key(self.key)}",
            HASH_FIELD: ":".join(parts),
        }

    @classmethod
    def from_values(cls, values: Mapping[str, object]) -> Self | None:
        """Parse the metadata of a document; None if no sync has set it.

        `content` is empty if the hash is missing or damaged.
        """
        source = values.get(SOURCE_FIELD)
        if not isinstance(source, str) or ":" not in source:
            return None
        sync_id, _, key = source.partition(":")
        fields = cls(sync_id=sync_id, key=_decode_key(key))
        text = values.get(HASH_FIELD)
        if not isinstance(text, str) or text.count(":") != _SEPARATORS:
            return fields
        content, rule, labels, trashed = text.split(":")
        digest, has_token, token = content.partition("@")
        try:
            return cls(
                sync_id=sync_id,
                key=fields.key,
                content=bytes.fromhex(digest),
                token=unquote(token) if has_token else None,
                rule=unquote(rule),
                labels=unquote(labels),
                trashed=int(trashed) if trashed else None,
            )
        except ValueError:
            return fields


_SEPARATORS = 3


def _encode(text: str) -> str:
    return quote(text, safe=" ", errors="surrogatepass")


def _encode_key(key: str) -> str:
    """Return a legible key: only characters that cannot be sent are encoded."""
    return _SURROGATES.sub(lambda found: quote(found[0], safe="", errors="surrogatepass"), key)


def _decode_key(key: str) -> str:
    return unquote(key, errors="surrogatepass")
