"""Checks of request bodies that refuse in pydantic's words, as servers since 1.11 do.

A check takes the value, where it stands and the list of problems, and returns the value that
the server goes on with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, cast

from attrs import Factory, field, frozen

from .refused import RefusedError, invalid_param

Where = tuple[str, ...]

_SHOWN: Final = 50
"""Characters of a value that pydantic shows before it cuts the middle out."""


@frozen
class Problems:
    """What is wrong with one body."""

    pydantic: str
    texts: list[str] = field(factory=list)

    def add(self, where: Where, what: str, kind: str, value: object) -> None:
        """Note a problem."""
        shown = repr(value)
        if len(shown) > _SHOWN:
            shown = f"{shown[:25]}...{shown[-24:]}"
        self.texts.append(
            f"{''.join(('.'.join(where), chr(10))) if where else ''}"
            f"  {what} [type={kind}, input_value={shown}, input_type={type(value).__name__}]\n"
            f"    For further information visit https://errors.pydantic.dev/{self.pydantic}/v/{kind}"
        )

    def refusal(self, title: str) -> RefusedError:
        """Tell them all."""
        count = len(self.texts)
        lines = "\n".join(self.texts)
        return invalid_param(
            f"{count} validation error{'s' if count > 1 else ''} for {title}\n{lines}"
        )


Check = Callable[[object, Where, Problems], object]


@frozen
class Field:
    """A field of a body. A null that is allowed (where absence is) counts as absent."""

    check: Check
    required: bool = False
    nullable: bool = field(
        default=Factory(lambda known: not known.required, takes_self=True), kw_only=True
    )


@frozen
class Payload:
    """The fields of a body, and the name that its messages use."""

    title: str
    fields: Mapping[str, Field]

    def read(self, value: object, pydantic: str) -> dict[str, object]:
        """Return the known fields of a body.

        Raises:
            RefusedError: 400 with every problem.
        """
        problems = Problems(pydantic)
        # A falsy body counts as {} (recording 023: an empty list misses the fields).
        fields = record(self.fields)(value or {}, (), problems)
        if problems.texts:
            raise problems.refusal(self.title)
        return cast("dict[str, object]", fields)


def record(fields: Mapping[str, Field]) -> Check:
    """Check an object; fields that are not named are ignored."""

    def check(value: object, where: Where, problems: Problems) -> object:
        if not isinstance(value, dict):
            what = "Input should be a valid dictionary"
            problems.add(where, what, "model_type", value)
            return {}
        read: dict[str, object] = {}
        for name, known in fields.items():
            here = (*where, name)
            if name not in value:
                if known.required:
                    problems.add(here, "Field required", "missing", value)
            elif value[name] is not None or not known.nullable:
                read[name] = known.check(value[name], here, problems)
        return read

    return check


def items(check_item: Check) -> Check:
    """Check a list."""

    def check(value: object, where: Where, problems: Problems) -> object:
        if not isinstance(value, list):
            problems.add(where, "Input should be a valid list", "list_type", value)
            return []
        return [
            check_item(item, (*where, str(number)), problems) for number, item in enumerate(value)
        ]

    return check


def text(*, least: int = 0, most: int | None = None) -> Check:
    """Check a text of `least` to `most` characters."""

    def check(value: object, where: Where, problems: Problems) -> object:
        if not isinstance(value, str):
            problems.add(where, "Input should be a valid string", "string_type", value)
        elif len(value) < least:
            what = f"String should have at least {_characters(least)}"
            problems.add(where, what, "string_too_short", value)
        elif most is not None and len(value) > most:
            what = f"String should have at most {_characters(most)}"
            problems.add(where, what, "string_too_long", value)
        return value

    return check


def _characters(count: int) -> str:
    return f"{count} character{'' if count == 1 else 's'}"


def words(options: Sequence[str], kind: str = "literal_error") -> Check:
    """Check that a text is one of a few."""
    *most, last = [repr(str(option)) for option in options]
    what = f"Input should be {', '.join(most)} or {last}"

    def check(value: object, where: Where, problems: Problems) -> object:
        if value not in options:
            problems.add(where, what, kind, value)
        return value

    return check


def integer(value: object, where: Where, problems: Problems) -> object:
    """Check a whole number, which may be written as text."""
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            what = "Input should be a valid integer, unable to parse string as an integer"
            problems.add(where, what, "int_parsing", value)
            return 0
    if isinstance(value, bool) or not isinstance(value, int):
        problems.add(where, "Input should be a valid integer", "int_type", value)
    return value


def number(value: object, where: Where, problems: Problems) -> object:
    """Check a number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        problems.add(where, "Input should be a valid number", "float_type", value)
    return value


_FLAGS = {"true": True, "1": True, "yes": True, "on": True, "t": True, "y": True} | {
    "false": False, "0": False, "no": False, "off": False, "f": False, "n": False,
}  # fmt: skip


def flag(value: object, where: Where, problems: Problems) -> object:
    """Check a truth value, which may be written as text."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str | int) and str(value).lower() in _FLAGS:
        return _FLAGS[str(value).lower()]
    what = "Input should be a valid boolean, unable to interpret input"
    problems.add(where, what, "bool_parsing", value)
    return False


def anything(value: object, _where: Where, _problems: Problems) -> object:
    """Take a value as it is."""
    return value
