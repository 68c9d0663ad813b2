"""The validated options of a sync."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Self

import attrs
from attrs import Attribute, field, frozen
from attrs.converters import optional

from dify_kb.arguments import parse_duration
from dify_kb.errors import ConfigError
from dify_kb.ingest import LoadOptions
from dify_kb.ingest.metadata.sync_fields import check_sync_id

SyncState = Literal["journal", "base"]
DeleteMode = Literal["delete", "disable", "archive", "keep"]

MayDelete = Callable[[str], bool]
"""Returns whether the document of a file that is gone may be deleted, by its key."""

MIN_DELETES = 20
"""Number of deletes that the default limit always allows."""

_PERCENT = re.compile(r"(\d{1,3})%")


@frozen
class DeleteLimit:
    """The maximum number of documents that one run may delete."""

    count: int | None = None
    percent: int = 50

    def maximum(self, owned: int) -> int:
        """Return the maximum for a sync with this number of documents."""
        share = owned * self.percent // 100
        if self.count is None:
            return max(share, MIN_DELETES)
        return share if self.count < 0 else self.count


def parse_delete_limit(limit: DeleteLimit | int | str | None) -> DeleteLimit:
    """Parse a number, or a percentage such as `"30%"`; None is 50 %, at least 20.

    Raises:
        ConfigError: it is neither.
    """
    if limit is None:
        return DeleteLimit()
    if isinstance(limit, DeleteLimit):
        return limit
    if isinstance(limit, int) and not isinstance(limit, bool) and limit >= 0:
        return DeleteLimit(count=limit)
    if isinstance(limit, str):
        if limit.isascii() and limit.isdigit():
            return DeleteLimit(count=int(limit))
        found = _PERCENT.fullmatch(limit)
        if found is not None and int(found[1]) <= 100:  # noqa: PLR2004 -- percent
            return DeleteLimit(count=-1, percent=int(found[1]))
    raise ConfigError(f"Invalid max_delete {limit!r}.", hint="Pass a number such as 100, or '30%'.")


def _duration(value: float | str) -> float:
    return parse_duration(value, "empty_trash")


def _paths(value: str | Sequence[str]) -> Sequence[str]:
    return (value,) if isinstance(value, str) else tuple(value)


def _validate_choice(*known: str) -> Any:
    def check(_: object, attribute: Attribute[Any], value: object) -> None:
        if value not in known:
            raise ConfigError(
                f"Invalid {attribute.name} {value!r}.", hint=f"Expected {', '.join(known)}."
            )

    return check


@frozen(kw_only=True)
class SyncOptions:
    """The options of a sync, validated. `AsyncClient.sync` documents them."""

    load: LoadOptions
    state: SyncState = field(default="journal", validator=_validate_choice("journal", "base"))
    id: str | None = field(default=None, converter=optional(check_sync_id))
    delete: DeleteMode = field(
        default="delete", validator=_validate_choice("delete", "disable", "archive", "keep")
    )
    max_delete: DeleteLimit = field(default=None, converter=parse_delete_limit)
    adopt: bool = False
    keep_ids: bool = False
    allow_empty: bool = False
    delete_excluded: bool = False
    ignore_errors: bool = False
    respect_deletes: bool = False
    protect_edits: bool = False
    may_delete: MayDelete | None = None
    check: Sequence[str] = field(default=(), converter=_paths)
    empty_trash: float | None = field(default=None, converter=optional(_duration))

    @classmethod
    def from_arguments(cls, arguments: Mapping[str, Any]) -> Self:
        """Create the options from the arguments of a method, ignoring other names.

        Raises:
            ConfigError: an option is invalid.
        """
        load = LoadOptions.from_arguments(
            {**arguments, "replace": "in_place" if arguments.get("keep_ids") else "swap"}
        )
        names = [one.name for one in attrs.fields(cls) if one.name != "load"]
        return cls(load=load, **{name: arguments[name] for name in names if name in arguments})
