"""Parse fault plans from JSON into calls of `Faults` methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, Final

from attrs import frozen

from dify_kb.errors import ConfigError

_FORMAT_HINT: Final = (
    'Write {"documents.create_by_file": ["503"], "indexing": [{"words": ["hang"], "names": "*"}],'
    ' "models": ["error too busy"],'
    ' "random": {"seed": 1, "rates": {"documents.create_by_file": {"503": 0.1}}},'
    ' "refuse_bodies": [{"containing": "<script", "word": "403-html"}],'
    ' "lock_dataset": [{"dataset_id": "…", "seconds": 5}], "kill_workers": {"lose": 2}}.'
)
_Types = Mapping[str, tuple[type, ...]]

_RULE_TYPES: Final[_Types] = {"words": (list,), "names": (str,), "every": (int,), "always": (bool,)}
_KILL_TYPES: Final[_Types] = {"lose": (int,), "restart": (bool,)}
_LOCK_TYPES: Final[_Types] = {"dataset_id": (str,), "seconds": (int, float)}
_REFUSAL_TYPES: Final[_Types] = {"containing": (str,), "word": (str,)}


@frozen
class PlanStep:
    """A call of a `Faults` method, by name and keyword arguments."""

    method: str
    arguments: Mapping[str, Any]


def parse_plans(plans: object) -> list[PlanStep]:
    """Parse all plans of a JSON object into steps, in order.

    Raises:
        ConfigError: a plan is invalid.
    """
    if not isinstance(plans, Mapping):
        raise ConfigError(f"Invalid fault plan: {plans!r}.", hint=_FORMAT_HINT)
    return [step for key, value in plans.items() for step in _parse_plan(key, value)]


def _parse_plan(key: str, value: object) -> list[PlanStep]:
    if key == "random":
        return [_parse_random(value)]
    if key == "kill_workers":
        return [PlanStep(key, _check_arguments(value, _KILL_TYPES, frozenset(), key))]
    if not isinstance(value, list):
        raise ConfigError(f"Invalid plan for {key!r}: expected a list.", hint=_FORMAT_HINT)
    parse = _ENTRY_PARSERS.get(key)
    if parse is not None:
        return [parse(entry) for entry in value]
    return [PlanStep("plan", {"endpoint": key, "words": value})]


def _parse_random(value: object) -> PlanStep:
    match value:
        case {"seed": int(seed), "rates": dict(rates), **rest} if not rest:
            if all(isinstance(rate, dict) for rate in rates.values()):
                return PlanStep("random", {"seed": seed, "rates": rates})
    raise ConfigError(f"Invalid plan for 'random': {value!r}.", hint=_FORMAT_HINT)


def _parse_indexing(entry: object) -> PlanStep:
    if entry == "restart":
        return PlanStep("restart", {})
    return PlanStep("indexing", _parse_rule(entry, "indexing"))


def _parse_rule(entry: object, key: str) -> Mapping[str, Any]:
    """Parse a rule: a single word, or a mapping of `words`, `names`, `every` and `always`."""
    if isinstance(entry, str):
        return {"words": [entry]}
    return _check_arguments(entry, _RULE_TYPES, {"words"}, key)


def _parse_model(entry: object) -> PlanStep:
    return PlanStep("models", _parse_rule(entry, "models"))


def _parse_lock(entry: object) -> PlanStep:
    return PlanStep(
        "lock_dataset",
        _check_arguments(entry, _LOCK_TYPES, _LOCK_TYPES.keys(), "lock_dataset"),
    )


def _parse_refusal(entry: object) -> PlanStep:
    refusal = _check_arguments(entry, _REFUSAL_TYPES, _REFUSAL_TYPES.keys(), "refuse_bodies")
    return PlanStep("refuse_bodies", {**refusal, "containing": refusal["containing"].encode()})


def _check_arguments(
    value: object, types: _Types, required: AbstractSet[str], key: str
) -> Mapping[str, Any]:
    if (
        not isinstance(value, dict)
        or not required <= value.keys()
        or not all(
            name in types and type(argument) in types[name] for name, argument in value.items()
        )
    ):
        raise ConfigError(f"Invalid plan for {key!r}: {value!r}.", hint=_FORMAT_HINT)
    return value


_ENTRY_PARSERS: Final[Mapping[str, Callable[[object], PlanStep]]] = {
    "indexing": _parse_indexing,
    "models": _parse_model,
    "lock_dataset": _parse_lock,
    "refuse_bodies": _parse_refusal,
}
"""Parsers of plan entries, by key; any other key is the name of an endpoint."""
