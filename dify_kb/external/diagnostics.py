"""Check an external knowledge API with the requests that Dify sends."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, Literal

import aiohttp
from attrs import frozen

from dify_kb.models import ComparisonOperator

from .dify_requester import (
    DifyRequester,
    EndpointResponse,
    InvalidResponseError,
    RetryPolicy,
    build_body,
    find_registration_problem,
    parse_records,
    retrieval_url,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

FindingStatus = Literal["ok", "warning", "failed"]

UNKNOWN_NAME: Final = "dify-kb-check"
"""A key, an id and a field name that do not exist."""


DEFAULT_QUERY: Final = "What is this, and what is it for?"
"""Default query; it matches any English text, because records can only be checked if found."""

_SLOW_PART: Final = 0.5
"""Share of Dify's timeout above which a response causes a warning."""

_LOCAL_ADDRESS: Final = re.compile(r"https?://(localhost|127\.|\[::1\])")


@frozen(kw_only=True)
class Finding:
    """The result of one check. `failed`: Dify would reject it, fail, or show wrong results."""

    check: str
    status: FindingStatus
    detail: str
    remedy: str = ""


async def check(
    endpoint: str,
    *,
    api_key: str,
    knowledge_id: str,
    query: str = DEFAULT_QUERY,
    retry_policy: RetryPolicy | None = None,
) -> AsyncIterator[Finding]:
    """Send requests as Dify does and yield a finding for each check.

    Sends about fifteen read-only requests; more if the server fails, because Dify sends a failed
    request up to four times. Stops after the first request if Dify would not register the server.

    Args:
        endpoint: the endpoint as entered in Dify, without `/retrieval`.
        query: a query that should find something.

    Raises:
        ConfigError: the endpoint is not a URL.
    """
    retrieval_url(endpoint)
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        requester = DifyRequester(session, endpoint, api_key, retry_policy or RetryPolicy())
        endpoint_check = _EndpointCheck(requester, knowledge_id, query)
        yield check_address(endpoint)
        registration = check_registration(await requester.probe())
        yield registration
        if registration.status == "failed":
            return
        async for finding in endpoint_check.run():
            yield finding


