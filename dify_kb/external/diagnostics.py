"""Check an external knowledge API: ask it as Dify does, and judge each answer."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, Literal

import aiohttp
from attrs import frozen

from dify_kb.models import ComparisonOperator

from .dify_requester import (
    DifyRequester,
    EndpointReply,
    InvalidReplyError,
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
"""A key, an id and a field that nobody has."""


DEFAULT_QUERY: Final = "What is this, and what is it for?"
"""Asked where no other question is given: one that finds something in any English text, since
records show more than none."""

_SLOW_PART: Final = 0.5
"""Part of Dify's time beyond which an answer is worth a warning."""

_LOCAL_ADDRESS: Final = re.compile(r"https?://(localhost|127\.|\[::1\])")


@frozen(kw_only=True)
class Finding:
    """One thing that was looked at. `failed`: Dify would refuse, fail, or show what is wrong."""

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
    """Ask as Dify does, and tell what it would make of the answers, one after the other.

    Some fifteen requests that only read; more where the server fails, as Dify asks up to four
    times then. Nothing else is asked of a server that Dify would not register.

    Args:
        endpoint: as entered in Dify, without `/retrieval`.
        query: a question that should find something.

    Raises:
        ConfigError: the endpoint is no address.
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
        """Go on as long as the next look makes sense."""
        reply = await self._retrieve(top_k=4)
        finding = self._check_retrieval(reply)
        yield finding
        if finding.status == "failed":
            return
        records = parse_records(reply)
        yield check_latency(reply, self.requester.retry_policy)
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

    async def _retrieve(self, **changes: Any) -> EndpointReply:
        parameters: dict[str, Any] = {
            "query": self.query,
            "knowledge_id": self.knowledge_id,
            "top_k": 4,
        }
        return await self.requester.retrieve(build_body(**(parameters | changes)))

    def _check_retrieval(self, reply: EndpointReply) -> Finding:
        try:
            records = parse_records(reply)
        except InvalidReplyError as error:
            return Finding(
                check="retrieval",
                status="failed",
                detail=f"Dify fails: {error}",
                remedy=suggest_remedy(reply, str(error)),
            )
        if not records:
            return Finding(
                check="retrieval",
                status="warning",
                detail=f"{self.query!r} finds nothing, so that no record could be looked at",
                remedy="Check with a question that finds something: --query.",
            )
        detail = f"{len(records)} record{'s' * (len(records) > 1)} that Dify takes"
        return Finding(check="retrieval", status="ok", detail=detail)

    def _unusual_requests(self) -> list[tuple[str, str, Mapping[str, Any]]]:
        """Name what Dify sends as well, where servers stumble."""
        conditions = [
            {
                "name": UNKNOWN_NAME,
                "comparison_operator": str(operator),
                "value": sample_value(operator),
            }
            for operator in ComparisonOperator
        ]
        return [
            ("top_k null", "a base without stored settings", {"top_k": None}),
            ("quotes", "the console escapes them", {"query": f'\\"{self.query}\\"'}),
            ("unicode", "any language", {"query": "größer? 斑马 🦓"}),
            ("long query", "whatever an app produces", {"query": f"{self.query} " * 200}),
            (
                "no conditions",
                "they may be null",
                {"metadata_condition": {"logical_operator": "and", "conditions": None}},
            ),
            (
                "operators",
                f"all {len(conditions)} of them",
                {"metadata_condition": {"logical_operator": "or", "conditions": conditions}},
            ),
        ]

    async def _check_unusual_request(self, check: str, explanation: str, **changes: Any) -> Finding:
        reply = await self._retrieve(**changes)
        try:
            parse_records(reply)
        except InvalidReplyError as error:
            return Finding(
                check=check,
                status="failed",
                detail=f"Dify sends it ({explanation}) and fails: {error}",
                remedy=suggest_remedy(reply, str(error)),
            )
        return Finding(check=check, status="ok", detail=f"taken ({explanation})")

    async def _check_top_k(self) -> Finding:
        records = await self._retrieve_records(top_k=1)
        if isinstance(records, Finding):
            return records
        if len(records) > 1:
            return Finding(
                check="top_k",
                status="failed",
                detail=f"{len(records)} records for a top_k of 1; Dify shows them all to the model",
                remedy="Cut to retrieval_setting.top_k; Dify does not.",
            )
        return Finding(check="top_k", status="ok", detail="no more records than top_k")

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
                    detail=f"a record of score {read_score(too_low[0])}"
                    f" for a threshold of {threshold}",
                    remedy="Leave out what scores less than score_threshold; Dify does not.",
                )
        return Finding(check="threshold", status="ok", detail="no record scores less")

    async def _retrieve_records(
        self, *, check: str = "top_k", **changes: Any
    ) -> list[Any] | Finding:
        reply = await self._retrieve(**changes)
        try:
            return parse_records(reply)
        except InvalidReplyError as error:
            detail = f"Dify fails: {error}"
            return Finding(
                check=check,
                status="failed",
                detail=detail,
                remedy=suggest_remedy(reply, str(error)),
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
                detail="records are found that cannot meet it; filters set in Dify do nothing",
                remedy="Apply metadata_condition to the metadata of the records.",
            )
        return Finding(check="metadata condition", status="ok", detail="it filters")

    async def _check_wrong_key(self) -> Finding:
        body = build_body(self.query, self.knowledge_id, top_k=1)
        reply = await self.requester.retrieve(body, api_key=UNKNOWN_NAME)
        if reply.status in {401, 403}:
            return Finding(check="wrong key", status="ok", detail=f"refused with {reply.status}")
        return Finding(
            check="wrong key",
            status="warning",
            detail=f"a key that nobody has is answered with {reply.status or reply.error}",
            remedy="Refuse it with 401; else the documents are open to whoever finds the address.",
        )

    async def _check_unknown_id(self) -> Finding:
        check = "unknown id"
        reply = await self._retrieve(knowledge_id=UNKNOWN_NAME)
        if reply.is_failed:
            return Finding(
                check=check,
                status="warning",
                detail=f"asked {reply.attempts} times, since the answer is {reply.describe()}",
                remedy="Answer with 404 or 400, after which Dify does not ask again.",
            )
        if reply.status == 200:  # noqa: PLR2004 -- a success
            return Finding(
                check=check,
                status="warning",
                detail="an id that nobody has is answered like any other",
                remedy="Refuse it with 404, so that a slip in Dify's settings is seen.",
            )
        return Finding(check=check, status="ok", detail=f"refused with {reply.status}")


def check_address(endpoint: str) -> Finding:
    """Look at how the address is written."""
    url = retrieval_url(endpoint)
    if endpoint.endswith(("/", "/retrieval")):
        return Finding(
            check="address",
            status="warning",
            detail=f"Dify appends /retrieval and asks {url}",
            remedy="Enter the address without /retrieval and without a slash at its end.",
        )
    if _LOCAL_ADDRESS.match(endpoint):
        return Finding(
            check="address",
            status="ok",
            detail=f"Dify asks {url}, if it runs on this machine and not in Docker",
        )
    return Finding(check="address", status="ok", detail=f"Dify asks {url}")


def check_registration(reply: EndpointReply) -> Finding:
    """Tell whether Dify registers the API."""
    problem = find_registration_problem(reply)
    if problem is None:
        detail = f"the empty request is answered with {reply.status}; Dify registers the API"
        return Finding(check="registration", status="ok", detail=detail)
    advice = "Start the server, and see that its address can be reached from here."
    if reply.status:
        advice = "Answer a POST without a body with 400, 401 or 200; never with 404, 403, 429, 5xx."
    if reply.status == 403:  # noqa: PLR2004 -- Forbidden
        advice = "Refuse a wrong key with 401, and an empty body with 400 where the key is right."
    return Finding(
        check="registration", status="failed", detail=f"Dify refuses: {problem}", remedy=advice
    )


def check_latency(reply: EndpointReply, retry_policy: RetryPolicy) -> Finding:
    """Look at how long an answer took."""
    detail = f"answered in {reply.elapsed:.2f} s; Dify waits for {retry_policy.timeout:g} s"
    if reply.attempts > 1:
        return Finding(
            check="time",
            status="warning",
            detail=f"answered only the {reply.attempts}. time",
            remedy="Find out why the first failed; Dify asks up to four times and then gives up.",
        )
    if reply.elapsed > _SLOW_PART * retry_policy.timeout:
        return Finding(
            check="time",
            status="warning",
            detail=detail,
            remedy="Make the search faster: beyond it Dify asks up to four times and gives up.",
        )
    return Finding(check="time", status="ok", detail=detail)


def check_record_shape(records: list[dict[str, Any]]) -> Finding:
    """Look at what records hold besides what Dify insists on."""
    if any(
        read_score(record) is None or not 0 <= (read_score(record) or 0) <= 1 for record in records
    ):
        return Finding(
            check="scores",
            status="failed",
            detail="a record has no score from 0 to 1, by which Dify sorts and cites",
            remedy="Send a number from 0 to 1 with each record.",
        )
    if not all(isinstance(record.get("title"), str) and record["title"] for record in records):
        return Finding(
            check="titles",
            status="warning",
            detail="a record has no title, so that its citation has no name",
            remedy="Send the document's name as title.",
        )
    return Finding(check="records", status="ok", detail="each with content, score, title, metadata")


def check_order(records: list[dict[str, Any]]) -> Finding:
    """Look at the order of records."""
    scores = [read_score(record) or 0.0 for record in records]
    if scores != sorted(scores, reverse=True):
        return Finding(
            check="order",
            status="failed",
            detail="the best does not come first; Dify takes the order as it is",
            remedy="Sort by score, the highest first.",
        )
    return Finding(check="order", status="ok", detail="the best first")


def read_score(record: Mapping[str, Any]) -> float | None:
    """Take the score of a record, if it is a number."""
    value = record.get("score")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value)


def sample_value(operator: ComparisonOperator) -> object:
    """Make a value to compare with."""
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


def suggest_remedy(reply: EndpointReply, problem: str) -> str:
    """Say what to do about an answer that Dify cannot use."""
    if not reply.status:
        return "Answer within 5 s; Dify asks four times and then gives up."
    if reply.status in {401, 403}:
        return "Give the key that the server knows: --api-key."
    if reply.status == 404:  # noqa: PLR2004 -- Not Found
        return "Give an id that the server knows: --knowledge-id."
    if reply.status != 200:  # noqa: PLR2004 -- the one status that Dify takes
        return "Answer with status 200; the server's log may say what it did not like."
    if "metadata" in problem:
        return 'Send "metadata": {} with each record, an object even where there is none.'
    return 'Answer {"records": [{"content": "…", "score": 0.9, "title": "…", "metadata": {}}]}.'
