"""Pipelines, of which there are no recordings: all here is from the API's pages of 1.16.

A base has a pipeline when `Settings.pipelines` was on as it was made. The pipeline is one node that
takes local files and makes documents of them, as a create-by-file with an automatic rule does.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from dify_kb.emulator.context import Context, serves
from dify_kb.emulator.intake import Upload, take_in
from dify_kb.emulator.payload import Field, Payload, anything, flag, items, text, words
from dify_kb.emulator.refused import RefusedError, invalid_param
from dify_kb.emulator.store import PipelineFileRow
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

from .forms import extension, only_file

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dify_kb.emulator.multipart import Form

NODE: Final = "1719288585006"
"""The id of the one node."""

_TYPES: Final = words([*DatasourceType])

_DATASOURCE = Payload(
    "DatasourceNodeRunPayload",
    {
        "inputs": Field(anything, required=True),
        "datasource_type": Field(_TYPES, required=True),
        "credential_id": Field(text()),
        "is_published": Field(flag, required=True),
    },
)

_RUN = Payload(
    "PipelineRunApiEntity",
    {
        "inputs": Field(anything, required=True),
        "datasource_type": Field(_TYPES, required=True),
        "datasource_info_list": Field(items(anything), required=True),
        "start_node_id": Field(text(), required=True),
        "is_published": Field(flag, required=True),
        "response_mode": Field(words(["streaming", "blocking"]), required=True),
    },
)


def _read_upload(context: Context, raw: Form) -> UploadPipelineFile:
    """Read a file of any type, since the pipeline decides which it takes."""
    part = only_file(context, raw)
    if part.size > context.settings.max_file_size:
        raise RefusedError(413, "file_too_large", "File size exceeded.")
    context.notes.mime_type = part.content_type
    return UploadPipelineFile(file=File(name=part.filename, content=part.content, size=part.size))


def _read_plugins(_: Context, raw: object) -> ListDatasourcePlugins:
    return codec.decode(ListDatasourcePlugins, raw)


def _read_datasource(context: Context, raw: object) -> RunDatasource:
    return codec.decode(RunDatasource, _DATASOURCE.read(raw, context.profile))


def _read_run(context: Context, raw: object) -> RunPipeline:
    return codec.decode(RunPipeline, _RUN.read(raw, context.profile))


@serves(catalog.UPLOAD_PIPELINE_FILE, _read_upload)
def upload_file(context: Context, body: UploadPipelineFile) -> PipelineFile:
    """Keep a file for a run."""
    now, file = context.clock.now(), body.file
    if not isinstance(file.content, bytes):
        raise TypeError("a form holds its files as bytes")
    row = PipelineFileRow(
        id=str(uuid.uuid4()),
        name=file.name,
        size=len(file.content),
        extension=extension(file.name),
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


@serves(catalog.LIST_DATASOURCE_PLUGINS, _read_plugins)
def datasource_plugins(context: Context, _: ListDatasourcePlugins) -> list[DatasourcePlugin]:
    """List the one node; draft and published pipeline are the same."""
    _require_pipeline(context)
    return [
        DatasourcePlugin(
            node_id=NODE,
            plugin_id="langgenius/file",
            provider_name="file",
            datasource_type=DatasourceType.LOCAL_FILE,
            title="Local File",
        )
    ]


@serves(catalog.RUN_DATASOURCE, _read_datasource)
def run_datasource(context: Context, _: RunDatasource) -> Event:
    """Stream what the node can bring in: nothing, as local files are named by whoever runs it."""
    _require_pipeline(context)
    _require_node(context.slots["node_id"])
    context.notes.events = [
        _event("datasource_processing", total=0, completed=0),
        _event("datasource_completed", data=[], total=0, completed=0),
    ]
    return context.notes.events[-1]


@serves(catalog.RUN_PIPELINE, _read_run)
def run(context: Context, body: RunPipeline) -> Event:
    """Make documents of uploaded files; their indexing goes on after the answer."""
    _require_pipeline(context)
    _require_node(body.start_node_id)
    if body.datasource_type != DatasourceType.LOCAL_FILE:
        raise _failed(f"Datasource type {body.datasource_type} is not configured")
    started = int(context.clock.now())
    with context.store.transaction():
        for upload in [_upload(context, info) for info in body.datasource_info_list]:
            take_in(context, upload, _as_create(context, upload))
    events = _events(context, started)
    if body.response_mode == "streaming":
        context.notes.events = events
    return events[-1]


def _upload(context: Context, info: Mapping[str, object]) -> Upload:
    reference = info.get("reference") or info.get("related_id")
    row = context.store.pipeline_files.get(str(reference))
    if row is None:
        raise _failed(f"File {reference} not found")
    return Upload(
        name=str(info.get("name") or "untitled"),
        content=row.content,
        size=row.size,
        extension=row.extension,
        mime_type=row.mime_type,
        replaces=False,
    )


def _as_create(context: Context, upload: Upload) -> CreateByFile:
    fresh = context.store.datasets.latest_rule(context.dataset.id) is None
    return CreateByFile(
        file=File(name=upload.name, content=upload.content, size=upload.size),
        indexing_technique=IndexingTechnique.ECONOMY,
        process_rule=ProcessRule.automatic() if fresh else UNSET,
    )


def _events(context: Context, started: int) -> Sequence[Event]:
    run_id, task_id = str(uuid.uuid4()), str(uuid.uuid4())
    ids = {"task_id": task_id, "workflow_run_id": run_id}
    node = {"node_id": NODE, "node_type": "datasource", "title": "Local File", "inputs": {}}
    ended = {"status": "succeeded", "outputs": {}, "elapsed_time": 0.0}
    times = {"created_at": started, "finished_at": int(context.clock.now())}
    return [
        _event("workflow_started", **ids, data={"id": run_id, "created_at": started}),
        _event("node_started", **ids, data=node),
        _event("node_finished", **ids, data=node | ended),
        _event(
            "workflow_finished", **ids, data={"id": run_id, "total_tokens": 0, **ended, **times}
        ),
    ]


def _event(name: str, **fields: Any) -> Event:
    return Event(event=name, data={"event": name, **fields})


def _require_pipeline(context: Context) -> None:
    if context.dataset.pipeline_id is None:
        raise invalid_param("Pipeline not found")


def _require_node(node_id: str) -> None:
    if node_id != NODE:
        raise _failed(f"Node {node_id} not found")


def _failed(why: str) -> RefusedError:
    return RefusedError(500, "pipeline_run_error", why)


HANDLERS = (upload_file, datasource_plugins, run_datasource, run)
