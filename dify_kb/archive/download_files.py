"""Download the files that documents were created from."""

from __future__ import annotations

import io
import zipfile
import zlib
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import anyio.to_thread
from attrs import define

from dify_kb.errors import KnowledgeError, NotFoundError, TransportError
from dify_kb.models import Dataset
from dify_kb.wire.version_bugs import is_older

from .archive_session import ArchiveSession

FIRST_WITH_ZIP: Final = "1.13.1"
LAST_WITH_LINK: Final = "1.11"


@define
class FileDownloader:
    """A downloader of original files.

    Since 1.13.1 the API sends them in a zip. Up to 1.8 it sends a signed link, whose host may be
    reachable only inside of the server's network; the signature does not cover the host (measured),
    so the path is requested at the address of the API first, then at the link's host. Both without
    the API key. Versions between do not offer files.
    """

    session: ArchiveSession
    dataset: Dataset
    _own_origin_fails: bool = False

    async def fetch(self, document_id: str) -> bytes | str:
        """Return the file of a document, or as text the reason why there is none.

        Costs one request, or two up to 1.8.
        """
        version = self.session.sender.server_version
        try:
            if version is None or not is_older(version, FIRST_WITH_ZIP):
                return await self._fetch_zip(document_id)
            if is_older(version, LAST_WITH_LINK):
                return await self._fetch_link(document_id)
        except NotFoundError:
            return "the document was not created from a file"
        return f"Dify {version} does not offer files"

    async def _fetch_zip(self, document_id: str) -> bytes | str:
        content = await self.session.read(
            lambda: self.session.documents.download_zip(self.dataset, [document_id])
        )
        try:
            return await anyio.to_thread.run_sync(_unpack_single, content)
        except (zipfile.BadZipFile, zlib.error, OSError, ValueError, NotImplementedError):
            return "the server sent a damaged zip"

    async def _fetch_link(self, document_id: str) -> bytes | str:
        stored = await self.session.read(
            lambda: self.session.documents.upload_file(self.dataset, document_id)
        )
        link = stored.download_url or stored.url
        if not link:
            return "the server sent no link"
        for address in self._addresses(link):
            self.session.setup.requests.total += 1
            try:
                content = await self.session.sender.session.download(
                    address, self.session.setup.server.policy.timeout
                )
            except TransportError:
                content = None
            except KnowledgeError:
                return "unreachable"
            if content is not None and (stored.size is None or stored.size == len(content)):
                return content
            if address != link:
                self._own_origin_fails = True
        return "unreachable"

    def _addresses(self, link: str) -> list[str]:
        parts = urlsplit(link)
        own = urlsplit(self.session.sender.session.config.base_url)
        same = urlunsplit(parts._replace(scheme=own.scheme, netloc=own.netloc))
        return [link] if self._own_origin_fails or same == link else [same, link]


def _unpack_single(content: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        (entry,) = archive.infolist()
        return archive.read(entry)
