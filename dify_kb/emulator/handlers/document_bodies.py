"""Parse requests that create or update documents, with checks in the server's order."""

from __future__ import annotations

import json
import os.path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from dify_kb.emulator.create_document import DocumentUpload
from dify_kb.emulator.errors import EmulatedError, UnvalidatedInputError, invalid_param_error
from dify_kb.emulator.request_body import BAD_REQUEST_MESSAGE, UploadedFile
from dify_kb.emulator.server_profile import ErrorStyle
from dify_kb.emulator.validation import (
    BodyField,
    BodySchema,
    FieldPath,
    LegacyField,
    ValidationErrors,
    accept_any,
    string_validator,
    validate_boolean,
)
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

from .common_fields import PROCESS_RULE, RETRIEVAL_MODEL, TECHNIQUE

if TYPE_CHECKING:
    from dify_kb.emulator.request_body import FormData
    from dify_kb.emulator.request_context import RequestContext

T = TypeVar("T")

MAX_NAME: Final = 200
"""Maximum length of a document name, in characters; longer names are cut (measured)."""


def _check_doc_form(value: object, path: FieldPath, problems: ValidationErrors) -> object:
    """Check a document form where the version does (156, 1399)."""
    if problems.profile.quirks.validates_doc_form and value not in {*DocForm}:
        problems.add(path, "Value error, Invalid doc_form.", "value_error", value)
    return value


_COMMON_FIELDS = {
    "doc_form": BodyField(_check_doc_form),
    "doc_language": BodyField(string_validator()),
    "process_rule": BodyField(PROCESS_RULE, legacy=LegacyField(check=accept_any)),
    "retrieval_model": BodyField(RETRIEVAL_MODEL, legacy=LegacyField(check=accept_any)),
    "embedding_model": BodyField(string_validator()),
    "embedding_model_provider": BodyField(string_validator()),
    "indexing_technique": BodyField(
        string_validator(), legacy=LegacyField(check=TECHNIQUE, nullable=False)
    ),
    "original_document_id": BodyField(string_validator()),
}

_CREATE_BY_TEXT = BodySchema(
    "DocumentTextCreatePayload",
    {
        "name": BodyField(string_validator(), required=True),
        "text": BodyField(string_validator(), required=True),
    }
    | _COMMON_FIELDS,
)

_UPDATE_BY_TEXT = BodySchema(
    "DocumentTextUpdate",
    {"name": BodyField(string_validator()), "text": BodyField(string_validator())} | _COMMON_FIELDS,
)

_CONFIG = BodySchema("KnowledgeConfig", _COMMON_FIELDS | {"duplicate": BodyField(validate_boolean)})

_TECHNIQUE = BodySchema(
    "KnowledgeConfig", {"indexing_technique": BodyField(TECHNIQUE, required=True)}
)

_REQUIRED_TECHNIQUE = BodySchema(
    "KnowledgeConfig", {"indexing_technique": BodyField(TECHNIQUE, required=True, nullable=False)}
)


def read_create_by_text(context: RequestContext, raw: object) -> CreateByText:
    """Parse the body of create-by-text, which must contain the indexing technique."""
    profile = context.profile
    fields = _CREATE_BY_TEXT.validate(raw, profile)
    context.notes.document = str(fields["name"])
    if not fields.get("indexing_technique") and not context.dataset.indexing_technique:
        if not profile.checks_technique:
            raise LookupError("a new dataset requires an indexing technique")
        raise invalid_param_error("indexing_technique is required.")
    if profile.error_style is not ErrorStyle.PYDANTIC:
        # Older servers pass a missing field on as null (recording 125).
        _REQUIRED_TECHNIQUE.validate_with_pydantic({"indexing_technique": None} | fields, profile)
    _TECHNIQUE.validate_with_pydantic(fields, profile)
    fields |= _CONFIG.validate_with_pydantic(fields, profile)
    _check_process_rule(fields)
    context.notes.replaced_document_id = _pop_original_id(fields)
    return codec.decode(CreateByText, fields)


