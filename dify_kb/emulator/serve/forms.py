"""Reading what documents are created from, in the order in which the server checks it."""

from __future__ import annotations

import json
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final, TypeVar

from dify_kb.emulator.bodies import BAD_REQUEST
from dify_kb.emulator.intake import Upload
from dify_kb.emulator.multipart import Part
from dify_kb.emulator.payload import Before, Field, Payload, Problems, anything, flag, text
from dify_kb.emulator.profile import Wording
from dify_kb.emulator.refused import RefusedError, UncheckedError, invalid_param
from dify_kb.models import (
    DOCUMENT_EXTENSIONS,
    UNSET,
    CreateByFile,
    CreateByText,
    DocForm,
    File,
    IndexingTechnique,
    ProcessRule,
    RetrievalModel,
    Unset,
    UpdateByFile,
    UpdateByText,
)
from dify_kb.wire import codec

from .fields import PROCESS_RULE, RETRIEVAL_MODEL, TECHNIQUE

if TYPE_CHECKING:
    from dify_kb.emulator.context import Context
    from dify_kb.emulator.multipart import Form

T = TypeVar("T")

MAX_NAME: Final = 200
"""Characters of a document's name; a longer one is cut (measured)."""

_FORBIDDEN: Final = frozenset('/\\:*?"<>|')

_COMMON = {
    "doc_form": Field(text()),
    "doc_language": Field(text()),
    "process_rule": Field(PROCESS_RULE, before=Before(check=anything)),
    "retrieval_model": Field(RETRIEVAL_MODEL, before=Before(check=anything)),
    "embedding_model": Field(text()),
    "embedding_model_provider": Field(text()),
    "indexing_technique": Field(text(), before=Before(check=TECHNIQUE, nullable=False)),
    "original_document_id": Field(text()),
}

_TEXT = Payload(
    "DocumentTextCreatePayload",
    {
        "name": Field(text(), required=True),
        "text": Field(text(), required=True),
    }
    | _COMMON,
)

_UPDATE = Payload(
    "DocumentTextUpdate",
    {"name": Field(text()), "text": Field(text())} | _COMMON,
)

_CONFIG = Payload("KnowledgeConfig", _COMMON | {"duplicate": Field(flag)})

_TECHNIQUE = Payload("KnowledgeConfig", {"indexing_technique": Field(TECHNIQUE, required=True)})

_CHOSEN = Payload(
    "KnowledgeConfig", {"indexing_technique": Field(TECHNIQUE, required=True, nullable=False)}
)


def read_text(context: Context, raw: object) -> CreateByText:
    """Read the body of create-by-text, which never falls back to the dataset's technique."""
    profile = context.profile
    fields = _TEXT.read(raw, profile)
    context.notes.document = str(fields["name"])
    if not fields.get("indexing_technique") and not context.dataset.indexing_technique:
        if not profile.checks_technique:
            raise LookupError("a fresh dataset needs a technique")
        raise invalid_param("indexing_technique is required.")
    if profile.wording is not Wording.PYDANTIC:
        # Older servers hand on what was not sent as null (recording 125).
        _CHOSEN.validate({"indexing_technique": None} | fields, profile)
    _TECHNIQUE.validate(fields, profile)
    fields |= _CONFIG.validate(fields, profile)
    _check_rule(fields)
    context.notes.original = _original(fields)
    return codec.decode(CreateByText, fields)


def read_update_text(context: Context, raw: object) -> UpdateByText:
    """Read the body of update-by-text: a text with its name, or a rule (measured)."""
    fields = _UPDATE.read(raw, context.profile)
    if fields.get("text") and not fields.get("name"):
        raise _nameless(context, raw)
    fields |= _CONFIG.validate(fields, context.profile)
    _require_change(context, fields, changes="text" in fields)
    return codec.decode(UpdateByText, {"name": "", "text": ""} | fields)


def _original(fields: dict[str, Any]) -> str | None:
    """Take out the document that a create is to update, whatever its name."""
    original = fields.pop("original_document_id", None)
    return str(original) if original else None


def _nameless(context: Context, raw: object) -> RefusedError:
    if context.profile.wording is not Wording.PYDANTIC:
        return invalid_param("Both text and name must be strings.")
    problems = Problems(context.profile)
    what = "Value error, name is required when text is provided"
    problems.add((), what, "value_error", raw)
    return problems.refusal("DocumentTextUpdate")


def _require_change(context: Context, fields: dict[str, Any], *, changes: bool) -> None:
    """Refuse an update that brings neither text nor rule; a name alone is nothing."""
    if not changes and fields.get("process_rule") is None:
        raise invalid_param("Data source or Process rule is required")
    _check_rule(fields)
    context.notes.rule_only = not changes


def read_file(context: Context, raw: Form) -> CreateByFile:
    """Read the form of create-by-file (measured)."""
    data = json_data(raw)
    technique = data.get("indexing_technique") or context.dataset.indexing_technique
    if not technique:
        raise invalid_param("indexing_technique is required.")
    part = only_file(context, raw)
    context.notes.document, context.notes.mime_type = part.filename, part.content_type
    if not _taken(part, context.settings.max_file_size):
        # Type and size are refused alike, without a word.
        raise invalid_param("")
    config = _CONFIG.validate(data, context.profile) | {"indexing_technique": technique}
    _TECHNIQUE.validate(config, context.profile)
    _check_rule(config)
    context.notes.original = _original(config)
    return CreateByFile(
        file=File(name=part.filename, content=part.content, size=part.size),
        indexing_technique=_decoded(IndexingTechnique, config, "indexing_technique"),
        doc_form=_decoded(DocForm, config, "doc_form"),
        doc_language=_decoded(str, config, "doc_language"),
        process_rule=_decoded(ProcessRule, config, "process_rule"),
        retrieval_model=_decoded(RetrievalModel, config, "retrieval_model"),
        embedding_model=_decoded(str, config, "embedding_model"),
        embedding_model_provider=_decoded(str, config, "embedding_model_provider"),
        duplicate=_decoded(bool, config, "duplicate"),
    )


