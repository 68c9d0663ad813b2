"""Checks of request bodies, that refuse in the words of the version (measured).

Servers since 1.11 check a body with pydantic and tell every problem; older ones read field after
field and tell the first. A check takes the value, where it stands and the list of problems, and
returns the value that the server goes on with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, cast

from attrs import Factory, field, frozen

from .profile import Profile, Wording
from .refused import RefusedError, invalid_param

Where = tuple[str, ...]

_SHOWN: Final = 50
"""Characters of a value that pydantic shows before it cuts the middle out."""


@frozen
class Problems:
    """What is wrong with one body."""

    profile: Profile
    texts: list[str] = field(factory=list)
    plain: list[str] = field(factory=list)
    """The same, as older servers say it."""

    def add(self, where: Where, what: str, kind: str, value: object) -> None:
        """Note a problem."""
        shown = repr(value)
        if len(shown) > _SHOWN:
            shown = f"{shown[:25]}...{shown[-24:]}"
        self.texts.append(
            f"{''.join(('.'.join(where), chr(10))) if where else ''}"
            f"  {what} [type={kind}, input_value={shown}, input_type={type(value).__name__}]\n"
            "    For further information visit"
            f" https://errors.pydantic.dev/{self.profile.pydantic}/v/{kind}"
        )
        self.plain.append(_plain(self.profile, where, what, kind, value))

    def refusal(self, title: str) -> RefusedError:
        """Tell them all."""
        count = len(self.texts)
        lines = "\n".join(self.texts)
        return invalid_param(
            f"{count} validation error{'s' if count > 1 else ''} for {title}\n{lines}"
        )


Check = Callable[[object, Where, Problems], object]

_MISSING: Final = "Missing required parameter in the JSON body"
_MISSING_ANYWHERE: Final = f"{_MISSING} or the post body or the query string"


def _plain(profile: Profile, where: Where, what: str, kind: str, value: object) -> str:
    """Say a problem as servers before 1.11 do."""
    match kind:
        case "literal_error" | "enum" if profile.wording is Wording.PARAMS:
            return f"{value} is not a valid choice"
        case "literal_error" | "enum":
            return f"The value '{value}' is not a valid choice for '{'.'.join(where)}'."
        case "int_parsing":
            return f"invalid literal for int() with base 10: {value!r}"
        case _:
            return what


@frozen(kw_only=True)
class Before:
    """How servers before 1.11 read a field, where that differs."""

    help: str = ""
    """What the message starts with; on 1.4 it is the message."""

    check: Check | None = None
    required: bool | None = None
    nullable: bool | None = None

    model: str | None = None
    """What is checked by pydantic already: the message uses this name."""

    anywhere: bool = False
    """Whether the field may also stand in a form or the query."""


@frozen
class Field:
    """A field of a body. A null that is allowed (where absence is) counts as absent."""

    check: Check
    required: bool = False
    nullable: bool = field(
        default=Factory(lambda known: not known.required, takes_self=True), kw_only=True
    )
    before: Before = field(default=Before(), kw_only=True)


@frozen
class Payload:
    """The fields of a body, and the name that its messages use."""

    title: str
    fields: Mapping[str, Field]

    def read(self, value: object, profile: Profile) -> dict[str, object]:
        """Return the known fields of a body.

        Raises:
            RefusedError: 400 with every problem, or with the first on servers before 1.11.
        """
        if profile.wording is Wording.PYDANTIC:
            return self.validate(value, profile)
        sent = value if isinstance(value, dict) else {}
        read = {
            name: _before(name, known, sent, profile)
            for name, known in self.fields.items()
            if name in sent or _chosen(known.before.required, known.required)
        }
        return {name: item for name, item in read.items() if item is not None}

    def validate(self, value: object, profile: Profile) -> dict[str, object]:
        """Return the known fields of what every version checks with pydantic.

        Raises:
            RefusedError: 400 with every problem.
        """
        problems = Problems(profile)
        # A falsy body counts as {} (recording 023: an empty list misses the fields).
        fields = record(self.fields)(value or {}, (), problems)
        if problems.texts:
            raise problems.refusal(self.title)
        return cast("dict[str, object]", fields)


def _before(name: str, known: Field, sent: Mapping[str, object], profile: Profile) -> object:
    """Read one field as servers before 1.11 do."""
    how = known.before
    if name not in sent:
        missing = _MISSING_ANYWHERE if how.anywhere else _MISSING
        raise _first(profile, name, how.help, missing)
    if sent[name] is None:
        if not _chosen(how.nullable, known.nullable):
            raise _first(profile, name, how.help, "Must not be null!")
        return None
    problems = Problems(profile)
    value = (how.check or known.check)(sent[name], () if how.model else (name,), problems)
    if problems.texts and how.model:
        raise problems.refusal(how.model)
    if problems.texts:
        raise _first(profile, name, how.help, problems.plain[0])
    return value


def _chosen(before: bool | None, now: bool) -> bool:  # noqa: FBT001 -- a choice between two
    return now if before is None else before


def _first(profile: Profile, name: str, help_: str, what: str) -> RefusedError:
    """Refuse the first wrong field (measured)."""
    body: dict[str, object]
    if profile.wording is Wording.PARAMS:
        message = help_ or what
        body = {"code": "invalid_param", "message": message, "params": name}
    else:
        message = "Input payload validation failed"
        body = {"errors": {name: f"{help_} {what}".strip()}, "message": message}
    return RefusedError(400, "invalid_param", message, body)


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
