from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO, Literal

from attrs import frozen

from dify_kb.models import (
    UNSET,
    Dataset,
    DatasourcePlugin,
    DatasourceType,
    Event,
    ListDatasourcePlugins,
    PipelineFile,
    RunDatasource,
    RunPipeline,
    Unset,
    UploadPipelineFile,
)
from dify_kb.wire import catalog
from dify_kb.wire.endpoint import Call, CallSender

from ._arguments import file_from_argument, get_dataset_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path


@frozen
class Events:
    """The events of a run as they come: `async for event in events`. Sent when it is iterated,
    and once: a run is never repeated.
    """

    _send: CallSender
    _call: Call[Event]

    async def pages(self) -> AsyncIterator[Sequence[Event]]:
        """Give each event by itself."""
        async for event in self._send.stream(self._call):
            yield [event]

    def __aiter__(self) -> AsyncIterator[Event]:
        return self._send.stream(self._call)


@frozen
class Pipeline:
    """Knowledge pipelines; since 1.16. There are no recordings of them: shapes are those of the
    published API.
    """

    _send: CallSender

    async def upload_file(
        self, file: Path | str | bytes | BinaryIO, *, name: str | None = None
    ) -> PipelineFile:
        """Upload a file that a run can name by its id. One request.

        Raises:
            ConfigError: a name that the server would refuse, or none.
            TooLargeError: it is larger than the server takes.
        """
        request = UploadPipelineFile(file=await file_from_argument(file, name))
        return await self._send(catalog.UPLOAD_PIPELINE_FILE(request))

    async def datasource_plugins(
        self, dataset_id: Dataset | str, *, is_published: bool = True
    ) -> Sequence[DatasourcePlugin]:
        """Fetch the nodes of the pipeline that bring documents in. One request.

        Args:
            is_published: of the published pipeline, else of its draft.
        """
        request = ListDatasourcePlugins(is_published="true" if is_published else "")
        return await self._send(
            catalog.LIST_DATASOURCE_PLUGINS(request, dataset_id=get_dataset_id(dataset_id))
        )

    def run_datasource(
        self,
        dataset_id: Dataset | str,
        node_id: str,
        *,
        datasource_type: DatasourceType | str,
        inputs: Mapping[str, object] | None = None,
        credential_id: str | Unset | None = UNSET,
        is_published: bool = True,
    ) -> Events:
        """Let a node list what it can bring in, and follow it. One request."""
        request = RunDatasource(
            inputs=inputs or {},
            datasource_type=DatasourceType(datasource_type),
            credential_id=credential_id,
            is_published=is_published,
        )
        slots = {"dataset_id": get_dataset_id(dataset_id), "node_id": node_id}
        return Events(self._send, catalog.RUN_DATASOURCE(request, **slots))

    def run(
        self,
        dataset_id: Dataset | str,
        *,
        start_node_id: str,
        datasource_type: DatasourceType | str,
        datasource_info_list: Sequence[Mapping[str, object]],
        inputs: Mapping[str, object] | None = None,
        response_mode: Literal["streaming", "blocking"] = "streaming",
        is_published: bool = True,
    ) -> Events:
        """Bring documents in through the pipeline, and follow the run. One request.

        Args:
            datasource_info_list: what to bring in, e.g. `{"reference": file.id}` of
                `upload_file`.
            response_mode: `blocking` gives one event at the end.
        """
        request = RunPipeline(
            inputs=inputs or {},
            datasource_type=DatasourceType(datasource_type),
            datasource_info_list=datasource_info_list,
            start_node_id=start_node_id,
            is_published=is_published,
            response_mode=response_mode,
        )
        call = catalog.RUN_PIPELINE(request, dataset_id=get_dataset_id(dataset_id))
        return Events(self._send, call)
