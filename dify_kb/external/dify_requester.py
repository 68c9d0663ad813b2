"""Send requests to an external knowledge API and validate its responses as Dify does.

Sources: services/external_knowledge_service.py and core/helper/ssrf_proxy.py @1.12.1, which behave
the same since 1.2 unless noted.
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
"""Statuses after which Dify retries, as after network errors."""

_MAX_REDIRECTS: Final = 20
"""The limit of httpx."""

_MAX_SHOWN_CHARACTERS: Final = 200
"""Characters of a response body that are shown in messages."""


@frozen(kw_only=True)
class RetryPolicy:
    """Timeout and retry delays of Dify: SSRF_DEFAULT_*_TIME_OUT and _MAX_RETRIES."""

    timeout: float = 5.0
    """Seconds, separately for connecting, writing, and each read of the response."""

    delays: Sequence[float] = (0.5, 1.0, 2.0)
    """Seconds before each retry."""


@frozen(kw_only=True)
class EndpointResponse:
    """The response to the last of `attempts`; without one, `status` is 0 and `error` is set."""

    status: int = 0
    body: bytes = field(default=b"", repr=False)
    error: str = ""
    attempts: int = 1
    elapsed: float = 0.0
    """Seconds since the start of the last attempt."""

    @property
    def is_failed(self) -> bool:
        """Whether the last attempt failed with an error or a retried status."""
        return not self.status or self.status in RETRIED_STATUSES

    def describe(self) -> str:
        """Return a short description of the response or the error."""
        if not self.status:
            return self.error
        text = " ".join(self.body[: 4 * _MAX_SHOWN_CHARACTERS].decode(errors="replace").split())[
            :_MAX_SHOWN_CHARACTERS
        ]
        return f"{self.status} ({text or 'empty body'})"


class InvalidResponseError(Exception):
    """Raised for a response that Dify cannot use; the message is the reason."""


def retrieval_url(endpoint: str) -> str:
    """Append `/retrieval` to the endpoint as Dify does, even if the endpoint ends with it.

    Raises:
        ConfigError: the endpoint has no scheme or no host; Dify rejects it too.
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
        f"Invalid endpoint {endpoint!r}.",
        hint="Enter a URL such as http://host:5002, with http or https.",
    )


def build_body(
    query: str,
    knowledge_id: str,
    *,
    top_k: int | None,
    score_threshold: float = 0.0,
    metadata_condition: Mapping[str, object] | None = None,
) -> dict[str, object]:
    """Return the body of a retrieval request; all four keys are always present."""
    return {
        "retrieval_setting": {"top_k": top_k, "score_threshold": score_threshold},
        "query": query,
        "knowledge_id": knowledge_id,
        "metadata_condition": metadata_condition,
    }


@frozen
class DifyRequester:
    """A client of one external knowledge API that behaves like Dify.

    The session is not closed; it must not store cookies.
    """

    session: aiohttp.ClientSession
    endpoint: str
    api_key: str
    retry_policy: RetryPolicy = field(factory=RetryPolicy)

    async def probe(self) -> EndpointResponse:
        """Send the request with which Dify registers an API: the key without a body."""
        return await self._send_with_retries(None, {}, follow=False)

    async def retrieve(
        self, body: Mapping[str, object], *, api_key: str | None = None
    ) -> EndpointResponse:
        """Send a retrieval request, with the retries of Dify."""
        # Dify adds a trace header to each call unless OpenTelemetry does so.
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
    ) -> EndpointResponse:
        key = self.api_key if api_key is None else api_key
        authorized_headers = {**headers, "Authorization": f"Bearer {key}"}
        attempts = 0
        while True:
            attempts += 1
            response = await self._send_once(
                data, authorized_headers, follow=follow, attempts=attempts
            )
            if not response.is_failed or attempts > len(self.retry_policy.delays):
                return response
            await anyio.sleep(self.retry_policy.delays[attempts - 1])

    async def _send_once(
        self, data: bytes | None, headers: Mapping[str, str], *, follow: bool, attempts: int
    ) -> EndpointResponse:
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
            ) as http_response:
                body = await http_response.read()
        except TimeoutError:
            error_message = f"no response within {timeout_seconds:g} s"
        except (aiohttp.ClientError, OSError, ValueError) as error:
            error_message = _describe_error(error)
        else:
            elapsed = time.monotonic() - started_at
            return EndpointResponse(
                status=http_response.status, body=body, attempts=attempts, elapsed=elapsed
            )
        return EndpointResponse(
            error=error_message, attempts=attempts, elapsed=time.monotonic() - started_at
        )


def _describe_error(error: Exception) -> str:
    match error:
        case aiohttp.ClientConnectorError():
            return f"no connection: {error.os_error.strerror or error.os_error}"
        case aiohttp.ServerDisconnectedError():
            return "the server closed the connection without a response"
        case aiohttp.TooManyRedirects():
            return f"more than {_MAX_REDIRECTS} redirects"
        case _:
            return f"{type(error).__name__}: {error}"


def find_registration_problem(response: EndpointResponse) -> str | None:
    """Return why Dify rejects the registration of the API, or None if it accepts it."""
    if response.is_failed:
        return f"failed to connect to the endpoint: {response.describe()}"
    match response.status:
        case 404:
            return "Not Found: failed to connect to the endpoint"
        case 403:
            return "Forbidden: Authorization failed with api_key"
        case _:
            return None


def parse_records(response: EndpointResponse) -> list[dict[str, Any]]:
    """Return the records of a response, validated as in app retrieval of 1.11 and later.

    Raises:
        InvalidResponseError: the retrieval step fails in Dify. With a status other than 200, 1.2
            and 1.8 find nothing instead.
    """
    if response.is_failed:
        raise InvalidResponseError(
            f"gave up after {response.attempts} attempts: {response.describe()}"
        )
    if response.status != 200:  # noqa: PLR2004 -- the only status that Dify accepts
        raise InvalidResponseError(f"the response is {response.describe()}")
    try:
        value = json.loads(response.body)
    except (ValueError, RecursionError) as error:
        raise InvalidResponseError(f"the body is not JSON: {response.describe()}") from error
    if not isinstance(value, dict):
        raise InvalidResponseError(f"the body is {_describe_type(value)}, not an object")
    records = value.get("records", [])
    if not isinstance(records, list):
        raise InvalidResponseError(f"records is {_describe_type(records)}, not a list")
    for number, record in enumerate(records, 1):
        if problem := find_record_problem(record):
            raise InvalidResponseError(f"record {number}: {problem}")
    return records


def find_record_problem(record: object) -> str | None:
    """Return why a record fails Dify's validation (core/rag/models/document.py), or None."""
    if not isinstance(record, dict):
        return f"it is {_describe_type(record)}, not an object"
    if not isinstance(record.get("content"), str):
        return f"content is {_describe_type(record.get('content'))}, not a string"
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
            return "a string"
        case list():
            return "a list"
        case _:
            return "an object"
