"""What Dify would think of an external knowledge API: the same calls, each judged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import aiohttp
from attrs import frozen

from dify_kb.models import ComparisonOperator

from .dify import Asker, DroppedError, Patience, Reply, address, body_of, records_of
from .findings import (
    NOBODY,
    Finding,
    example,
    ordered,
    registered,
    remedy,
    score,
    shaped,
    spelled,
    timely,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

QUERY: Final = "What is this, and what is it for?"
"""Asked where no other question is given: one that finds something in any English text, since
records show more than none."""


async def check(
    endpoint: str,
    *,
    api_key: str,
    knowledge_id: str,
    query: str = QUERY,
    patience: Patience | None = None,
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
    address(endpoint)
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        asker = Asker(session, endpoint, api_key, patience or Patience())
        examiner = _Examiner(asker, knowledge_id, query)
        yield spelled(endpoint)
        probe = registered(await asker.probe())
        yield probe
        if probe.status == "failed":
            return
        async for finding in examiner.findings():
            yield finding


@frozen
class _Examiner:
    asker: Asker
    knowledge_id: str
    query: str

    async def findings(self) -> AsyncIterator[Finding]:
        """Go on as long as the next look makes sense."""
        reply = await self._ask(top_k=4)
        first = self._retrieval(reply)
        yield first
        if first.status == "failed":
            return
        records = records_of(reply)
        yield timely(reply, self.asker.patience)
        if records:
            yield shaped(records)
            yield ordered(records)
            yield await self._top_k()
        yield await self._threshold()
        for check, said, changes in self._odd():
            yield await self._taken(check, said, **changes)
        yield await self._filtered()
        yield await self._key()
        yield await self._unknown_id()

    async def _ask(self, **changes: Any) -> Reply:
        asked: dict[str, Any] = {"query": self.query, "knowledge_id": self.knowledge_id, "top_k": 4}
        return await self.asker.ask(body_of(**(asked | changes)))

    def _retrieval(self, reply: Reply) -> Finding:
        try:
            records = records_of(reply)
        except DroppedError as dropped:
            return Finding(
                check="retrieval",
                status="failed",
                detail=f"Dify fails: {dropped}",
                remedy=remedy(reply, str(dropped)),
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

    def _odd(self) -> list[tuple[str, str, Mapping[str, Any]]]:
        """Name what Dify sends as well, where servers stumble."""
        every = [
            {"name": NOBODY, "comparison_operator": str(operator), "value": example(operator)}
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
                f"all {len(every)} of them",
                {"metadata_condition": {"logical_operator": "or", "conditions": every}},
            ),
        ]

    async def _taken(self, check: str, said: str, **changes: Any) -> Finding:
        reply = await self._ask(**changes)
        try:
            records_of(reply)
        except DroppedError as dropped:
            return Finding(
                check=check,
                status="failed",
                detail=f"Dify sends it ({said}) and fails: {dropped}",
                remedy=remedy(reply, str(dropped)),
            )
        return Finding(check=check, status="ok", detail=f"taken ({said})")

    async def _top_k(self) -> Finding:
        records = await self._found(top_k=1)
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

    async def _threshold(self) -> Finding:
        for threshold in (0.5, 1.0):
            records = await self._found(check="threshold", score_threshold=threshold)
            if isinstance(records, Finding):
                return records
            below = [record for record in records if (score(record) or 0.0) < threshold]
            if below:
                return Finding(
                    check="threshold",
                    status="failed",
                    detail=f"a record of score {score(below[0])} for a threshold of {threshold}",
                    remedy="Leave out what scores less than score_threshold; Dify does not.",
                )
        return Finding(check="threshold", status="ok", detail="no record scores less")

    async def _found(self, *, check: str = "top_k", **changes: Any) -> list[Any] | Finding:
        reply = await self._ask(**changes)
        try:
            return records_of(reply)
        except DroppedError as dropped:
            detail = f"Dify fails: {dropped}"
            return Finding(
                check=check, status="failed", detail=detail, remedy=remedy(reply, str(dropped))
            )

    async def _filtered(self) -> Finding:
        condition = {"name": NOBODY, "comparison_operator": "is", "value": NOBODY}
        wanted = {"logical_operator": "and", "conditions": [condition]}
        records = await self._found(check="metadata condition", metadata_condition=wanted)
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

    async def _key(self) -> Finding:
        body = body_of(self.query, self.knowledge_id, top_k=1)
        reply = await self.asker.ask(body, api_key=NOBODY)
        if reply.status in {401, 403}:
            return Finding(check="wrong key", status="ok", detail=f"refused with {reply.status}")
        return Finding(
            check="wrong key",
            status="warning",
            detail=f"a key that nobody has is answered with {reply.status or reply.trouble}",
            remedy="Refuse it with 401; else the documents are open to whoever finds the address.",
        )

    async def _unknown_id(self) -> Finding:
        check = "unknown id"
        reply = await self._ask(knowledge_id=NOBODY)
        if reply.given_up:
            return Finding(
                check=check,
                status="warning",
                detail=f"asked {reply.sends} times, since the answer is {reply.told()}",
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