def read_update_by_text(context: RequestContext, raw: object) -> UpdateByText:
    """Parse the body of update-by-text: a text with its name, or a process rule (measured)."""
    fields = _UPDATE_BY_TEXT.validate(raw, context.profile)
    if fields.get("text") and not fields.get("name"):
        raise _build_missing_name_error(context, raw)
    fields |= _CONFIG.validate_with_pydantic(fields, context.profile)
    _require_change(context, fields, changes="text" in fields)
    return codec.decode(UpdateByText, {"name": "", "text": ""} | fields)


def _pop_original_id(fields: dict[str, Any]) -> str | None:
    """Remove and return the id of the document that a create updates, if given."""
    original = fields.pop("original_document_id", None)
    return str(original) if original else None


def _build_missing_name_error(context: RequestContext, raw: object) -> EmulatedError:
    if context.profile.error_style is not ErrorStyle.PYDANTIC:
        return invalid_param_error("Both text and name must be strings.")
    problems = ValidationErrors(context.profile)
    message = "Value error, name is required when text is provided"
    problems.add((), message, "value_error", raw)
    return problems.to_error("DocumentTextUpdate")


def _require_change(context: RequestContext, fields: dict[str, Any], *, changes: bool) -> None:
    """Refuse an update without content or process rule; a name alone is not enough."""
    if not changes and fields.get("process_rule") is None:
        raise invalid_param_error("Data source or Process rule is required")
    _check_process_rule(fields)
    context.notes.rule_only = not changes


def read_create_by_file(context: RequestContext, raw: FormData) -> CreateByFile:
    """Parse the form of create-by-file (measured)."""
    data = parse_json_data(raw)
    technique = data.get("indexing_technique") or context.dataset.indexing_technique
    if not technique:
        raise invalid_param_error("indexing_technique is required.")
    part = require_single_file(context, raw)
    context.notes.document, context.notes.mime_type = part.filename, part.content_type
    if not _is_accepted(context, part):
        # Wrong type and size get the same empty message.
        raise invalid_param_error("")
    config = _CONFIG.validate_with_pydantic(data, context.profile) | {
        "indexing_technique": technique
    }
    _TECHNIQUE.validate_with_pydantic(config, context.profile)
    _check_process_rule(config)
    context.notes.replaced_document_id = _pop_original_id(config)
    return CreateByFile(
        file=File(name=part.filename, content=part.content, size=part.size),
        indexing_technique=_decode_field(IndexingTechnique, config, "indexing_technique"),
        doc_form=_decode_field(DocForm, config, "doc_form"),
        doc_language=_decode_field(str, config, "doc_language"),
        process_rule=_decode_field(ProcessRule, config, "process_rule"),
        retrieval_model=_decode_field(RetrievalModel, config, "retrieval_model"),
        embedding_model=_decode_field(str, config, "embedding_model"),
        embedding_model_provider=_decode_field(str, config, "embedding_model_provider"),
        duplicate=_decode_field(bool, config, "duplicate"),
    )


def read_update_by_file(context: RequestContext, raw: FormData) -> UpdateByFile:
    """Parse the form of update-by-file; unlike create-by-file, errors have messages (measured)."""
    data = parse_json_data(raw)
    part = require_single_file(context, raw) if raw.files else None
    if part is not None:
        _check_accepted(context, part)
        context.notes.mime_type = part.content_type
    config = _CONFIG.validate_with_pydantic(data, context.profile)
    _require_change(context, config, changes=part is not None)
    if part is None:
        part = UploadedFile("file", "", None, b"", 0)
    return UpdateByFile(
        file=File(name=part.filename, content=part.content, size=part.size),
        name=_decode_field(str, data, "name"),
        doc_form=_decode_field(DocForm, config, "doc_form"),
        doc_language=_decode_field(str, config, "doc_language"),
        process_rule=_decode_field(ProcessRule, config, "process_rule"),
    )


def parse_json_data(form: FormData) -> dict[str, Any]:
    """Parse the form field `data`; JSON that is not an object crashes servers (229, 2263)."""
    try:
        data = json.loads(form.fields.get("data", "{}"))
    except ValueError as error:
        raise invalid_param_error(str(error)) from error
    if not isinstance(data, dict):
        raise UnvalidatedInputError("the form field data is not an object")
    return data


