"""Parse plans of failures from JSON, completely before any of them takes effect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from attrs import frozen

from dify_kb.errors import ConfigError

_SHAPE: Final = (
    'Write {"documents.create_by_file": ["503"], "indexing": [{"words": ["hang"], "names": "*"}],'
    ' "models": ["error too busy"],'
    ' "random": {"seed": 1, "rates": {"documents.create_by_file": {"503": 0.1}}}}.'
)
_RULE: Final[Mapping[str, type]] = {"words": list, "names": str, "every": int, "always": bool}


@frozen
class Step:
    """One call of a method of `Faults`."""

    method: str
    arguments: Mapping[str, Any]


def parse_plans(plans: object) -> list[Step]:
    """Return the calls that put plans into force, in order.

    Raises:
        ConfigError: something that is not a plan.
    """
    if not isinstance(plans, Mapping):
        raise ConfigError(f"Invalid plan of failures: {plans!r}.", hint=_SHAPE)
    return [step for key, value in plans.items() for step in _steps(key, value)]


def _steps(key: str, value: object) -> list[Step]:
    if key == "random":
        return [_random(value)]
    if not isinstance(value, list):
        raise ConfigError(f"The plan of {key!r} is not a list.", hint=_SHAPE)
    if key == "indexing":
        return [_indexing(entry) for entry in value]
    if key == "models":
        return [Step("models", _rule(entry, "calls of models")) for entry in value]
    return [Step("plan", {"endpoint": key, "words": value})]


def _random(value: object) -> Step:
    match value:
        case {"seed": int(seed), "rates": dict(rates), **rest} if not rest:
            if all(isinstance(rate, dict) for rate in rates.values()):
                return Step("random", {"seed": seed, "rates": rates})
    raise ConfigError(f"Invalid random-fault rule: {value!r}.", hint=_SHAPE)


def _indexing(entry: object) -> Step:
    if entry == "restart":
        return Step("restart", {})
    return Step("indexing", _rule(entry, "runs of the indexer"))


def _rule(entry: object, what: str) -> Mapping[str, Any]:
    """Parse a rule: a word, or words and what they apply to."""
    if isinstance(entry, str):
        return {"words": [entry]}
    rule: Mapping[str, Any] = entry if isinstance(entry, dict) else {}
    if "words" not in rule or not all(
        name in _RULE and type(value) is _RULE[name] for name, value in rule.items()
    ):
        raise ConfigError(f"Invalid plan for {what}: {entry!r}.", hint=_SHAPE)
    return rule
