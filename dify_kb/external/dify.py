"""Dify's side: how it asks an external knowledge API, and what it makes of the answers.

By services/external_knowledge_service.py and core/helper/ssrf_proxy.py @1.12.1, which are alike
from 1.2 on where nothing else is said.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import aiohttp
import anyio
from attrs import field, frozen

from dify_kb.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

RETRIED: Final = frozenset({429, 500, 502, 503, 504})
"""Statuses after which Dify asks again, as after errors of the network."""

_REDIRECTS: Final = 20
"""As many as httpx follows."""

_SHOWN: Final = 200
"""Characters of a body that are told."""


@frozen(kw_only=True)
class Patience:
    """How long Dify waits, in seconds: SSRF_DEFAULT_*_TIME_OUT and _MAX_RETRIES."""

    timeout: float = 5.0
    """For each of connecting, writing, and the next bytes of the answer."""

    pauses: Sequence[float] = (0.5, 1.0, 2.0)
    """Before each further send."""


@frozen(kw_only=True)
class Reply:
    """What the last of `sends` brought; `status` 0 and `trouble` where it was no answer."""

    status: int = 0
    body: bytes = field(default=b"", repr=False)
    trouble: str = ""
    sends: int = 1
    seconds: float = 0.0
    """From the start of the last send."""

    @property
    def given_up(self) -> bool:
        """Whether Dify has no answer to go by, however often it asked."""
        return not self.status or self.status in RETRIED

    def told(self) -> str:
        """Say in a few words what came."""
        if not self.status:
            return self.trouble
        text = " ".join(self.body[: 4 * _SHOWN].decode(errors="replace").split())[:_SHOWN]
        return f"{self.status} ({text or 'an empty body'})"


class DroppedError(Exception):
    """What Dify makes of an answer that it cannot use."""


def address(endpoint: str) -> str:
    """Append `/retrieval`, as Dify does, whatever the endpoint ends with.

    Raises:
        ConfigError: no scheme, or no host, which Dify refuses.
    """
    try:
        parts = urlsplit(endpoint)
        port_or_none = parts.port
    except ValueError as error:
        raise _no_address(endpoint) from error
    if parts.scheme not in {"http", "https"} or not parts.hostname or port_or_none == 0:
        raise _no_address(endpoint)
    return f"{endpoint}/retrieval"


def _no_address(endpoint: str) -> ConfigError:
    return ConfigError(
        f"{endpoint!r} is no address.", hint="Write http:// or https://, a host, and the port."
    )


def body_of(
    query: str,
    knowledge_id: str,
    *,
    top_k: int | None,
    score_threshold: float = 0.0,
    metadata_condition: Mapping[str, object] | None = None,
) -> dict[str, object]:
    """Make the body of a retrieval: four keys, always."""
    return {
        "retrieval_setting": {"top_k": top_k, "score_threshold": score_threshold},
        "query": query,
        "knowledge_id": knowledge_id,
        "metadata_condition": metadata_condition,
    }


@frozen
class Asker:
    """Asks one API. A session is used and never closed; it must not keep cookies."""

    session: aiohttp.ClientSession
    endpoint: str
    api_key: str
    patience: Patience = field(factory=Patience)

    async def probe(self) -> Reply:
        """Send what Dify sends when the API is registered: the key, and nothing else."""
        return await self._sent(None, {}, follow=False)

    async def ask(self, body: Mapping[str, object], *, api_key: str | None = None) -> Reply:
        """Ask a question, and again as often as Dify would."""
        # Dify leaves its trace with each call, unless OpenTelemetry does that.
        trace = f"00-{os.urandom(16).hex()}-{os.urandom(8).hex()}-01"
        headers = {"Content-Type": "application/json", "traceparent": trace}
        return await self._sent(json.dumps(body).encode(), headers, follow=True, api_key=api_key)

    async def _sent(
        self,
        data: bytes | None,
        headers: Mapping[str, str],
        *,
        follow: bool,
        api_key: str | None = None,
    ) -> Reply:
        key = self.api_key if api_key is None else api_key
        named = {**headers, "Authorization": f"Bearer {key}"}
        sends = 0
        while True:
            sends += 1
            reply = await self._once(data, named, follow=follow, sends=sends)
            if not reply.given_up or sends > len(self.patience.pauses):
                return reply
            await anyio.sleep(self.patience.pauses[sends - 1])

    async def _once(
        self, data: bytes | None, headers: Mapping[str, str], *, follow: bool, sends: int
    ) -> Reply:
        seconds = self.patience.timeout
        started = time.monotonic()
        try:
            async with self.session.post(
                address(self.endpoint),
                data=data,
                headers=headers,
                allow_redirects=follow,
                max_redirects=_REDIRECTS,
                skip_auto_headers=() if data else ("Content-Type",),
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=seconds, connect=seconds, sock_read=seconds
                ),
            ) as response:
                body = await response.read()
        except TimeoutError:
            trouble = f"no answer within {seconds:g} s"
        except (aiohttp.ClientError, OSError, ValueError) as error:
            trouble = _why(error)
        else:
            took = time.monotonic() - started
            return Reply(status=response.status, body=body, sends=sends, seconds=took)
        return Reply(trouble=trouble, sends=sends, seconds=time.monotonic() - started)


def _why(error: Exception) -> str:
    match error:
        case aiohttp.ClientConnectorError():
            return f"no connection: {error.os_error.strerror or error.os_error}"
        case aiohttp.ServerDisconnectedError():
            return "the server closed the connection without an answer"
        case aiohttp.TooManyRedirects():
            return f"more than {_REDIRECTS} redirects"
        case _:
            return f"{type(error).__name__}: {error}"


def probed(reply: Reply) -> str | None:
    """Tell why Dify refuses to register the API; None if it does not."""
    if reply.given_up:
        return f"failed to connect to the endpoint: {reply.told()}"
    match reply.status:
        case 404:
            return "Not Found: failed to connect to the endpoint"
        case 403:
            return "Forbidden: Authorization failed with api_key"
        case _:
            return None


def records_of(reply: Reply) -> list[dict[str, Any]]:
    """Take the records of an answer as app retrieval of 1.11 and later does.

    Raises:
        DroppedError: in Dify the step that retrieves fails; 1.2 and 1.8 find nothing instead where
            the status is not 200.
    """
    if reply.given_up:
        raise DroppedError(f"gave up after asking {reply.sends} times: {reply.told()}")
    if reply.status != 200:  # noqa: PLR2004 -- the one status that Dify takes
        raise DroppedError(f"the answer is {reply.told()}")
    try:
        value = json.loads(reply.body)
    except (ValueError, RecursionError) as error:
        raise DroppedError(f"the body is not JSON: {reply.told()}") from error
    if not isinstance(value, dict):
        raise DroppedError(f"the body is {_kind(value)}, not an object")
    records = value.get("records", [])
    if not isinstance(records, list):
        raise DroppedError(f"records is {_kind(records)}, not a list")
    for number, record in enumerate(records, 1):
        if problem := problem_of(record):
            raise DroppedError(f"record {number}: {problem}")
    return records


def problem_of(record: object) -> str | None:
    """Tell what of a record fails Dify's validation (core/rag/models/document.py)."""
    if not isinstance(record, dict):
        return f"it is {_kind(record)}, not an object"
    if not isinstance(record.get("content"), str):
        return f"content is {_kind(record.get('content'))}, not a text"
    if not isinstance(record.get("metadata"), dict):
        return f"metadata is {_kind(record.get('metadata'))}, not an object"
    return None


def _kind(value: object) -> str:
    match value:
        case None:
            return "missing or null"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "a text"
        case list():
            return "a list"
        case _:
            return "an object"
