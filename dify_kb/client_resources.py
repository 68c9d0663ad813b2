"""The resources of the asynchronous client."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import NotFoundError
from .models import ServerInfo
from .resources import (
    ChildChunks,
    Datasets,
    Documents,
    Metadata,
    Pipeline,
    Segments,
    Tags,
    Workspace,
)
from .wire import catalog

if TYPE_CHECKING:
    from .transport import Sender


class ClientResources:
    """The resources of a client as properties, and `ping`."""

    _sender: Sender

    @property
    def datasets(self) -> Datasets:
        """The knowledge bases."""
        return Datasets(self._sender)

    @property
    def documents(self) -> Documents:
        """The documents of a knowledge base."""
        return Documents(self._sender, self._sender.policy.polling)

    @property
    def segments(self) -> Segments:
        """The chunks of a document."""
        return Segments(self._sender)

    @property
    def child_chunks(self) -> ChildChunks:
        """The child chunks of a segment."""
        return ChildChunks(self._sender)

    @property
    def metadata(self) -> Metadata:
        """The metadata fields, and their values on documents."""
        return Metadata(self._sender)

    @property
    def tags(self) -> Tags:
        """The tags of knowledge bases."""
        return Tags(self._sender)

    @property
    def pipeline(self) -> Pipeline:
        """The knowledge pipelines."""
        return Pipeline(self._sender)

    @property
    def workspace(self) -> Workspace:
        """The workspace that the API key belongs to."""
        return Workspace(self._sender)

    async def ping(self) -> ServerInfo:
        """Request the server's name and version. Costs one request; needs no valid key.

        Raises:
            TransportError: the server cannot be reached.
            ProtocolError: the server is not a Dify server.
        """
        try:
            return await self._sender(catalog.GET_SERVER_INFO.call())
        except NotFoundError as error:
            if error.server_version is None:
                raise
            # 1.12.1 lacks this route, but every response has its version (recording 009).
            return ServerInfo(server_version=error.server_version)
