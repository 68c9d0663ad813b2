"""Comparison of a response with a recorded one: status, content type, keys and JSON types."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from attrs import frozen
from emulator_client import Response

UNFINISHED_STATUSES = frozenset({"waiting", "parsing", "cleaning", "splitting", "indexing"})


def compare_responses(
    response: Response, ours: Any, theirs: Mapping[str, Any], shape: ShapeComparison
) -> Iterator[str]:
    """Yield the differences between two responses: status, content type, then shape."""
    if response.status != theirs["status"]:
        yield f"status {response.status}, not {theirs['status']}: {response.raw[:200]!r}"
        return
    if ("WWW-Authenticate" in response.headers) != theirs.get("challenge", False):
        yield "WWW-Authenticate"
    if not response.raw and not theirs.get("body"):
        return
    is_json = response.headers.get("Content-Type", "").startswith("application/json")
    if is_json != (theirs["kind"] == "json"):
        yield f"content type {response.headers.get('Content-Type')}"
        return
    body = theirs.get("body")
    if is_json:
        yield from shape.compare(ours, body, "$")
    if isinstance(body, dict) and isinstance(ours, dict):
        for name in ("code", "params", "page", "limit") if "id" not in body else ():
            if ours.get(name) != body.get(name):
                yield f"{name} {ours.get(name)!r}, not {body.get(name)!r}"


_RULES = re.compile(r"process_rule")


@frozen
class ShapeComparison:
    """Compares keys, JSON types and, unless an object was recreated, which values are null."""

    ids: Mapping[str, str]
    rebuilt_ids: set[str]
    compares_nulls: bool

    def compare(self, ours: Any, theirs: Any, path: str) -> Iterator[str]:
        """Yield the differences."""
        if isinstance(ours, dict) and isinstance(theirs, dict):
            yield from self._objects(ours, theirs, path)
        elif isinstance(ours, list) and isinstance(theirs, list):
            yield from self._lists(ours, theirs, path)
        elif _json_type(ours) != _json_type(theirs) and (
            self.compares_nulls or (ours is not None and theirs is not None)
        ):
            yield f"{path} is {_json_type(ours)}, not {_json_type(theirs)}"

    def _objects(self, ours: Any, theirs: Any, path: str) -> Iterator[str]:
        if (not self.compares_nulls and _RULES.search(path)) or path.endswith(".doc_metadata"):
            return
        for name in sorted(ours.keys() ^ theirs.keys()):
            yield f"{path}.{name} is {'ours' if name in ours else 'theirs'} only"
        unfinished = {
            ours.get("indexing_status"),
            theirs.get("indexing_status"),
        } & UNFINISHED_STATUSES
        rebuilt = unfinished or theirs.get("id") in self.rebuilt_ids
        shape = ShapeComparison(
            self.ids, self.rebuilt_ids, compares_nulls=self.compares_nulls and not rebuilt
        )
        for name in sorted(ours.keys() & theirs.keys()):
            yield from shape.compare(ours[name], theirs[name], f"{path}.{name}")

    def _lists(self, ours: list[Any], theirs: list[Any], path: str) -> Iterator[str]:
        if bool(ours) != bool(theirs):
            yield f"{path} has {len(ours)} items, not {len(theirs)}"
        if not all(_key(item) for item in [*ours, *theirs]):
            for our_item, their_item in zip(ours, theirs, strict=False):
                yield from self.compare(our_item, their_item, f"{path}[]")
            return
        our_items = {_key(item): item for item in ours}
        pairs = [(our_items.get(self.ids.get(_key(item), "")), item) for item in theirs]
        for our_item, their_item in pairs:
            if our_item is not None:
                yield from self.compare(our_item, their_item, f"{path}[]")
        if ours and all(our_item is None for our_item, _ in pairs):
            # Different objects, whose states may differ.
            loose_comparison = ShapeComparison(self.ids, self.rebuilt_ids, compares_nulls=False)
            for our_item, their_item in zip(ours, theirs, strict=False):
                yield from loose_comparison.compare(our_item, their_item, f"{path}[]")


def _key(item: Any) -> str:
    """Return the id that identifies a list item: its own, or the id of its segment."""
    if not isinstance(item, dict):
        return ""
    return str(item.get("id") or item.get("segment", {}).get("id") or "")


def _json_type(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    return "number" if isinstance(value, int | float) else type(value).__name__
