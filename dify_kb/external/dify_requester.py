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

RETRIED_STATUSES: Final = frozenset({429, 500, 502, 503, 504})
"""Statuses after which Dify asks again, as after errors of the network."""

_MAX_REDIRECTS: Final = 20
"""As many as httpx follows."""

_MAX_SHOWN_CHARACTERS: Final = 200
"""Characters of a body that are told."""


@frozen(kw_only=True)
class RetryPolicy:
    """How long Dify waits, in seconds: SSRF_DEFAULT_*_TIME_OUT and _MAX_RETRIES."""

    timeout: float = 5.0
    """For each of connecting, writing, and the next bytes of the answer."""

    delays: Sequence[float] = (0.5, 1.0, 2.0)
    """Before each further send."""


@frozen(kw_only=True)
class EndpointReply:
    """What the last of `attempts` brought; `status` 0 and `error` where it was no answer."""

    status: int = 0
    body: bytes = field(default=b"", repr=False)
    error: str = ""
    attempts: int = 1
    elapsed: float = 0.0
    """From the start of the last send."""

    @property
    def is_failed(self) -> bool:
        """Whether Dify has no answer to go by, however often it asked."""
        return not self.status or self.status in RETRIED_STATUSES

    def describe(self) -> str:
        """Say in a few words what came."""
        if not self.status:
            return self.error
        text = " ".join(self.body[: 4 * _MAX_SHOWN_CHARACTERS].decode(errors="replace").split())[
            :_MAX_SHOWN_CHARACTERS
        ]
        return f"{self.status} ({text or 'an empty body'})"


class InvalidReplyError(Exception):
    """What Dify makes of an answer that it cannot use."""


def retrieval_url(endpoint: str) -> str:
    """Append `/retrieval`, as Dify does, whatever the endpoint ends with.

    Raises:
        ConfigError: no scheme, or no host, which Dify refuses.
    """
    try:
        parts = urlsplit(endpoint)
        port = parts.port
    except ValueError as error:
        raise _invalid_address_error(endpoint) from error
    if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0:
        raise _invalid_address_error(endpoint)
    return f"{endpoint}/retrieval"


def _invalid_address_error(endpoint: str) -> ConfigError:
    return ConfigError(
        f"{endpoint!r} is no address.", hint="Write http:// or https://, a host, and the port."
    )


def build_body(
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
class DifyRequester:
    """Asks one API. A session is used and never closed; it must not keep cookies."""

    session: aiohttp.ClientSession
    endpoint: str
    api_key: str
    retry_policy: RetryPolicy = field(factory=RetryPolicy)

    async def probe(self) -> EndpointReply:
        """Send what Dify sends when the API is registered: the key, and nothing else."""
        return await self._send_with_retries(None, {}, follow=False)

    async def retrieve(
        self, body: Mapping[str, object], *, api_key: str | None = None
    ) -> EndpointReply:
        """Ask a question, and again as often as Dify would."""
        # Dify leaves its trace with each call, unless OpenTelemetry does that.
        trace = f"00-{os.urandom(16).hex()}-{os.urandom(8).hex()}-01"
        headers = {"Content-Type": "application/json", "traceparent": trace}
        return await self._send_with_retries(
            json.dumps(body).encode(), headers, follow=True, api_key=api_key
        )

    async def _send_with_retries(
        self,
        data: bytes | None,
        headers: Mapping[str, str],
        *,
        follow: bool,
        api_key: str | None = None,
    ) -> EndpointReply:
        key = self.api_key if api_key is None else api_key
        authorized_headers = {**headers, "Authorization": f"Bearer {key}"}
        attempts = 0
        while True:
            attempts += 1
            reply = await self._send_once(
                data, authorized_headers, follow=follow, attempts=attempts
            )
            if not reply.is_failed or attempts > len(self.retry_policy.delays):
                return reply
            await anyio.sleep(self.retry_policy.delays[attempts - 1])

    async def _send_once(
        self, data: bytes | None, headers: Mapping[str, str], *, follow: bool, attempts: int
    ) -> EndpointReply:
        timeout_seconds = self.retry_policy.timeout
        started_at = time.monotonic()
        try:
            async with self.session.post(
                retrieval_url(self.endpoint),
                data=data,
                headers=headers,
                allow_redirects=follow,
                max_redirects=_MAX_REDIRECTS,
                skip_auto_headers=() if data else ("Content-Type",),
                timeout=aiohttp.ClientTimeout(
                    total=None,
                    sock_connect=timeout_seconds,
                    connect=timeout_seconds,
                    sock_read=timeout_seconds,
                ),
            ) as response:
                body = await response.read()
        except TimeoutError:
            error_message = f"no answer within {timeout_seconds:g} s"
        except (aiohttp.ClientError, OSError, ValueError) as error:
            error_message = _describe_error(error)
        else:
            elapsed = time.monotonic() - started_at
            return EndpointReply(
                status=response.status, body=body, attempts=attempts, elapsed=elapsed
            )
        return EndpointReply(
            error=error_message, attempts=attempts, elapsed=time.monotonic() - started_at
        )


def _describe_error(error: Exception) -> str:
    match error:
        case aiohttp.ClientConnectorError():
            return f"no connection: {error.os_error.strerror or error.os_error}"
        case aiohttp.ServerDisconnectedError():
            return "the server closed the connection without an answer"
        case aiohttp.TooManyRedirects():
            return f"more than {_MAX_REDIRECTS} redirects"
        case _:
            return f"{type(error).__name__}: {error}"


def find_registration_problem(reply: EndpointReply) -> str | None:
    """Tell why Dify refuses to register the API; None if it does not."""
    if reply.is_failed:
        return f"failed to connect to the endpoint: {reply.describe()}"
    match reply.status:
        case 404:
            return "Not Found: failed to connect to the endpoint"
        case 403:
            return "Forbidden: Authorization failed with api_key"
        case _:
            return None


def parse_records(reply: EndpointReply) -> list[dict[str, Any]]:
    """Take the records of an answer as app retrieval of 1.11 and later does.

    Raises:
        InvalidReplyError: in Dify the step that retrieves fails; 1.2 and 1.8 find nothing instead
            where the status is not 200.
    """
    if reply.is_failed:
        raise InvalidReplyError(f"gave up after asking {reply.attempts} times: {reply.describe()}")
    if reply.status != 200:  # noqa: PLR2004 -- the one status that Dify takes
        raise InvalidReplyError(f"the answer is {reply.describe()}")
    try:
        value = json.loads(reply.body)
    except (ValueError, RecursionError) as error:
        raise InvalidReplyError(f"the body is not JSON: {reply.describe()}") from error
    if not isinstance(value, dict):
        raise InvalidReplyError(f"the body is {_describe_type(value)}, not an object")
    records = value.get("records", [])
    if not isinstance(records, list):
        raise InvalidReplyError(f"records is {_describe_type(records)}, not a list")
    for number, record in enumerate(records, 1):
        if problem := find_record_problem(record):
            raise InvalidReplyError(f"record {number}: {problem}")
    return records


def find_record_problem(record: object) -> str | None:
    """Tell what of a record fails Dify's validation (core/rag/models/document.py)."""
    if not isinstance(record, dict):
        return f"it is {_describe_type(record)}, not an object"
    if not isinstance(record.get("content"), str):
        return f"content is {_describe_type(record.get('content'))}, not a text"
    if not isinstance(record.get("metadata"), dict):
        return f"metadata is {_describe_type(record.get('metadata'))}, not an object"
    return None


def _describe_type(value: object) -> str:
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
