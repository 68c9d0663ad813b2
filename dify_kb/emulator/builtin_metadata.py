"""Built-in metadata fields, whose values the server sets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .store import DocumentRow

OWNER_NAME: Final = "admin"
"""The name of the workspace owner, on whose behalf the server acts."""

FIELD_TYPES: Final[Mapping[str, str]] = {
    "document_name": "string",
    "uploader": "string",
    "upload_date": "time",
    "last_update_date": "time",
    "source": "string",
}
"""The fields, in the order of recording 730."""


def build_values(row: DocumentRow) -> dict[str, object]:
    """Return the values of the built-in fields for a document."""
    return {
        "document_name": row.name,
        "uploader": OWNER_NAME,
        "upload_date": float(row.created_at),
        "last_update_date": float(row.updated_at),
        "source": "file_upload",
    }
