"""The files of documents, and links to them."""

from __future__ import annotations

import io
import uuid
import zipfile
from collections import Counter
from pathlib import PurePath
from typing import TYPE_CHECKING, Final

from dify_kb.emulator.context import Context, nothing, serves
from dify_kb.emulator.payload import Field, Payload, Problems, items
from dify_kb.emulator.refused import not_found
from dify_kb.emulator.views.times import exact
from dify_kb.models import DocumentIds, DownloadUrl, StoredFile
from dify_kb.wire import catalog, codec

if TYPE_CHECKING:
    from dify_kb.emulator.store import DocumentRow

_MOST: Final = 100
"""Documents of one archive (server source)."""


def _ids(value: object, where: tuple[str, ...], problems: Problems) -> object:
    checked = items(_id)(value, where, problems)
    if isinstance(value, list) and not value:
        what = "List should have at least 1 item after validation, not 0"
        problems.add(where, what, "too_short", value)
    if isinstance(value, list) and len(value) > _MOST:
        what = f"List should have at most {_MOST} items after validation, not {len(value)}"
        problems.add(where, what, "too_long", value)
    return checked


def _id(value: object, where: tuple[str, ...], problems: Problems) -> object:
    try:
        return str(uuid.UUID(str(value)))
    except ValueError:
        problems.add(where, "Input should be a valid UUID", "uuid_parsing", value)
        return value


_ZIP = Payload("DocumentBatchDownloadZipPayload", {"document_ids": Field(_ids, required=True)})


def _read_zip(context: Context, raw: object) -> DocumentIds:
    return codec.decode(DocumentIds, _ZIP.read(raw, context.profile))


@serves(catalog.GET_UPLOAD_FILE, nothing)
def upload_file(context: Context, _: None) -> StoredFile:
    """Tell of a document's file, with links to it (recording 1101)."""
    row = _document(context, context.slots["document_id"])
    return StoredFile(
        id=row.file_id,
        name=row.file_name,
        size=row.file_size,
        extension=row.file_extension,
        url=_link(context, row),
        download_url=_link(context, row, attachment=True),
        mime_type=row.file_mime_type,
        created_by=context.store.account,
        created_at=exact(row.file_created_at),
    )


@serves(catalog.GET_DOWNLOAD_URL, nothing)
def download_url(context: Context, _: None) -> DownloadUrl:
    """Give a link to a document's file."""
    row = _document(context, context.slots["document_id"])
    return DownloadUrl(url=_link(context, row, attachment=True))


@serves(catalog.DOWNLOAD_ZIP, _read_zip)
def download_zip(context: Context, body: DocumentIds) -> bytes:
    """Pack the files of documents; one that is unknown leaves nothing to pack."""
    rows = [_document(context, document_id) for document_id in dict.fromkeys(body.document_ids)]
    packed, seen = io.BytesIO(), Counter[str]()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for row in rows:
            name = PurePath(row.file_name)
            again = f" ({seen[row.file_name]})" if seen[row.file_name] else ""
            seen[row.file_name] += 1
            content = context.store.documents.content(row.id) or b""
            archive.writestr(f"{name.stem}{again}{name.suffix}", content)
    return packed.getvalue()


def _document(context: Context, document_id: str) -> DocumentRow:
    row = context.store.documents.get(context.dataset.id, document_id)
    if row is None:
        raise not_found("Document not found.")
    return row


def _link(context: Context, row: DocumentRow, *, attachment: bool = False) -> str:
    now = context.clock.now()
    return context.links.preview(str(context.url.origin()), row.file_id, now, attachment=attachment)


HANDLERS = (upload_file, download_url, download_zip)
