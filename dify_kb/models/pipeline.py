"""Knowledge pipelines (since 1.16, of which there are no recordings)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from attrs import field, frozen

from ._base import UNSET, OpenEnum, Unset
from .document import File


class DatasourceType(OpenEnum):
    """Where the documents of a pipeline come from."""

    LOCAL_FILE = "local_file"
    ONLINE_DOCUMENT = "online_document"
    WEBSITE_CRAWL = "website_crawl"
    ONLINE_DRIVE = "online_drive"


@frozen(kw_only=True)
class UploadPipelineFile:
    """Request: a file for a pipeline to read."""

    file: File


@frozen(kw_only=True)
class PipelineFile:
    """A file that a run can name by its `id`; `size` in bytes."""

    id: str
    name: str
    size: int
    extension: str
    mime_type: str | None = None
    created_by: str | None = None
    created_at: datetime | None = None
    extra: Mapping[str, object] = field(factory=dict)


@frozen(kw_only=True)
class ListDatasourcePlugins:
    """Query. The server takes any text for true (reference of 1.16), so false is sent as ""."""

    is_published: str | Unset = UNSET


@frozen(kw_only=True)
class DatasourcePlugin:
    """A node of the pipeline that brings documents in."""

    node_id: str
    plugin_id: str | None = None
    provider_name: str | None = None
    datasource_type: DatasourceType | None = None
    title: str | None = None
    user_input_variables: Sequence[Mapping[str, object]] = ()
    credentials: Sequence[Mapping[str, object]] = ()
    extra: Mapping[str, object] = field(factory=dict)


@frozen(kw_only=True)
class RunDatasource:
    """Request: let one node list what it can bring in."""

    inputs: Mapping[str, object]
    datasource_type: DatasourceType
    is_published: bool
    credential_id: str | Unset | None = UNSET


@frozen(kw_only=True)
class RunPipeline:
    """Request: bring documents in through the pipeline."""

    inputs: Mapping[str, object]
    datasource_type: DatasourceType
    datasource_info_list: Sequence[Mapping[str, object]]
    start_node_id: str
    is_published: bool
    response_mode: str


@frozen(kw_only=True)
class Event:
    """One server-sent event of a run. `event` is its name, `data` what it says."""

    event: str
    data: Mapping[str, object]