def require_single_file(context: RequestContext, form: FormData) -> UploadedFile:
    """Return the only file of a form."""
    if "file" not in form.files:
        if context.profile.empty_param_error:
            raise EmulatedError(400, "bad_request_key_error", BAD_REQUEST_MESSAGE)
        raise EmulatedError(400, "no_file_uploaded", "Please upload your file.")
    if len(form.files) > 1:
        raise EmulatedError(400, "too_many_files", "Only one file is allowed.")
    part = form.files["file"]
    if not part.filename:
        message = "The specified filename does not exist."
        raise EmulatedError(400, "filename_not_exists_error", message)
    return part


def file_extension(name: str) -> str:
    """Return the lowercase extension, which selects the parser of the file."""
    # "..txt" has no extension (2171), but a `PurePath.suffix` on newer Python versions.
    return os.path.splitext(name)[1][1:].lower()  # noqa: PTH122


def upload_from_text(name: str, content: str) -> DocumentUpload:
    """Build an upload from a text."""
    return DocumentUpload(
        name=name[:MAX_NAME],
        content=content.encode(errors="surrogatepass"),
        # In characters, unlike the size of a file.
        size=len(content),
        extension="txt",
        mime_type="text/plain",
    )


def upload_from_file(
    context: RequestContext, file: File, *, replaces: bool = True
) -> DocumentUpload:
    """Build an upload from a file; a name that is too long is cut."""
    name, suffix = file.name, file_extension(file.name)
    if len(name) > MAX_NAME:
        # Cut at the first dot, so that v1.aaa….txt becomes v1.txt (measured).
        name = f"{name.split('.')[0][:MAX_NAME]}.{suffix}"
    if not isinstance(file.content, bytes):
        raise TypeError("the content of a form file must be bytes")
    return DocumentUpload(
        name=name,
        content=file.content,
        size=len(file.content),
        extension=suffix,
        mime_type=context.notes.mime_type,
        replaces=replaces,
    )


def _is_accepted(context: RequestContext, part: UploadedFile) -> bool:
    """Return whether type and size of a file are accepted; refuse an invalid name."""
    if not frozenset(context.profile.forbidden_in_names).isdisjoint(part.filename):
        raise invalid_param_error("Filename contains invalid characters")
    is_known = file_extension(part.filename) in DOCUMENT_EXTENSIONS
    return is_known and part.size <= context.settings.max_file_size


def _check_accepted(context: RequestContext, part: UploadedFile) -> None:
    if part.size > context.settings.max_file_size:
        raise EmulatedError(413, "file_too_large", context.profile.too_large_message)
    if not _is_accepted(context, part):
        raise EmulatedError(415, "unsupported_file_type", "File type not allowed.")


def _check_process_rule(fields: dict[str, Any]) -> None:
    """Refuse the rules that the server refuses; others may fail during indexing (measured)."""
    rule = fields.get("process_rule")
    if rule is None:
        return
    if rule["mode"] == "automatic":
        rule.pop("rules", None)
        return
    rules = rule.get("rules")
    if rules is None:
        raise invalid_param_error("Process rule rules is required")
    if "pre_processing_rules" not in rules:
        raise invalid_param_error("Process rule pre_processing_rules is required")
    if "segmentation" not in rules:
        raise invalid_param_error("Process rule segmentation is required")
    _check_segmentation(rules["segmentation"], full=rules.get("parent_mode") == "full-doc")


def _check_segmentation(segmentation: dict[str, Any], *, full: bool) -> None:
    if not segmentation.get("separator", "\n"):
        raise invalid_param_error("Process rule segmentation separator is required")
    if not segmentation["max_tokens"] and not full:
        raise invalid_param_error("Process rule segmentation max_tokens is required")


def _decode_field(shape: type[T], fields: dict[str, Any], name: str) -> T | Unset:
    return codec.decode(shape, fields[name]) if name in fields else UNSET
