"""Validate request bodies with the error messages of each server version (measured).

Servers since 1.11 check a body with pydantic and report all problems; older ones parse field by
field and report the first. A validator is a function of a value, its path and the problems found
so far; it returns the value that the server uses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, cast

from attrs import Factory, field, frozen

from .errors import EmulatedError, invalid_param_error
from .server_profile import ErrorStyle, ServerProfile

FieldPath = tuple[str, ...]

_MAX_SHOWN_LENGTH: Final = 50
"""Maximum length of a value in pydantic's messages, in characters; longer ones are shortened."""


@frozen
class ValidationErrors:
    """The validation errors of one body."""

    profile: ServerProfile
    messages: list[str] = field(factory=list)
    legacy_messages: list[str] = field(factory=list)
    """The same errors, in the words of servers before 1.11."""

    def add(self, path: FieldPath, text: str, error_type: str, value: object) -> None:
        """Add an error."""
        shown_value = repr(value)
        if len(shown_value) > _MAX_SHOWN_LENGTH:
            shown_value = f"{shown_value[:25]}...{shown_value[-24:]}"
        self.messages.append(
            f"{''.join(('.'.join(path), chr(10))) if path else ''}"
            f"  {text} [type={error_type}, input_value={shown_value},"
            f" input_type={type(value).__name__}]\n"
            "    For further information visit"
            f" https://errors.pydantic.dev/{self.profile.pydantic_version}/v/{error_type}"
        )
        self.legacy_messages.append(_legacy_message(self.profile, path, text, error_type, value))

    def to_error(self, title: str) -> EmulatedError:
        """Return a 400 that lists all errors."""
        count = len(self.messages)
        lines = "\n".join(self.messages)
        return invalid_param_error(
            f"{count} validation error{'s' if count > 1 else ''} for {title}\n{lines}"
        )


Validator = Callable[[object, FieldPath, ValidationErrors], object]

_MISSING: Final = "Missing required parameter in the JSON body"
_MISSING_ANYWHERE: Final = f"{_MISSING} or the post body or the query string"


def _legacy_message(
    profile: ServerProfile, path: FieldPath, text: str, error_type: str, value: object
) -> str:
    """Return the message of an error on servers before 1.11."""
    match error_type:
        case "literal_error" | "enum" if profile.error_style is ErrorStyle.PARAMS:
            return f"{value} is not a valid choice"
        case "literal_error" | "enum":
            return f"The value '{value}' is not a valid choice for '{'.'.join(path)}'."
        case "int_parsing":
            return f"invalid literal for int() with base 10: {value!r}"
        case _:
            return text


@frozen(kw_only=True)
class LegacyField:
    """Deviations of servers before 1.11 for a field."""

    help: str = ""
    """Prefix of the error message; on 1.4 the whole message."""

    check: Validator | None = None
    required: bool | None = None
    nullable: bool | None = None

    pydantic_model: str | None = None
    """Model name in the message, if these servers check the field with pydantic, too."""

    in_form_or_query: bool = False
    """Whether the field may also be sent in a form or the query."""


@frozen
class BodyField:
    """A field of a body. A null counts as absent if `nullable`, by default if not `required`."""

    check: Validator
    required: bool = False
    nullable: bool = field(
        default=Factory(lambda body_field: not body_field.required, takes_self=True), kw_only=True
    )
    legacy: LegacyField = field(default=LegacyField(), kw_only=True)


@frozen
class BodySchema:
    """The fields of a body, and its model name in messages."""

    title: str
    fields: Mapping[str, BodyField]

    def validate(self, value: object, profile: ServerProfile) -> dict[str, object]:
        """Validate a body and return its known fields.

        Raises:
            EmulatedError: 400 with all errors, or with the first one on servers before 1.11.
        """
        if profile.error_style is ErrorStyle.PYDANTIC:
            return self.validate_with_pydantic(value, profile)
        body_fields = value if isinstance(value, dict) else {}
        read = {
            name: _read_legacy_field(name, body_field, body_fields, profile)
            for name, body_field in self.fields.items()
            if name in body_fields
            or _legacy_or_current(body_field.legacy.required, body_field.required)
        }
        return {name: item for name, item in read.items() if item is not None}

    def validate_with_pydantic(self, value: object, profile: ServerProfile) -> dict[str, object]:
        """Validate a body that all versions check with pydantic, and return its known fields.

        Raises:
            EmulatedError: 400 with all errors.
        """
        problems = ValidationErrors(profile)
        # A falsy body counts as {} (recording 023: an empty list lacks the required fields).
        body = value or {}
        if not isinstance(body, dict):
            text = f"Input should be a valid dictionary or instance of {self.title}"
            problems.add((), text, "model_type", body)
            raise problems.to_error(self.title)
        fields = object_validator(self.fields)(body, (), problems)
        if problems.messages:
            raise problems.to_error(self.title)
        return cast("dict[str, object]", fields)


def _read_legacy_field(
    name: str, body_field: BodyField, body_fields: Mapping[str, object], profile: ServerProfile
) -> object:
    """Validate one field as servers before 1.11 do."""
    legacy_field = body_field.legacy
    if name not in body_fields:
        missing = _MISSING_ANYWHERE if legacy_field.in_form_or_query else _MISSING
        raise _legacy_error(profile, name, legacy_field.help, missing)
    if body_fields[name] is None:
        if not _legacy_or_current(legacy_field.nullable, body_field.nullable):
            raise _legacy_error(profile, name, legacy_field.help, "Must not be null!")
        return None
    problems = ValidationErrors(profile)
    value = (legacy_field.check or body_field.check)(
        body_fields[name], () if legacy_field.pydantic_model else (name,), problems
    )
    if problems.messages and legacy_field.pydantic_model:
        raise problems.to_error(legacy_field.pydantic_model)
    if problems.messages:
        raise _legacy_error(profile, name, legacy_field.help, problems.legacy_messages[0])
    return value


