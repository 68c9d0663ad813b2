"""Pages that are asked for in queries which pydantic reads only after werkzeug did."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dify_kb.emulator.payload import Field, Payload, Problems, Where

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dify_kb.emulator.profile import Profile

_PAGE = 1
_LIMIT = 20


def lenient(query: Mapping[str, Any]) -> tuple[int, int]:
    """Take page and limit; what is no number is the default (recordings 509, 510)."""
    return _number(query.get("page"), _PAGE), _number(query.get("limit"), _LIMIT)


def strict(title: str, page: int, limit: int, profile: Profile) -> tuple[int, int]:
    """Refuse numbers below 1 (recordings 607, 609).

    Raises:
        RefusedError: 400.
    """
    payload = Payload(title, {"page": Field(_positive), "limit": Field(_positive)})
    payload.validate({"page": page, "limit": limit}, profile)
    return page, limit


def _number(value: object, default: int) -> int:
    try:
        return int(str(value))
    except ValueError:
        return default


def _positive(value: object, where: Where, problems: Problems) -> object:
    if isinstance(value, int) and value < 1:
        what = "Input should be greater than or equal to 1"
        problems.add(where, what, "greater_than_equal", value)
    return value