def read_update_file(context: Context, raw: Form) -> UpdateByFile:
    """Read the form of update-by-file; its refusals have words (measured)."""
    data = json_data(raw)
    part = only_file(context, raw) if raw.files else None
    if part is not None:
        _refuse_loudly(part, context.settings.max_file_size)
        context.notes.mime_type = part.content_type
    config = _CONFIG.validate(data, context.profile)
    _require_change(context, config, changes=part is not None)
    if part is None:
        part = Part("file", "", None, b"", 0)
    return UpdateByFile(
        file=File(name=part.filename, content=part.content, size=part.size),
        name=_decoded(str, data, "name"),
        doc_form=_decoded(DocForm, config, "doc_form"),
        doc_language=_decoded(str, config, "doc_language"),
        process_rule=_decoded(ProcessRule, config, "process_rule"),
    )


def json_data(form: Form) -> dict[str, Any]:
    """Read the field `data`; a list there is a crash up to 1.12 (recording 229)."""
    try:
        data = json.loads(form.fields.get("data", "{}"))
    except ValueError as error:
        raise invalid_param(str(error)) from error
    if not isinstance(data, dict):
        raise UncheckedError(invalid_param("data: Input should be a valid dictionary"))
    return data


def only_file(context: Context, form: Form) -> Part:
    """Take the one file of a form."""
    if "file" not in form.files:
        if context.profile.empty_param_error:
            raise RefusedError(400, "bad_request_key_error", BAD_REQUEST)
        raise RefusedError(400, "no_file_uploaded", "Please upload your file.")
    if len(form.files) > 1:
        raise RefusedError(400, "too_many_files", "Only one file is allowed.")
    part = form.files["file"]
    if not part.filename:
        message = "The specified filename does not exist."
        raise RefusedError(400, "filename_not_exists_error", message)
    return part


def extension(name: str) -> str:
    """Tell the extension that decides how a file is read."""
    return PurePath(name).suffix[1:].lower()


def text_upload(name: str, text_: str) -> Upload:
    """Make a file of a text."""
    return Upload(
        name=name[:MAX_NAME],
        content=text_.encode(errors="surrogatepass"),
        # Counted in characters, unlike a file's.
        size=len(text_),
        extension="txt",
        mime_type="text/plain",
    )


def file_upload(context: Context, file: File, *, replaces: bool = True) -> Upload:
    """Take a file as it came, but for a name that is too long."""
    name, suffix = file.name, extension(file.name)
    if len(name) > MAX_NAME:
        # Cut at the first dot, so that v1.aaa….txt becomes v1.txt (measured).
        name = f"{name.split('.')[0][:MAX_NAME]}.{suffix}"
    if not isinstance(file.content, bytes):
        raise TypeError("a form holds its files as bytes")
    return Upload(
        name=name,
        content=file.content,
        size=len(file.content),
        extension=suffix,
        mime_type=context.notes.mime_type,
        replaces=replaces,
    )


def _taken(part: Part, max_size: int) -> bool:
    """Tell whether a file is of a type and size that is taken; a bad name is refused."""
    if _FORBIDDEN.intersection(part.filename):
        raise invalid_param("Filename contains invalid characters")
    return extension(part.filename) in DOCUMENT_EXTENSIONS and part.size <= max_size


def _refuse_loudly(part: Part, max_size: int) -> None:
    if part.size > max_size:
        # The placeholder is the server's (recording 322).
        raise RefusedError(413, "file_too_large", "File size exceeded. {message}")
    if not _taken(part, max_size):
        raise RefusedError(415, "unsupported_file_type", "File type not allowed.")


def _check_rule(fields: dict[str, Any]) -> None:
    """Refuse the rules that the server refuses; the others fail while indexing (measured)."""
    rule = fields.get("process_rule")
    if rule is None:
        return
    if rule["mode"] == "automatic":
        rule.pop("rules", None)
        return
    rules = rule.get("rules")
    if rules is None:
        raise invalid_param("Process rule rules is required")
    if "pre_processing_rules" not in rules:
        raise invalid_param("Process rule pre_processing_rules is required")
    if "segmentation" not in rules:
        raise invalid_param("Process rule segmentation is required")
    _check_segmentation(rules["segmentation"], full=rules.get("parent_mode") == "full-doc")


def _check_segmentation(segmentation: dict[str, Any], *, full: bool) -> None:
    if not segmentation.get("separator", "\n"):
        raise invalid_param("Process rule segmentation separator is required")
    if not segmentation["max_tokens"] and not full:
        raise invalid_param("Process rule segmentation max_tokens is required")


def _decoded(shape: type[T], fields: dict[str, Any], name: str) -> T | Unset:
    return codec.decode(shape, fields[name]) if name in fields else UNSET