def _legacy_or_current(legacy_value: bool | None, current_value: bool) -> bool:  # noqa: FBT001 -- a value
    return current_value if legacy_value is None else legacy_value


def _legacy_error(profile: ServerProfile, name: str, help_text: str, text: str) -> EmulatedError:
    """Return the 400 of servers before 1.11 for the first invalid field (measured)."""
    body: dict[str, object]
    if profile.error_style is ErrorStyle.PARAMS:
        message = help_text or text
        body = {"code": "invalid_param", "message": message, "params": name}
    else:
        message = "Input payload validation failed"
        body = {"errors": {name: f"{help_text} {text}".strip()}, "message": message}
    return EmulatedError(400, "invalid_param", message, body)


def object_validator(fields: Mapping[str, BodyField]) -> Validator:
    """Return a validator of objects, which drops unknown fields."""

    def check(value: object, path: FieldPath, problems: ValidationErrors) -> object:
        if not isinstance(value, dict):
            text = "Input should be a valid dictionary"
            problems.add(path, text, "model_type", value)
            return {}
        read: dict[str, object] = {}
        for name, body_field in fields.items():
            field_path = (*path, name)
            if name not in value:
                if body_field.required:
                    problems.add(field_path, "Field required", "missing", value)
            elif value[name] is not None or not body_field.nullable:
                read[name] = body_field.check(value[name], field_path, problems)
        return read

    return check


def list_validator(
    check_item: Validator, *, min_length: int = 0, max_length: int | None = None
) -> Validator:
    """Return a validator of lists of `min_length` to `max_length` items."""

    def check(value: object, path: FieldPath, problems: ValidationErrors) -> object:
        if not isinstance(value, list):
            problems.add(path, "Input should be a valid list", "list_type", value)
            return []
        length = len(value)
        if length < min_length:
            text = f"List should have at least {_format_count(min_length, 'item')}"
            problems.add(path, f"{text} after validation, not {length}", "too_short", value)
        if max_length is not None and length > max_length:
            text = f"List should have at most {_format_count(max_length, 'item')}"
            problems.add(path, f"{text} after validation, not {length}", "too_long", value)
        return [
            check_item(item, (*path, str(number)), problems) for number, item in enumerate(value)
        ]

    return check


def string_validator(*, min_length: int = 0, max_length: int | None = None) -> Validator:
    """Return a validator of strings of `min_length` to `max_length` characters."""

    def check(value: object, path: FieldPath, problems: ValidationErrors) -> object:
        if not isinstance(value, str):
            problems.add(path, "Input should be a valid string", "string_type", value)
        elif len(value) < min_length:
            text = f"String should have at least {_format_count(min_length, 'character')}"
            problems.add(path, text, "string_too_short", value)
        elif max_length is not None and len(value) > max_length:
            text = f"String should have at most {_format_count(max_length, 'character')}"
            problems.add(path, text, "string_too_long", value)
        return value

    return check


def _format_count(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def choice_validator(options: Sequence[str], error_type: str = "literal_error") -> Validator:
    """Return a validator of strings that must be one of `options`."""
    *first_options, last = [repr(str(option)) for option in options]
    text = f"Input should be {', '.join(first_options)} or {last}"

    def check(value: object, path: FieldPath, problems: ValidationErrors) -> object:
        if value not in options:
            problems.add(path, text, error_type, value)
        return value

    return check


def validate_integer(value: object, path: FieldPath, problems: ValidationErrors) -> object:
    """Validate an integer; a string of digits is accepted."""
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            text = "Input should be a valid integer, unable to parse string as an integer"
            problems.add(path, text, "int_parsing", value)
            return 0
    if isinstance(value, float):
        if value.is_integer():
            return int(value)
        text = "Input should be a valid integer, got a number with a fractional part"
        problems.add(path, text, "int_from_float", value)
    elif isinstance(value, bool) or not isinstance(value, int):
        problems.add(path, "Input should be a valid integer", "int_type", value)
    return value


def validate_number(value: object, path: FieldPath, problems: ValidationErrors) -> object:
    """Validate a number; a string of digits is accepted."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            text = "Input should be a valid number, unable to parse string as a number"
            problems.add(path, text, "float_parsing", value)
            return 0.0
    if isinstance(value, bool) or not isinstance(value, int | float):
        problems.add(path, "Input should be a valid number", "float_type", value)
    return value


_BOOLEAN_WORDS = {"true": True, "1": True, "yes": True, "on": True, "t": True, "y": True} | {
    "false": False, "0": False, "no": False, "off": False, "f": False, "n": False,
}  # fmt: skip


def validate_boolean(value: object, path: FieldPath, problems: ValidationErrors) -> object:
    """Validate a boolean; strings such as `yes` and `off` are accepted."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str | int) and str(value).lower() in _BOOLEAN_WORDS:
        return _BOOLEAN_WORDS[str(value).lower()]
    text = "Input should be a valid boolean, unable to interpret input"
    problems.add(path, text, "bool_parsing", value)
    return False


def accept_any(value: object, _where: FieldPath, _problems: ValidationErrors) -> object:
    """Accept any value unchanged."""
    return value
