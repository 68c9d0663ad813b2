"""Knowledge pipelines; uploads are checked against recordings of 1.14.2, the rest is not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from attrs import field, frozen

from ._base import UNSET, OpenEnum, Unset
from .document import File


class DatasourceType(OpenEnum):
    """The kind of source that a pipeline imports documents from."""

    LOCAL_FILE = "local_file"
    ONLINE_DOCUMENT = "online_document"
    WEBSITE_CRAWL = "website_crawl"
    ONLINE_DRIVE = "online_drive"


@frozen(kw_only=True)
class UploadPipelineFile:
    """The multipart request to upload a file for a pipeline."""

    file: File


@frozen(kw_only=True)
class PipelineFile:
    """An uploaded file, which a run refers to by `id`; `size` is in bytes."""

    id: str
    name: str
    size: int | None = None
    extension: str | None = None
    mime_type: str | None = None
    created_by: str | None = None
    created_at: datetime | None = None
    extra: Mapping[str, object] = field(factory=dict)


@frozen(kw_only=True)
class ListDatasourcePlugins:
    """The query parameters. Any text means true (reference of 1.16), so false is sent as ""."""

    is_published: str | Unset = UNSET


@frozen(kw_only=True)
class DatasourcePlugin:
    """A datasource node of a pipeline."""

    node_id: str
    plugin_id: str | None = None
    provider_name: str | None = None
    datasource_type: DatasourceType | None = None
    title: str | None = None
    user_input_variables: Sequence[Mapping[str, object]] | None = None
    credentials: Sequence[Mapping[str, object]] | None = None
    extra: Mapping[str, object] = field(factory=dict)


@frozen(kw_only=True)
class RunDatasource:
    """The request body to run a datasource node, which lists its available items."""

    inputs: Mapping[str, object]
    datasource_type: DatasourceType
    is_published: bool
    credential_id: str | Unset | None = UNSET


@frozen(kw_only=True)
class RunPipeline:
    """The request body to run a pipeline."""

    inputs: Mapping[str, object]
    datasource_type: DatasourceType
    datasource_info_list: Sequence[Mapping[str, object]]
    start_node_id: str
    is_published: bool
    response_mode: str


@frozen(kw_only=True)
class Event:
    """A server-sent event of a run: its name `event`, and its content `data`."""

    event: str
    data: Mapping[str, object]
