"""Describe wrong command lines as errors with a hint, instead of the parser's own messages."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import typer

from dify_kb.errors import ConfigError

from .command_line import PROGRAM_OPTIONS, split_program_options

ParserError: type[Exception] = typer.BadParameter.__mro__[1]
"""The errors of command lines; its module depends on the version of typer."""

_SYNONYMS = {
    **dict.fromkeys(("--workers", "--jobs", "--threads", "--parallel", "-j"), "--concurrency"),
    **dict.fromkeys(("--force", "--no-confirm", "--assume-yes"), "--yes"),
    **dict.fromkeys(("--output", "--format", "-o"), "--json"),
    **dict.fromkeys(("--timeout", "--max-time"), "--deadline"),
    **dict.fromkeys(("--k", "-k"), "--top-k"),
    **dict.fromkeys(("--token", "--key"), "--api-key"),
    **dict.fromkeys(("--host", "--server", "--base-url"), "--url"),
    **dict.fromkeys(("--noop", "--check", "-n"), "--dry-run"),
    "--resume": "--retry-failed",
}
"""Options of other programs, and those that users of them look for."""

_SUGGESTION = re.compile(r"\. Did you mean (.*)\?$")
_EXTRA_ARGUMENTS = re.compile(r"Got unexpected extra argument\S* \((.*)\)")
_CHOICES = re.compile(r"is not one of (.*?)\.?$")


def is_help(error: Any) -> bool:
    """Return whether the error is the help of a group of commands without arguments."""
    return type(error).__name__ == "NoArgsIsHelpError"


def describe_usage_error(error: Any, words: Sequence[str]) -> ConfigError:
    """Return an error with a hint for a wrong command line."""
    message: str = error.message.strip()
    _, words = split_program_options(words)
    command: str = error.ctx.command_path if error.ctx else " ".join(["dify-kb", *words[:1]])
    help_hint = f"`{command} --help` lists the"
    if hasattr(error, "possibilities"):
        suggested = " or ".join(_find_options(error))
        start = f"Use {suggested}; " if suggested else ""
        return ConfigError(
            f"Unknown option: {error.option_name}.", hint=f"{start}{help_hint} options."
        )
    if message.startswith("No such command"):
        suggestion = _SUGGESTION.search(message)
        start = f"Use {suggestion[1].replace(chr(39), '')}; " if suggestion else ""
        name = message.split("'")[1]
        return ConfigError(f"Unknown command: {name!r}.", hint=f"{start}{help_hint} commands.")
    if type(error).__name__ == "MissingParameter":
        name = _parameter_name(error)
        kind = "option" if name.startswith("-") else "argument"
        return ConfigError(
            f"Missing {kind} {name}.", hint=f"Pass {name}; `{command} --help` describes it."
        )
    if isinstance(error, typer.BadParameter):
        return _describe_value(error, message, command)
    if extra := _EXTRA_ARGUMENTS.match(message):
        message = f"Unexpected argument: {extra[1]}"
    message = message.replace("requires an argument", "requires a value").replace("'", "")
    return ConfigError(f"{message.rstrip('.')}.", hint=f"Run `{command} --help`.")


def _find_options(error: Any) -> list[str]:
    """Return the options of the command that an unknown one may stand for."""
    parameters = error.ctx.command.params if error.ctx else ()
    known = {option for parameter in parameters for option in parameter.opts} | {*PROGRAM_OPTIONS}
    if (synonym := _SYNONYMS.get(error.option_name)) in known:
        return [str(synonym)]
    if error.option_name.replace("_", "-") in known:
        return [error.option_name.replace("_", "-")]
    return get_close_matches(error.option_name, sorted(known), n=2, cutoff=0.7)


def _describe_value(error: Any, message: str, command: str) -> ConfigError:
    name = _parameter_name(error)
    summary, hint = f"Invalid value{f' for {name}' if name else ''}", f"Run `{command} --help`."
    find_causes = getattr(error.__cause__, "errors", None)  # of pydantic, which typer 0.25 uses
    if find_causes is not None:
        cause = find_causes()[0]
        limits = cause.get("ctx", {})
        summary = f"Invalid value {cause['input']!r} for {name}"
        message = cause["msg"].removeprefix("Value error, ")
        match cause["type"]:
            case "int_parsing" | "int_from_float" | "int_parsing_size":
                return ConfigError(f"{summary}.", hint="Pass a whole number.")
            case "float_parsing":
                return ConfigError(f"{summary}.", hint="Pass a number.")
            case "greater_than_equal":
                return ConfigError(f"{summary}.", hint=f"Pass {limits['ge']} or more.")
            case "less_than_equal":
                return ConfigError(f"{summary}.", hint=f"Pass {limits['le']} or less.")
            case _:
                pass
    if choices := _CHOICES.search(message):
        *others, last = choices[1].replace("'", "").split(", ")
        return ConfigError(
            f"{summary}.",
            hint=f"Pass {', '.join(others)} or {last}." if others else f"Pass {last}.",
        )
    what, _, remedy = message.partition(". ")
    return ConfigError(f"{summary}: {what.rstrip('.')}.", hint=remedy or hint)


def _parameter_name(error: Any) -> str:
    """Return the long name of an option, or the placeholder of an argument."""
    parameter = error.param
    if parameter is None:
        return str(error.param_hint or "").strip("'")
    if parameter.param_type_name == "option":
        return str(max(parameter.opts, key=len))
    return str(parameter.metavar or parameter.name.upper()).strip("{}[].")
