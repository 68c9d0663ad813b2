"""Written by `python -m dify_kb.blocking._write`; do not edit."""

from __future__ import annotations

from attrs import frozen

from dify_kb import resources
from dify_kb.client import AsyncClient

from ._lift import lift, lift_pager
from ._loop import Loop


@frozen
class ChildChunks:
    """The child chunks of a segment, by which it is found in a parent-child base.

    Version 1.8.1 never finds one to change or delete (404).
    """

    _loop: Loop
    _target: resources.ChildChunks

    create = lift(resources.ChildChunks.create)
    list = lift(resources.ChildChunks.list)
    iter = lift_pager(resources.ChildChunks.iter)
    update = lift(resources.ChildChunks.update)
    delete = lift(resources.ChildChunks.delete)


@frozen
class Datasets:
    """Knowledge bases."""

    _loop: Loop
    _target: resources.Datasets

    create = lift(resources.Datasets.create)
    get = lift(resources.Datasets.get)
    find = lift(resources.Datasets.find)
    list = lift(resources.Datasets.list)
    iter = lift_pager(resources.Datasets.iter)
    update = lift(resources.Datasets.update)
    delete = lift(resources.Datasets.delete)
    retrieve = lift(resources.Datasets.retrieve)


@frozen
class Documents:
    """The documents of a knowledge base."""

    _loop: Loop
    _target: resources.Documents

    create_by_text = lift(resources.Documents.create_by_text)
    create_by_file = lift(resources.Documents.create_by_file)
    update_by_text = lift(resources.Documents.update_by_text)
    update_by_file = lift(resources.Documents.update_by_file)
    get = lift(resources.Documents.get)
    list = lift(resources.Documents.list)
    iter = lift_pager(resources.Documents.iter)
    delete = lift(resources.Documents.delete)
    indexing_status = lift(resources.Documents.indexing_status)
    wait = lift(resources.Documents.wait)
    enable = lift(resources.Documents.enable)
    disable = lift(resources.Documents.disable)
    archive = lift(resources.Documents.archive)
    unarchive = lift(resources.Documents.unarchive)
    download_url = lift(resources.Documents.download_url)
    download_zip = lift(resources.Documents.download_zip)
    upload_file = lift(resources.Documents.upload_file)


@frozen
class Metadata:
    """The metadata fields of a knowledge base, and their values on documents."""

    _loop: Loop
    _target: resources.Metadata

    create = lift(resources.Metadata.create)
    list = lift(resources.Metadata.list)
    update = lift(resources.Metadata.update)
    delete = lift(resources.Metadata.delete)
    built_in_fields = lift(resources.Metadata.built_in_fields)
    enable_built_in = lift(resources.Metadata.enable_built_in)
    disable_built_in = lift(resources.Metadata.disable_built_in)
    assign = lift(resources.Metadata.assign)
    assign_by_name = lift(resources.Metadata.assign_by_name)


@frozen
class Pipeline:
    """Knowledge pipelines; since 1.16. There are no recordings of them: shapes are those of the
    published API.
    """

    _loop: Loop
    _target: resources.Pipeline

    upload_file = lift(resources.Pipeline.upload_file)
    datasource_plugins = lift(resources.Pipeline.datasource_plugins)
    run_datasource = lift_pager(resources.Pipeline.run_datasource)
    run = lift_pager(resources.Pipeline.run)


@frozen
class Segments:
    """The chunks of a document."""

    _loop: Loop
    _target: resources.Segments

    create = lift(resources.Segments.create)
    create_many = lift(resources.Segments.create_many)
    get = lift(resources.Segments.get)
    list = lift(resources.Segments.list)
    iter = lift_pager(resources.Segments.iter)
    update = lift(resources.Segments.update)
    delete = lift(resources.Segments.delete)


@frozen
class Tags:
    """Tags of knowledge bases; since 1.4.2.

    Version 1.12.1 refuses its own answers to `create`, `update` and `list` although they were
    carried out; the error says so.
    """

    _loop: Loop
    _target: resources.Tags

    create = lift(resources.Tags.create)
    list = lift(resources.Tags.list)
    update = lift(resources.Tags.update)
    delete = lift(resources.Tags.delete)
    bind = lift(resources.Tags.bind)
    unbind = lift(resources.Tags.unbind)
    list_for_dataset = lift(resources.Tags.list_for_dataset)


@frozen
class Workspace:
    """The workspace that the key belongs to."""

    _loop: Loop
    _target: resources.Workspace

    models = lift(resources.Workspace.models)


class Lifted:
    """What a blocking client has of the async one."""

    _loop: Loop
    _target: AsyncClient

    ping = lift(AsyncClient.ping)
    load = lift(AsyncClient.load)
    load_iter = lift_pager(AsyncClient.load_iter)

    @property
    def datasets(self) -> Datasets:
        """Knowledge bases."""
        return Datasets(self._loop, self._opened.datasets)

    @property
    def documents(self) -> Documents:
        """The documents of a knowledge base."""
        return Documents(self._loop, self._opened.documents)

    @property
    def segments(self) -> Segments:
        """The chunks of a document."""
        return Segments(self._loop, self._opened.segments)

    @property
    def child_chunks(self) -> ChildChunks:
        """The child chunks of a segment."""
        return ChildChunks(self._loop, self._opened.child_chunks)

    @property
    def metadata(self) -> Metadata:
        """Metadata fields, and their values on documents."""
        return Metadata(self._loop, self._opened.metadata)

    @property
    def tags(self) -> Tags:
        """Tags of knowledge bases."""
        return Tags(self._loop, self._opened.tags)

    @property
    def pipeline(self) -> Pipeline:
        """Knowledge pipelines."""
        return Pipeline(self._loop, self._opened.pipeline)

    @property
    def workspace(self) -> Workspace:
        """The workspace that the key belongs to."""
        return Workspace(self._loop, self._opened.workspace)

    @property
    def _opened(self) -> AsyncClient:
        self._loop.start()
        return self._target