@frozen
class _EndpointCheck:
    requester: DifyRequester
    knowledge_id: str
    query: str

    async def run(self) -> AsyncIterator[Finding]:
        """Run the checks; stop if the first retrieval fails."""
        response = await self._retrieve(top_k=4)
        finding = self._check_retrieval(response)
        yield finding
        if finding.status == "failed":
            return
        records = parse_records(response)
        yield check_latency(response, self.requester.retry_policy)
        if records:
            yield check_record_shape(records)
            yield check_order(records)
            yield await self._check_top_k()
        yield await self._check_threshold()
        for check, explanation, changes in self._unusual_requests():
            yield await self._check_unusual_request(check, explanation, **changes)
        yield await self._check_metadata_condition()
        yield await self._check_wrong_key()
        yield await self._check_unknown_id()

    async def _retrieve(self, **changes: Any) -> EndpointResponse:
        parameters: dict[str, Any] = {
            "query": self.query,
            "knowledge_id": self.knowledge_id,
            "top_k": 4,
        }
        return await self.requester.retrieve(build_body(**(parameters | changes)))

    def _check_retrieval(self, response: EndpointResponse) -> Finding:
        try:
            records = parse_records(response)
        except InvalidResponseError as error:
            return Finding(
                check="retrieval",
                status="failed",
                detail=f"Dify fails: {error}",
                remedy=suggest_remedy(response, str(error)),
            )
        if not records:
            return Finding(
                check="retrieval",
                status="warning",
                detail=f"{self.query!r} finds nothing, so no records were checked",
                remedy="Pass another query= (--query) that has results.",
            )
        detail = f"{len(records)} record{'s' * (len(records) > 1)} accepted by Dify"
        return Finding(check="retrieval", status="ok", detail=detail)

    def _unusual_requests(self) -> list[tuple[str, str, Mapping[str, Any]]]:
        """Return valid requests that servers often fail on: check, reason, changes."""
        conditions = [
            {
                "name": UNKNOWN_NAME,
                "comparison_operator": str(operator),
                "value": sample_value(operator),
            }
            for operator in ComparisonOperator
        ]
        return [
            ("top_k null", "sent for a base without settings", {"top_k": None}),
            ("quotes", "escaped by the console", {"query": f'\\"{self.query}\\"'}),
            ("unicode", "queries in any language", {"query": "größer? 斑马 🦓"}),
            ("long query", "apps produce such queries", {"query": f"{self.query} " * 200}),
            (
                "no conditions",
                "conditions may be null",
                {"metadata_condition": {"logical_operator": "and", "conditions": None}},
            ),
            (
                "operators",
                f"all {len(conditions)} operators",
                {"metadata_condition": {"logical_operator": "or", "conditions": conditions}},
            ),
        ]

    async def _check_unusual_request(self, check: str, explanation: str, **changes: Any) -> Finding:
        response = await self._retrieve(**changes)
        try:
            parse_records(response)
        except InvalidResponseError as error:
            return Finding(
                check=check,
                status="failed",
                detail=f"Dify sends such requests ({explanation}) and fails: {error}",
                remedy=suggest_remedy(response, str(error)),
            )
        return Finding(check=check, status="ok", detail=f"accepted ({explanation})")

    async def _check_top_k(self) -> Finding:
        records = await self._retrieve_records(top_k=1)
        if isinstance(records, Finding):
            return records
        if len(records) > 1:
            return Finding(
                check="top_k",
                status="failed",
                detail=f"{len(records)} records for top_k 1; Dify passes all of them to the model",
                remedy="Return at most retrieval_setting.top_k records; Dify does not truncate.",
            )
        return Finding(check="top_k", status="ok", detail="at most top_k records")

    async def _check_threshold(self) -> Finding:
        for threshold in (0.5, 1.0):
            records = await self._retrieve_records(check="threshold", score_threshold=threshold)
            if isinstance(records, Finding):
                return records
            too_low = [record for record in records if (read_score(record) or 0.0) < threshold]
            if too_low:
                return Finding(
                    check="threshold",
                    status="failed",
                    detail=f"a record has score {read_score(too_low[0])}"
                    f" with a threshold of {threshold}",
                    remedy="Omit records below score_threshold; Dify does not filter them.",
                )
        return Finding(check="threshold", status="ok", detail="no record below the threshold")

    async def _retrieve_records(
        self, *, check: str = "top_k", **changes: Any
    ) -> list[Any] | Finding:
        response = await self._retrieve(**changes)
        try:
            return parse_records(response)
        except InvalidResponseError as error:
            detail = f"Dify fails: {error}"
            return Finding(
                check=check,
                status="failed",
                detail=detail,
                remedy=suggest_remedy(response, str(error)),
            )

    async def _check_metadata_condition(self) -> Finding:
        condition = {"name": UNKNOWN_NAME, "comparison_operator": "is", "value": UNKNOWN_NAME}
        metadata_filter = {"logical_operator": "and", "conditions": [condition]}
        records = await self._retrieve_records(
            check="metadata condition", metadata_condition=metadata_filter
        )
        if isinstance(records, Finding):
            return records
        if records:
            return Finding(
                check="metadata condition",
                status="warning",
                detail="records that do not match are returned; filters set in Dify have no effect",
                remedy="Apply metadata_condition to the metadata of the records.",
            )
        return Finding(check="metadata condition", status="ok", detail="records are filtered")

    async def _check_wrong_key(self) -> Finding:
        body = build_body(self.query, self.knowledge_id, top_k=1)
        response = await self.requester.retrieve(body, api_key=UNKNOWN_NAME)
        if response.status in {401, 403}:
            return Finding(
                check="wrong key", status="ok", detail=f"rejected with {response.status}"
            )
        return Finding(
            check="wrong key",
            status="warning",
            detail=f"the response to an unknown key is {response.status or response.error}",
            remedy="Reject it with 401; otherwise anyone can read the documents.",
        )

    async def _check_unknown_id(self) -> Finding:
        check = "unknown id"
        response = await self._retrieve(knowledge_id=UNKNOWN_NAME)
        if response.is_failed:
            return Finding(
                check=check,
                status="warning",
                detail=f"{response.attempts} attempts; the response is {response.describe()}",
                remedy="Respond with 404 or 400, which Dify does not retry.",
            )
        if response.status == 200:  # noqa: PLR2004 -- a success
            return Finding(
                check=check,
                status="warning",
                detail="an unknown id is accepted",
                remedy="Reject it with 404, so that a wrong id in Dify's settings is noticed.",
            )
        return Finding(check=check, status="ok", detail=f"rejected with {response.status}")


