"""Reading what documents are created from, in the order in which the server checks it."""

from __future__ import annotations

import json
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final, TypeVar

from dify_kb.emulator.payload import Field, Payload, flag, text
from dify_kb.emulator.refused import RefusedError, invalid_param
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
)
from dify_kb.wire import codec

from .fields import PROCESS_RULE, RETRIEVAL_MODEL, TECHNIQUE

if TYPE_CHECKING:
    from dify_kb.emulator.context import Context
    from dify_kb.emulator.multipart import Form, Part

T = TypeVar("T")

MAX_NAME: Final = 200
"""Characters of a document's name; a longer one is cut (findings.md §5.12)."""

_FORBIDDEN: Final = frozenset('/\\:*?"<>|')

_COMMON = {
    "doc_form": Field(text()),
    "doc_language": Field(text()),
    "process_rule": Field(PROCESS_RULE),
    "retrieval_model": Field(RETRIEVAL_MODEL),
    "embedding_model": Field(text()),
    "embedding_model_provider": Field(text()),
    "indexing_technique": Field(text()),
}

_TEXT = Payload(
    "DocumentTextCreatePayload",
    _COMMON
    | {
        "name": Field(text(), required=True),
        "text": Field(text(), required=True),
    },
)

_CONFIG = Payload("KnowledgeConfig", _COMMON | {"duplicate": Field(flag)})

_TECHNIQUE = Payload("KnowledgeConfig", {"indexing_technique": Field(TECHNIQUE, required=True)})


def read_text(context: Context, raw: object) -> CreateByText:
    """Read the body of create-by-text, which never falls back to the dataset's technique."""
    fields = _TEXT.read(raw, context.profile.pydantic)
    context.notes.document = str(fields["name"])
    technique = fields.get("indexing_technique")
    if not technique and not context.dataset.indexing_technique:
        raise invalid_param("indexing_technique is required.")
    _TECHNIQUE.read(fields, context.profile.pydantic)
    _check_rule(fields)
    return codec.decode(CreateByText, fields)


def read_file(context: Context, raw: Form) -> CreateByFile:
    """Read the form of create-by-file (findings.md §5.6, §5.9, §5.10)."""
    data = json_data(raw)
    technique = data.get("indexing_technique") or context.dataset.indexing_technique
    if not technique:
        raise invalid_param("indexing_technique is required.")
    part = only_file(raw)
    context.notes.document, context.notes.mime_type = part.filename, part.content_type
    _check_file(part, context.settings.max_file_size)
    config = _CONFIG.read(data, context.profile.pydantic) | {"indexing_technique": technique}
    _TECHNIQUE.read(config, context.profile.pydantic)
    _check_rule(config)
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


def json_data(form: Form) -> dict[str, Any]:
    """Read the field `data`; a list there is a crash of the server (recording 229)."""
    try:
        data = json.loads(form.fields.get("data", "{}"))
    except ValueError as error:
        raise invalid_param(str(error)) from error
    if not isinstance(data, dict):
        raise TypeError("data is no object")
    return data


def only_file(form: Form) -> Part:
    """Take the one file of a form."""
    if "file" not in form.files:
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


def _check_file(part: Part, max_size: int) -> None:
    """Refuse a file; type and size are refused alike, without a word (findings.md §5.10)."""
    if _FORBIDDEN.intersection(part.filename):
        raise invalid_param("Filename contains invalid characters")
    if extension(part.filename) not in DOCUMENT_EXTENSIONS or part.size > max_size:
        raise invalid_param("")


def _check_rule(fields: dict[str, Any]) -> None:
    """Refuse the rules that the server refuses; the others fail while indexing (§5.7)."""
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
