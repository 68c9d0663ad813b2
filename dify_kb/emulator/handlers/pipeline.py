"""Request handlers for pipelines, based on the API pages of 1.16 because there are no recordings.

A dataset has a pipeline if `Settings.pipelines` was on when it was created. The pipeline has a
single node, which creates documents from local files, like create-by-file with an automatic rule.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from dify_kb.emulator.create_document import DocumentUpload, create_document
from dify_kb.emulator.errors import EmulatedError, invalid_param_error
from dify_kb.emulator.request_context import RequestContext, handles
from dify_kb.emulator.store import PipelineFileRow
from dify_kb.emulator.validation import (
    BodyField,
    BodySchema,
    accept_any,
    choice_validator,
    list_validator,
    string_validator,
    validate_boolean,
)
from dify_kb.models import (
    UNSET,
    CreateByFile,
    DatasourcePlugin,
    DatasourceType,
    Event,
    File,
    IndexingTechnique,
    ListDatasourcePlugins,
    PipelineFile,
    ProcessRule,
    RunDatasource,
    RunPipeline,
    UploadPipelineFile,
)
from dify_kb.wire import catalog, codec

from .document_bodies import file_extension, require_single_file

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dify_kb.emulator.request_body import FormData

NODE_ID: Final = "1719288585006"
"""The id of the single node."""

_DATASOURCE_TYPE: Final = choice_validator([*DatasourceType])

_RESPONSE_MODE: Final = choice_validator(["streaming", "blocking"])

_DATASOURCE = BodySchema(
    "DatasourceNodeRunPayload",
    {
        "inputs": BodyField(accept_any, required=True),
        "datasource_type": BodyField(string_validator(), required=True),
        "credential_id": BodyField(string_validator()),
        "is_published": BodyField(validate_boolean, required=True),
    },
)

_RUN = BodySchema(
    "PipelineRunApiEntity",
    {
        "inputs": BodyField(accept_any, required=True),
        "datasource_type": BodyField(string_validator(), required=True),
        "datasource_info_list": BodyField(list_validator(accept_any), required=True),
        "start_node_id": BodyField(string_validator(), required=True),
        "is_published": BodyField(validate_boolean, required=True),
        "response_mode": BodyField(string_validator(), required=True),
    },
)


def _read_upload(context: RequestContext, raw: FormData) -> UploadPipelineFile:
    """Parse a file of any type, since the pipeline decides which types it accepts."""
    part = require_single_file(context, raw)
    if part.content_type is None or part.size > context.settings.max_file_size:
        # Both get the same empty message (1561, 1562).
        raise invalid_param_error("")
    context.notes.mime_type = part.content_type
    return UploadPipelineFile(file=File(name=part.filename, content=part.content, size=part.size))


def _read_plugins(_: RequestContext, raw: object) -> ListDatasourcePlugins:
    return codec.decode(ListDatasourcePlugins, raw)


def _read_datasource(context: RequestContext, raw: object) -> RunDatasource:
    fields = _DATASOURCE.validate(raw, context.profile)
    _check_choices(context, _DATASOURCE.title, fields)
    return codec.decode(RunDatasource, fields)


def _read_run(context: RequestContext, raw: object) -> RunPipeline:
    fields = _RUN.validate(raw, context.profile)
    _check_choices(context, _RUN.title, fields)
    return codec.decode(RunPipeline, fields)


def _check_choices(context: RequestContext, title: str, fields: dict[str, object]) -> None:
    """Refuse unknown words, but only after the pipeline was found (1546)."""
    _require_pipeline(context)
    BodySchema(
        title,
        {
            "datasource_type": BodyField(_DATASOURCE_TYPE),
            "response_mode": BodyField(_RESPONSE_MODE),
        },
    ).validate(fields, context.profile)


@handles(catalog.UPLOAD_PIPELINE_FILE, _read_upload)
def upload_pipeline_file(context: RequestContext, body: UploadPipelineFile) -> PipelineFile:
    """Store a file for a pipeline run."""
    now, file = context.clock.now(), body.file
    if not isinstance(file.content, bytes):
        raise TypeError("the content of a form file must be bytes")
    row = PipelineFileRow(
        id=str(uuid.uuid4()),
        name=file.name,
        size=len(file.content),
        extension=file_extension(file.name),
        mime_type=context.notes.mime_type,
        created_at=now,
        content=file.content,
    )
    context.store.pipeline_files.add(row)
    created = datetime.fromtimestamp(now, UTC).replace(tzinfo=None).isoformat()
    return PipelineFile(
        id=row.id,
        name=row.name,
        size=row.size,
        extension=row.extension,
        mime_type=row.mime_type,
        created_by=context.store.account,
        extra={"created_at": created},
    )


@handles(catalog.LIST_DATASOURCE_PLUGINS, _read_plugins)
def list_datasource_plugins(
    context: RequestContext, _: ListDatasourcePlugins
) -> list[DatasourcePlugin]:
    """List the single node; draft and published pipeline are the same."""
    _require_pipeline(context)
    return [
        DatasourcePlugin(
            node_id=NODE_ID,
            plugin_id="langgenius/file",
            provider_name="file",
            datasource_type=DatasourceType.LOCAL_FILE,
            title="Local File",
        )
    ]


@handles(catalog.RUN_DATASOURCE, _read_datasource)
def run_datasource(context: RequestContext, _: RunDatasource) -> Event:
    """Stream an empty list of files: local files are named in the pipeline run."""
    _require_pipeline(context)
    _require_node(context.path_parameters["node_id"])
    context.notes.events = [
        _build_event("datasource_processing", total=0, completed=0),
        _build_event("datasource_completed", data=[], total=0, completed=0),
    ]
    return context.notes.events[-1]


@handles(catalog.RUN_PIPELINE, _read_run)
def run_pipeline(context: RequestContext, body: RunPipeline) -> Event:
    """Create documents from uploaded files; indexing continues after the response."""
    _require_pipeline(context)
    _require_node(body.start_node_id)
    if body.datasource_type != DatasourceType.LOCAL_FILE:
        raise _build_error(f"Datasource type {body.datasource_type} is not configured")
    started = int(context.clock.now())
    with context.store.transaction():
        for upload in [_to_upload(context, info) for info in body.datasource_info_list]:
            create_document(context, upload, _to_create_body(context, upload))
    events = _build_run_events(context, started)
    if body.response_mode == "streaming":
        context.notes.events = events
    return events[-1]


def _to_upload(context: RequestContext, info: Mapping[str, object]) -> DocumentUpload:
    reference = info.get("reference") or info.get("related_id")
    row = context.store.pipeline_files.get(str(reference))
    if row is None:
        raise _build_error(f"File {reference} not found")
    return DocumentUpload(
        name=str(info.get("name") or "untitled"),
        content=row.content,
        size=row.size,
        extension=row.extension,
        mime_type=row.mime_type,
        replaces=False,
    )


def _to_create_body(context: RequestContext, upload: DocumentUpload) -> CreateByFile:
    fresh = context.store.datasets.get_latest_rule(context.dataset.id) is None
    return CreateByFile(
        file=File(name=upload.name, content=upload.content, size=upload.size),
        indexing_technique=IndexingTechnique.ECONOMY,
        process_rule=ProcessRule.automatic() if fresh else UNSET,
    )


def _build_run_events(context: RequestContext, started: int) -> Sequence[Event]:
    run_id, task_id = str(uuid.uuid4()), str(uuid.uuid4())
    ids = {"task_id": task_id, "workflow_run_id": run_id}
    node = {"node_id": NODE_ID, "node_type": "datasource", "title": "Local File", "inputs": {}}
    ended = {"status": "succeeded", "outputs": {}, "elapsed_time": 0.0}
    times = {"created_at": started, "finished_at": int(context.clock.now())}
    return [
        _build_event("workflow_started", **ids, data={"id": run_id, "created_at": started}),
        _build_event("node_started", **ids, data=node),
        _build_event("node_finished", **ids, data=node | ended),
        _build_event(
            "workflow_finished", **ids, data={"id": run_id, "total_tokens": 0, **ended, **times}
        ),
    ]


def _build_event(name: str, **fields: Any) -> Event:
    return Event(event=name, data={"event": name, **fields})


def _require_pipeline(context: RequestContext) -> None:
    if context.dataset.pipeline_id is None:
        raise invalid_param_error("Pipeline not found")


def _require_node(node_id: str) -> None:
    if node_id != NODE_ID:
        raise _build_error(f"Node {node_id} not found")


def _build_error(reason: str) -> EmulatedError:
    return EmulatedError(500, "pipeline_run_error", reason)


HANDLERS = (upload_pipeline_file, list_datasource_plugins, run_datasource, run_pipeline)
