from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Final, Generic, Literal, Self, TypeVar

from attrs import field, frozen

T = TypeVar("T")


class OpenEnum(enum.StrEnum):
    """An enum of values from the server. Keeps unknown values; their `is_known` is False."""

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, str):
            return None
        member = str.__new__(cls, value)
        member._name_ = value
        member._value_ = value
        return member

    @property
    def is_known(self) -> bool:
        """Whether this package knows the value."""
        return type(self).__members__.get(self._name_) is self


class Unset(enum.Enum):
    """The type of `UNSET`."""

    UNSET = enum.auto()

    def __bool__(self) -> Literal[False]:
        return False

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = Unset.UNSET
"""The default of optional fields, which are then not sent; `None` is sent as null."""


@frozen(kw_only=True)
class Page(Generic[T]):
    """A page of a list.

    `total` is the number of rows on all pages. Use it instead of `has_more`, which only says that
    the page is full (measured on 1.4.3, 1.8.1 and 1.12.1) and is None for child chunks.
    """

    data: Sequence[T]
    has_more: bool | None = None
    limit: int | None = None
    total: int
    page: int | None = None
    extra: Mapping[str, object] = field(factory=dict)
