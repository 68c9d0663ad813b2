"""The metadata set by a load: the type of the argument, and fingerprints of values."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from dify_kb.ingest.sources.items import Item

if TYPE_CHECKING:
    from dify_kb.resources.values import Value

Metadata = Mapping[str, object] | Callable[[Item], Mapping[str, object] | None] | None
"""Values by field name for every document, or a function of the item that returns them."""


def metadata_fingerprint(metadata: Mapping[str, Value]) -> str:
    """Return a hash of the values; "" for none."""
    if not metadata:
        return ""
    encoded = json.dumps(metadata, sort_keys=True, default=_encode)
    return hashlib.sha256(encoded.encode()).hexdigest()[:16]


def _encode(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else repr(value)
