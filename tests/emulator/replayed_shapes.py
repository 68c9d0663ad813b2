"""Comparing an answer with a recorded one: status, kind, keys and JSON types."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from attrs import frozen
from emulator_calls import Reply

UNSETTLED = frozenset({"waiting", "parsing", "cleaning", "splitting", "indexing"})


def compared(reply: Reply, ours: Any, theirs: Mapping[str, Any], shape: Shape) -> Iterator[str]:
    """Tell the ways in which two answers differ: status, kind, then shape."""
    if reply.status != theirs["status"]:
        yield f"status {reply.status}, not {theirs['status']}: {reply.raw[:200]!r}"
        return
    if ("WWW-Authenticate" in reply.headers) != theirs.get("challenge", False):
        yield "WWW-Authenticate"
    if not reply.raw and not theirs.get("body"):
        return
    json_kind = reply.headers.get("Content-Type", "").startswith("application/json")
    if json_kind != (theirs["kind"] == "json"):
        yield f"content type {reply.headers.get('Content-Type')}"
        return
    body = theirs.get("body")
    if json_kind:
        yield from shape.of(ours, body, "$")
    if isinstance(body, dict) and isinstance(ours, dict):
        for name in ("code", "params", "page", "limit") if "id" not in body else ():
            if ours.get(name) != body.get(name):
                yield f"{name} {ours.get(name)!r}, not {body.get(name)!r}"


_RULES = re.compile(r"process_rule")


@frozen
class Shape:
    """Compares keys, JSON types and, unless a state was rebuilt, which values are null."""

    ids: Mapping[str, str]
    made: set[str]
    nulls: bool

    def of(self, ours: Any, theirs: Any, where: str) -> Iterator[str]:
        """Tell the differences."""
        if isinstance(ours, dict) and isinstance(theirs, dict):
            yield from self._objects(ours, theirs, where)
        elif isinstance(ours, list) and isinstance(theirs, list):
            yield from self._lists(ours, theirs, where)
        elif _kind(ours) != _kind(theirs) and (
            self.nulls or (ours is not None and theirs is not None)
        ):
            yield f"{where} is {_kind(ours)}, not {_kind(theirs)}"

    def _objects(self, ours: Any, theirs: Any, where: str) -> Iterator[str]:
        if (not self.nulls and _RULES.search(where)) or where.endswith(".doc_metadata"):
            return
        for name in sorted(ours.keys() ^ theirs.keys()):
            yield f"{where}.{name} is {'ours' if name in ours else 'theirs'} only"
        moving = {ours.get("indexing_status"), theirs.get("indexing_status")} & UNSETTLED
        rebuilt = moving or theirs.get("id") in self.made
        shape = Shape(self.ids, self.made, nulls=self.nulls and not rebuilt)
        for name in sorted(ours.keys() & theirs.keys()):
            yield from shape.of(ours[name], theirs[name], f"{where}.{name}")

    def _lists(self, ours: list[Any], theirs: list[Any], where: str) -> Iterator[str]:
        if bool(ours) != bool(theirs):
            yield f"{where} has {len(ours)} items, not {len(theirs)}"
        if not all(_key(item) for item in [*ours, *theirs]):
            for one, other in zip(ours, theirs, strict=False):
                yield from self.of(one, other, f"{where}[]")
            return
        mine = {_key(item): item for item in ours}
        pairs = [(mine.get(self.ids.get(_key(item), "")), item) for item in theirs]
        for one, other in pairs:
            if one is not None:
                yield from self.of(one, other, f"{where}[]")
        if ours and all(one is None for one, _ in pairs):
            # Not the same things: they need not be in the same state.
            loose = Shape(self.ids, self.made, nulls=False)
            for one, other in zip(ours, theirs, strict=False):
                yield from loose.of(one, other, f"{where}[]")


def _key(item: Any) -> str:
    """Tell what an item of a list is recognised by: its id, or that of the segment in it."""
    if not isinstance(item, dict):
        return ""
    return str(item.get("id") or item.get("segment", {}).get("id") or "")


def _kind(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    return "number" if isinstance(value, int | float) else type(value).__name__
