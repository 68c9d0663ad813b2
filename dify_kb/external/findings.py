"""What is found out about an external knowledge API, and what is to be done. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, Literal

from attrs import frozen

from dify_kb.models import ComparisonOperator

from .dify import Patience, Reply, address, probed

if TYPE_CHECKING:
    from collections.abc import Mapping

Status = Literal["ok", "warning", "failed"]

NOBODY: Final = "dify-kb-check"
"""A key, an id and a field that nobody has."""

_SLOW: Final = 0.5
"""Part of Dify's time beyond which an answer is worth a warning."""

_LOCAL: Final = re.compile(r"https?://(localhost|127\.|\[::1\])")


@frozen(kw_only=True)
class Finding:
    """One thing that was looked at. `failed`: Dify would refuse, fail, or show what is wrong."""

    check: str
    status: Status
    detail: str
    remedy: str = ""


def spelled(endpoint: str) -> Finding:
    """Look at how the address is written."""
    asked = address(endpoint)
    if endpoint.endswith(("/", "/retrieval")):
        return Finding(
            check="address",
            status="warning",
            detail=f"Dify appends /retrieval and asks {asked}",
            remedy="Enter the address without /retrieval and without a slash at its end.",
        )
    if _LOCAL.match(endpoint):
        return Finding(
            check="address",
            status="ok",
            detail=f"Dify asks {asked}, if it runs on this machine and not in Docker",
        )
    return Finding(check="address", status="ok", detail=f"Dify asks {asked}")


def registered(reply: Reply) -> Finding:
    """Tell whether Dify registers the API."""
    problem = probed(reply)
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


def timely(reply: Reply, patience: Patience) -> Finding:
    """Look at how long an answer took."""
    detail = f"answered in {reply.seconds:.2f} s; Dify waits for {patience.timeout:g} s"
    if reply.sends > 1:
        return Finding(
            check="time",
            status="warning",
            detail=f"answered only the {reply.sends}. time",
            remedy="Find out why the first failed; Dify asks up to four times and then gives up.",
        )
    if reply.seconds > _SLOW * patience.timeout:
        return Finding(
            check="time",
            status="warning",
            detail=detail,
            remedy="Make the search faster: beyond it Dify asks up to four times and gives up.",
        )
    return Finding(check="time", status="ok", detail=detail)


def shaped(records: list[dict[str, Any]]) -> Finding:
    """Look at what records hold besides what Dify insists on."""
    if any(score(record) is None or not 0 <= (score(record) or 0) <= 1 for record in records):
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


def ordered(records: list[dict[str, Any]]) -> Finding:
    """Look at the order of records."""
    scores = [score(record) or 0.0 for record in records]
    if scores != sorted(scores, reverse=True):
        return Finding(
            check="order",
            status="failed",
            detail="the best does not come first; Dify takes the order as it is",
            remedy="Sort by score, the highest first.",
        )
    return Finding(check="order", status="ok", detail="the best first")


def score(record: Mapping[str, Any]) -> float | None:
    """Take the score of a record, if it is a number."""
    value = record.get("score")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value)


def example(operator: ComparisonOperator) -> object:
    """Make a value to compare with."""
    match operator:
        case ComparisonOperator.EMPTY | ComparisonOperator.NOT_EMPTY:
            return None
        case ComparisonOperator.IN | ComparisonOperator.NOT_IN:
            return [NOBODY]
        case ComparisonOperator.BEFORE | ComparisonOperator.AFTER:
            return 1_700_000_000
        case ">" | "<" | "≥" | "≤":
            return 1
        case _:
            return NOBODY


def remedy(reply: Reply, problem: str) -> str:
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
