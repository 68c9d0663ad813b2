"""Written by `python -m dify_kb.blocking._generate_resources`; do not edit."""

from __future__ import annotations

from attrs import frozen

from dify_kb import resources
from dify_kb.client import AsyncClient

from ._loop_thread import LoopThread
from ._make_blocking import make_blocking, make_blocking_iterator, make_blocking_results


@frozen
class ChildChunks:
    """The child chunks of a segment, by which parent-child datasets are searched.

    Version 1.8.1 returns 404 for every update and delete.
    """

    _loop: LoopThread
    _target: resources.ChildChunks

    create = make_blocking(resources.ChildChunks.create)
    list = make_blocking(resources.ChildChunks.list)
    iter = make_blocking_iterator(resources.ChildChunks.iter)
    update = make_blocking(resources.ChildChunks.update)
    delete = make_blocking(resources.ChildChunks.delete)


@frozen
class Datasets:
    """The knowledge bases of the workspace."""

    _loop: LoopThread
    _target: resources.Datasets

    create = make_blocking(resources.Datasets.create)
    get = make_blocking(resources.Datasets.get)
    find = make_blocking(resources.Datasets.find)
    list = make_blocking(resources.Datasets.list)
    iter = make_blocking_iterator(resources.Datasets.iter)
    update = make_blocking(resources.Datasets.update)
    delete = make_blocking(resources.Datasets.delete)
    retrieve = make_blocking(resources.Datasets.retrieve)


@frozen
class Documents:
    """The documents of a knowledge base."""

    _loop: LoopThread
    _target: resources.Documents

    create_by_text = make_blocking(resources.Documents.create_by_text)
    create_by_file = make_blocking(resources.Documents.create_by_file)
    update_by_text = make_blocking(resources.Documents.update_by_text)
    rename = make_blocking(resources.Documents.rename)
    update_by_file = make_blocking(resources.Documents.update_by_file)
    get = make_blocking(resources.Documents.get)
    list = make_blocking(resources.Documents.list)
    iter = make_blocking_iterator(resources.Documents.iter)
    delete = make_blocking(resources.Documents.delete)
    indexing_status = make_blocking(resources.Documents.indexing_status)
    wait = make_blocking(resources.Documents.wait)
    enable = make_blocking(resources.Documents.enable)
    disable = make_blocking(resources.Documents.disable)
    archive = make_blocking(resources.Documents.archive)
    unarchive = make_blocking(resources.Documents.unarchive)
    download_url = make_blocking(resources.Documents.download_url)
    download_zip = make_blocking(resources.Documents.download_zip)
    upload_file = make_blocking(resources.Documents.upload_file)


@frozen
class Metadata:
    """The metadata fields of a knowledge base, and their values on documents."""

    _loop: LoopThread
    _target: resources.Metadata

    create = make_blocking(resources.Metadata.create)
    list = make_blocking(resources.Metadata.list)
    update = make_blocking(resources.Metadata.update)
    delete = make_blocking(resources.Metadata.delete)
    built_in_fields = make_blocking(resources.Metadata.built_in_fields)
    enable_built_in = make_blocking(resources.Metadata.enable_built_in)
    disable_built_in = make_blocking(resources.Metadata.disable_built_in)
    assign = make_blocking(resources.Metadata.assign)
    assign_by_name = make_blocking(resources.Metadata.assign_by_name)


@frozen
class Pipeline:
    """The knowledge pipelines; require 1.16.

    Models follow the published API; they are not checked against recordings of a server.
    """

    _loop: LoopThread
    _target: resources.Pipeline

    upload_file = make_blocking(resources.Pipeline.upload_file)
    datasource_plugins = make_blocking(resources.Pipeline.datasource_plugins)
    run_datasource = make_blocking_iterator(resources.Pipeline.run_datasource)
    run = make_blocking_iterator(resources.Pipeline.run)


@frozen
class Segments:
    """The chunks of a document."""

    _loop: LoopThread
    _target: resources.Segments

    create = make_blocking(resources.Segments.create)
    create_many = make_blocking(resources.Segments.create_many)
    get = make_blocking(resources.Segments.get)
    list = make_blocking(resources.Segments.list)
    iter = make_blocking_iterator(resources.Segments.iter)
    update = make_blocking(resources.Segments.update)
    delete = make_blocking(resources.Segments.delete)


@frozen
class Tags:
    """The tags of knowledge bases; require 1.4.2.

    Version 1.12.1 returns an error for `create`, `update` and `list` although they succeed; the
    hint of the error says so.
    """

    _loop: LoopThread
    _target: resources.Tags

    create = make_blocking(resources.Tags.create)
    list = make_blocking(resources.Tags.list)
    update = make_blocking(resources.Tags.update)
    delete = make_blocking(resources.Tags.delete)
    bind = make_blocking(resources.Tags.bind)
    unbind = make_blocking(resources.Tags.unbind)
    list_for_dataset = make_blocking(resources.Tags.list_for_dataset)


@frozen
class Workspace:
    """The workspace that the API key belongs to."""

    _loop: LoopThread
    _target: resources.Workspace

    models = make_blocking(resources.Workspace.models)


class BlockingClientBase:
    """The methods and resources of a blocking client."""

    _loop: LoopThread
    _target: AsyncClient

    ping = make_blocking(AsyncClient.ping)
    load = make_blocking(AsyncClient.load)
    load_iter = make_blocking_results(AsyncClient.load_iter)
    sync = make_blocking(AsyncClient.sync)
    diff = make_blocking(AsyncClient.diff)
    sync_iter = make_blocking_results(AsyncClient.sync_iter)
    export = make_blocking(AsyncClient.export)
    import_ = make_blocking(AsyncClient.import_)
    verify = make_blocking(AsyncClient.verify)

    @property
    def datasets(self) -> Datasets:
        """The knowledge bases."""
        return Datasets(self._loop, self._open_target.datasets)

    @property
    def documents(self) -> Documents:
        """The documents of a knowledge base."""
        return Documents(self._loop, self._open_target.documents)

    @property
    def segments(self) -> Segments:
        """The chunks of a document."""
        return Segments(self._loop, self._open_target.segments)

    @property
    def child_chunks(self) -> ChildChunks:
        """The child chunks of a segment."""
        return ChildChunks(self._loop, self._open_target.child_chunks)

    @property
    def metadata(self) -> Metadata:
        """The metadata fields, and their values on documents."""
        return Metadata(self._loop, self._open_target.metadata)

    @property
    def tags(self) -> Tags:
        """The tags of knowledge bases."""
        return Tags(self._loop, self._open_target.tags)

    @property
    def pipeline(self) -> Pipeline:
        """The knowledge pipelines."""
        return Pipeline(self._loop, self._open_target.pipeline)

    @property
    def workspace(self) -> Workspace:
        """The workspace that the API key belongs to."""
        return Workspace(self._loop, self._open_target.workspace)

    @property
    def _open_target(self) -> AsyncClient:
        self._loop.start()
        return self._target
