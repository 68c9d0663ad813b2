"""Plans of failures as JSON has them, checked before any of them counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from dify_kb.errors import ConfigError

if TYPE_CHECKING:
    from .faults import Faults

Step = Callable[["Faults"], None]

_SHAPE: Final = (
    'Write {"documents.create_by_file": ["503"], "indexing": [{"words": ["hang"], "names": "*"}],'
    ' "models": ["error too busy"],'
    ' "random": {"seed": 1, "rates": {"documents.create_by_file": {"503": 0.1}}}}.'
)
_RULE: Final[Mapping[str, type]] = {"words": list, "names": str, "every": int, "always": bool}


def steps(plans: object, trial: Faults) -> list[Step]:
    """Make the steps that put plans into force, after trying each on `trial`.

    Raises:
        ConfigError: the first that is wrong.
    """
    if not isinstance(plans, Mapping):
        raise ConfigError(f"{plans!r} is no plan of failures.", hint=_SHAPE)
    made = [step for key, value in plans.items() for step in _steps(key, value)]
    for step in made:
        step(trial)
    return made


def _steps(key: str, value: object) -> list[Step]:
    if key == "random":
        return [_random(value)]
    if not isinstance(value, list):
        raise ConfigError(f"The plan of {key!r} is no list.", hint=_SHAPE)
    if key == "indexing":
        return [_indexing(entry) for entry in value]
    if key == "models":
        return [_models(entry) for entry in value]
    return [lambda faults: faults.plan(key, value)]


def _random(value: object) -> Step:
    match value:
        case {"seed": int(seed), "rates": dict(rates), **rest} if not rest:
            if all(isinstance(rate, dict) for rate in rates.values()):
                return lambda faults: faults.random(seed, rates)
    raise ConfigError(f"{value!r} is no rule of chances.", hint=_SHAPE)


def _indexing(entry: object) -> Step:
    if entry == "restart":
        return lambda faults: faults.restart()
    rule = _rule(entry, "runs of the indexer")
    return lambda faults: faults.indexing(**rule)


def _models(entry: object) -> Step:
    rule = _rule(entry, "calls of models")
    return lambda faults: faults.models(**rule)


def _rule(entry: object, what: str) -> Mapping[str, Any]:
    """Read a rule: a word, or words and what they are for."""
    if isinstance(entry, str):
        return {"words": [entry]}
    rule: Mapping[str, Any] = entry if isinstance(entry, dict) else {}
    if "words" not in rule or not all(
        name in _RULE and type(value) is _RULE[name] for name, value in rule.items()
    ):
        raise ConfigError(f"{entry!r} is no plan for {what}.", hint=_SHAPE)
    return rule
