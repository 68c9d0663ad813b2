"""Documents that get another text, or another state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from dify_kb.emulator.context import Context, serves
from dify_kb.emulator.intake import update
from dify_kb.emulator.refused import RefusedError, id_of
from dify_kb.models import DocumentCreated, DocumentIds, UpdateByFile, UpdateByText
from dify_kb.wire import catalog

from .forms import MAX_NAME, file_upload, read_update_file, read_update_text, text_upload

if TYPE_CHECKING:
    from dify_kb.emulator.store import DocumentRow

_ACTIONS: Final = ("enable", "disable", "archive", "un_archive")


@serves(catalog.UPDATE_DOCUMENT_BY_TEXT, read_update_text)
def update_by_text(context: Context, body: UpdateByText) -> DocumentCreated:
    """Give a document another text, or only another rule, and another name (measured)."""
    upload = None if context.notes.rule_only else text_upload(body.name, body.text)
    name = body.name[:MAX_NAME] or None
    return update(context, context.slots["document_id"], upload, body, name=name)


@serves(catalog.UPDATE_DOCUMENT_BY_FILE, read_update_file)
def update_by_file(context: Context, body: UpdateByFile) -> DocumentCreated:
    """Give a document another file; `name` in its data wins over the file's."""
    upload = None if context.notes.rule_only else file_upload(context, body.file)
    return update(context, context.slots["document_id"], upload, body, name=body.name or None)


def _read_ids(_: Context, raw: object) -> DocumentIds:
    """Read the ids, which nobody checks before they are looked for (recordings 383 to 400)."""
    sent = raw.get("document_ids") if isinstance(raw, dict) else None
    return DocumentIds(document_ids=cast("list[str]", sent or []))


@serves(catalog.SET_DOCUMENT_STATUS, _read_ids)
def set_status(context: Context, body: DocumentIds) -> None:
    """Change the state of all of them or of none (measured)."""
    if not body.document_ids:
        return
    action = context.slots["action"]
    if action not in _ACTIONS:
        message = f"Invalid action: {action}. Must be one of {[*_ACTIONS]}"
        raise RefusedError(400, "invalid_action", message)
    store = context.store
    with store.transaction():
        found = [
            store.documents.get(context.dataset.id, id_of(document_id))
            for document_id in body.document_ids
        ]
        rows = [row for row in found if row is not None]
        changes = [(row, _change(context, action, row)) for row in rows]
        for row, change in changes:
            if not change:
                continue
            until = context.clock.now() + context.settings.status_lock
            store.documents.update(row.id, **change, locked_until=until)
            shown = _shown(row, change)
            if shown is not None:
                store.switch_segments(row.id, enabled=shown, now=context.clock.now())


def _change(context: Context, action: str, row: DocumentRow) -> dict[str, object]:
    """Tell what an action changes; nothing where it is so already."""
    now = context.clock.now()
    if now < row.locked_until:
        message = f"Document:{row.name} is being indexed, please try again later"
        raise RefusedError(400, "invalid_action", message)
    match action:
        case "enable" if not row.enabled:
            return {"enabled": 1, "disabled_at": None, "updated_at": now}
        case "disable" if row.indexing_status != "completed":
            message = f"Document: {row.name} is not completed."
            raise RefusedError(400, "invalid_action", message)
        case "disable" if row.enabled:
            return {"enabled": 0, "disabled_at": now, "updated_at": now}
        case "archive" if not row.archived:
            return {"archived": 1, "updated_at": now}
        case "un_archive" if row.archived:
            return {"archived": 0, "updated_at": now}
        case _:
            return {}


def _shown(row: DocumentRow, change: dict[str, object]) -> bool | None:
    """Return whether searches find the document from now on; None if that does not change.

    The archive takes an enabled document out of the index once, and un_archive puts it back. So
    what is indexed in between is found, although the document is archived (measured).
    """
    if "enabled" in change:
        return bool(change["enabled"])
    if row.indexing_status != "completed" or not row.enabled:
        return None
    return not change["archived"]


HANDLERS = (update_by_text, update_by_file, set_status)
