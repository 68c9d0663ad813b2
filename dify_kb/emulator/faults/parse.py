"""Parse plans of failures from JSON, completely before any of them takes effect."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, Final

from attrs import frozen

from dify_kb.errors import ConfigError

_SHAPE: Final = (
    'Write {"documents.create_by_file": ["503"], "indexing": [{"words": ["hang"], "names": "*"}],'
    ' "models": ["error too busy"],'
    ' "random": {"seed": 1, "rates": {"documents.create_by_file": {"503": 0.1}}},'
    ' "refuse_bodies": [{"containing": "<script", "word": "403-html"}],'
    ' "lock_dataset": [{"dataset_id": "…", "seconds": 5}], "kill_workers": {"lose": 2}}.'
)
_Types = Mapping[str, tuple[type, ...]]

_RULE: Final[_Types] = {"words": (list,), "names": (str,), "every": (int,), "always": (bool,)}
_KILL: Final[_Types] = {"lose": (int,), "restart": (bool,)}
_LOCK: Final[_Types] = {"dataset_id": (str,), "seconds": (int, float)}
_BODIES: Final[_Types] = {"containing": (str,), "word": (str,)}


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
    if key == "kill_workers":
        return [Step(key, _arguments(value, _KILL, frozenset(), "a kill of the workers"))]
    if not isinstance(value, list):
        raise ConfigError(f"The plan of {key!r} is not a list.", hint=_SHAPE)
    parse = _ENTRIES.get(key)
    if parse is not None:
        return [parse(entry) for entry in value]
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
    return _arguments(entry, _RULE, {"words"}, what)


def _model(entry: object) -> Step:
    return Step("models", _rule(entry, "calls of models"))


def _lock(entry: object) -> Step:
    return Step("lock_dataset", _arguments(entry, _LOCK, _LOCK.keys(), "a lock of a dataset"))


def _refusal(entry: object) -> Step:
    given = _arguments(entry, _BODIES, _BODIES.keys(), "bodies")
    return Step("refuse_bodies", {**given, "containing": given["containing"].encode()})


def _arguments(
    value: object, types: _Types, required: AbstractSet[str], what: str
) -> Mapping[str, Any]:
    if (
        not isinstance(value, dict)
        or not required <= value.keys()
        or not all(name in types and type(one) in types[name] for name, one in value.items())
    ):
        raise ConfigError(f"Invalid plan for {what}: {value!r}.", hint=_SHAPE)
    return value


_ENTRIES: Final[Mapping[str, Callable[[object], Step]]] = {
    "indexing": _indexing,
    "models": _model,
    "lock_dataset": _lock,
    "refuse_bodies": _refusal,
}
"""Parsers of the entries of plans that are not of an endpoint."""
