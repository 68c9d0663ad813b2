from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO, Literal, NoReturn

from attrs import frozen

from dify_kb.argument_checks import check_methods
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
    """The events of a pipeline run: `async for event in events`.

    The run starts when the iteration starts, and is never retried.
    """

    _send: CallSender
    _call: Call[Event]

    async def pages(self) -> AsyncIterator[Sequence[Event]]:
        """Yield each event in its own list."""
        async for event in self._send.stream(self._call):
            yield [event]

    if not TYPE_CHECKING:  # type checkers report the missing method

        def __iter__(self) -> NoReturn:
            raise TypeError("Iterate with 'async for', or use Client instead of AsyncClient.")

    def __aiter__(self) -> AsyncIterator[Event]:
        return self._send.stream(self._call)


@check_methods
@frozen
class Pipeline:
    """The knowledge pipelines; require 1.16.

    Models follow the published API; they are not checked against recordings of a server.
    """

    _send: CallSender

    async def upload_file(
        self, file: Path | str | bytes | BinaryIO, *, name: str | None = None
    ) -> PipelineFile:
        """Upload a file for a pipeline run, which refers to it by its id. Costs one request.

        Raises:
            ConfigError: the name is missing or invalid.
            TooLargeError: the file exceeds the server's size limit.
        """
        request = UploadPipelineFile(file=file_from_argument(file, name))
        return await self._send(catalog.UPLOAD_PIPELINE_FILE(request))

    async def datasource_plugins(
        self, dataset_id: Dataset | str, *, is_published: bool = True
    ) -> Sequence[DatasourcePlugin]:
        """Return the datasource nodes of the pipeline. Costs one request.

        Args:
            is_published: use the published pipeline; False uses its draft.
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
        """Run a datasource node, which lists its available items. Costs one request."""
        request = RunDatasource(
            inputs=inputs or {},
            datasource_type=DatasourceType(datasource_type),
            credential_id=credential_id,
            is_published=is_published,
        )
        path_params = {"dataset_id": get_dataset_id(dataset_id), "node_id": node_id}
        return Events(self._send, catalog.RUN_DATASOURCE(request, **path_params))

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
        """Run the pipeline to import documents, and return its events. Costs one request.

        Args:
            datasource_info_list: the items to import, e.g. `{"reference": file.id}` for a file of
                `upload_file`.
            response_mode: `blocking` returns a single event at the end.
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