def check_address(endpoint: str) -> Finding:
    """Check the form of the endpoint."""
    url = retrieval_url(endpoint)
    if endpoint.endswith(("/", "/retrieval")):
        return Finding(
            check="address",
            status="warning",
            detail=f"Dify appends /retrieval and calls {url}",
            remedy="Enter the address without /retrieval and without a trailing slash.",
        )
    if _LOCAL_ADDRESS.match(endpoint):
        return Finding(
            check="address",
            status="ok",
            detail=f"Dify calls {url}; this requires Dify on this machine, not in Docker",
        )
    return Finding(check="address", status="ok", detail=f"Dify calls {url}")


def check_registration(response: EndpointResponse) -> Finding:
    """Check whether Dify registers the API."""
    problem = find_registration_problem(response)
    if problem is None:
        detail = f"the response to an empty request is {response.status}; Dify registers the API"
        return Finding(check="registration", status="ok", detail=detail)
    advice = "Start the server and check that this machine can reach its address."
    if response.status:
        advice = "Respond to an empty POST with 400, 401 or 200; never with 404, 403, 429 or 5xx."
    if response.status == 403:  # noqa: PLR2004 -- Forbidden
        advice = "Reject a wrong key with 401, and an empty body with the right key with 400."
    return Finding(
        check="registration", status="failed", detail=f"Dify rejects it: {problem}", remedy=advice
    )


def check_latency(response: EndpointResponse, retry_policy: RetryPolicy) -> Finding:
    """Check the time and the number of attempts until the response."""
    detail = f"response after {response.elapsed:.2f} s; Dify waits {retry_policy.timeout:g} s"
    if response.attempts > 1:
        return Finding(
            check="time",
            status="warning",
            detail=f"response only after {response.attempts} attempts",
            remedy="Check why the first attempt failed; Dify gives up after four attempts.",
        )
    if response.elapsed > _SLOW_PART * retry_policy.timeout:
        return Finding(
            check="time",
            status="warning",
            detail=detail,
            remedy="Make the search faster: Dify retries after this time, up to four attempts.",
        )
    return Finding(check="time", status="ok", detail=detail)


def check_record_shape(records: list[dict[str, Any]]) -> Finding:
    """Check the scores and titles of the records, which Dify does not validate."""
    if any(
        read_score(record) is None or not 0 <= (read_score(record) or 0) <= 1 for record in records
    ):
        return Finding(
            check="scores",
            status="failed",
            detail="a record has no score from 0 to 1; Dify ranks and cites by score",
            remedy="Return a score from 0 to 1 with each record.",
        )
    if not all(isinstance(record.get("title"), str) and record["title"] for record in records):
        return Finding(
            check="titles",
            status="warning",
            detail="a record has no title, so its citation has no name",
            remedy="Return the document's name as title.",
        )
    return Finding(check="records", status="ok", detail="all with content, score, title, metadata")


def check_order(records: list[dict[str, Any]]) -> Finding:
    """Check that the records are sorted by score."""
    scores = [read_score(record) or 0.0 for record in records]
    if scores != sorted(scores, reverse=True):
        return Finding(
            check="order",
            status="failed",
            detail="records are not sorted by score; Dify keeps their order",
            remedy="Sort records by score, highest first.",
        )
    return Finding(check="order", status="ok", detail="sorted by score")


def read_score(record: Mapping[str, Any]) -> float | None:
    """Return the score of a record, or None if it is not a number."""
    value = record.get("score")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value)


def sample_value(operator: ComparisonOperator) -> object:
    """Return a valid value for a comparison operator."""
    match operator:
        case ComparisonOperator.EMPTY | ComparisonOperator.NOT_EMPTY:
            return None
        case ComparisonOperator.IN | ComparisonOperator.NOT_IN:
            return [UNKNOWN_NAME]
        case ComparisonOperator.BEFORE | ComparisonOperator.AFTER:
            return 1_700_000_000
        case ">" | "<" | "≥" | "≤":
            return 1
        case _:
            return UNKNOWN_NAME


def suggest_remedy(response: EndpointResponse, problem: str) -> str:
    """Return the remedy for a response that Dify cannot use."""
    if not response.status:
        return "Respond within 5 s; Dify gives up after four attempts."
    if response.status in {401, 403}:
        return "Pass a key that the server accepts: --api-key."
    if response.status == 404:  # noqa: PLR2004 -- Not Found
        return "Pass an id that exists on the server: --knowledge-id."
    if response.status != 200:  # noqa: PLR2004 -- the only status that Dify accepts
        return "Respond with status 200; check the server's log for the cause."
    if "metadata" in problem:
        return 'Return "metadata": {} with each record; it must be an object, even if empty.'
    return 'Return {"records": [{"content": "…", "score": 0.9, "title": "…", "metadata": {}}]}.'
