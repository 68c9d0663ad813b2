"""Plans of faults: for the next calls of an endpoint, runs of the indexer, calls of models."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict, deque
from typing import TYPE_CHECKING, Final

from dify_kb.emulator.stub_models import ModelError
from dify_kb.errors import ConfigError
from dify_kb.wire.catalog import ENDPOINTS

from .dataset_locks import DatasetLocks
from .parse import PlanStep, parse_plans
from .rules import FaultRule, RandomFaults, build_random_faults
from .spec import (
    Fault,
    FaultKind,
    ModelFault,
    RunFault,
    RunOutcome,
    parse_faults,
    parse_model_faults,
    parse_run_faults,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

_ENDPOINT_NAMES: Final = frozenset(endpoint.name for endpoint in ENDPOINTS)

INDEXING: Final = "indexing"
"""The key of the plans for runs of the indexer, beside the names of endpoints."""


DATASET_LOCK: Final = "dataset-lock"
"""The word under which `counts` has the creates which a lock blocked."""

_LIST_ENDPOINT: Final = "documents.list"

MODELS: Final = "models"
"""The key of the plans for calls of models."""


class Faults:
    """Plans of faults. Any thread may call the methods.

    Words that answer instead of Dify, and leave the call undone: `503`, `503-html` (a proxy's
    page), `429 retry-after=1`, `rate-limit`, `document-limit` and `vector-limit` (403s of a
    subscription), `provider-not-initialize` (a 400: the model's provider has no credentials),
    `plugin-daemon` (a 400: the server cannot ask its models; it passes), `being-indexed` (a 400
    of a status change: the document is locked, for up to 600 s), `413-early` (nginx, before the
    body is read), `empty` (a 200 without content), `login-page` (a 200 with a page), `redirect` (a
    302 to a gateway's `/signin`), `close` (the connection ends in order), `reset` (it is
    aborted), `reset-after 50%` (so, once that much of the body was read; or a number of bytes).
    A word of a status takes `-html` behind it (`403-html`): then a proxy refuses, in HTML and
    without `X-Version`. With `commit-then-` before them, those follow after the call was carried
    out of which a proxy may be the cause, and the 403s.

    Words that let the call go on: `ok`, `stall 0.2` (seconds of real time), `slow-read 1000`
    (the body, in bytes a second), `trickle 2` (the answer takes 2 s), `truncate` (the answer's
    JSON is cut), `late 2` (the body is read, the connection reset, and the call carried out 2 s
    later) and `late 2 silent` (so, but the connection stays open without an answer). For
    `documents.list`: `stale-list 5` (a cache in front shows the list as it was 5 s ago by the
    server's clock, unless the request has `Cache-Control: no-cache`) and `stale-list 5 always`
    (whatever the request says).

    A word with ` x20` behind it is for 20 calls.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._plans: dict[str, deque[Fault]] = {}
        self._random_faults: Mapping[str, RandomFaults] = {}
        self._run_rules: list[FaultRule[RunFault]] = []
        self._model_rules: list[FaultRule[ModelFault]] = []
        self._counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._workers_dead = False
        self._body_rules: list[tuple[bytes, Fault]] = []
        self._locks = DatasetLocks()
        self.needs_versions = False
        """Whether a stale list was ever planned."""

        self.on_restart: Callable[[], None] = lambda: None
        """Called when dead workers go on again; of the server's."""

        self.on_kill: Callable[[int], None] = lambda _: None
        """Called with the tasks to lose when workers are killed; of the server's."""

        self.on_stale_list: Callable[[], None] = lambda: None
        """Called when former versions of documents have to be kept; of the server's."""

    def plan(self, endpoint: str, words: Sequence[str]) -> None:
        """Plan faults for the next calls of an endpoint; adds to what is planned already.

        Raises:
            ConfigError: an unknown endpoint or fault.
        """
        _require_endpoint(endpoint)
        planned = parse_faults(words)
        self._prepare_stale_lists(endpoint, planned)
        with self._lock:
            self._plans.setdefault(endpoint, deque()).extend(planned)

    def random(self, seed: int, rates: Mapping[str, Mapping[str, float]]) -> None:
        """Let calls fail by chance, from 0 to 1 for each word; replaces the rule before.

        The n-th call of an endpoint meets the same for the same seed, whatever other endpoints
        do. Calls with a plan follow the plan, and are not counted.

        Raises:
            ConfigError: an unknown endpoint or fault, or chances of more than 1.
        """
        for endpoint in rates:
            _require_endpoint(endpoint)
        random_faults = build_random_faults(seed, rates)
        for endpoint, rate in rates.items():
            self._prepare_stale_lists(endpoint, parse_faults([*rate]))
        with self._lock:
            self._random_faults = random_faults

    def stop_random(self) -> None:
        """Stop the failures by chance."""
        with self._lock:
            self._random_faults = {}

    def indexing(
        self,
        words: Sequence[str],
        *,
        names: str = "*",
        every: int = 1,
        always: bool = False,
    ) -> None:
        """Plan faults for runs of the indexer; one word for each run, in order.

        Words: `ok`, `error TEXT` (the document ends in `error`), `hang` (it stays `indexing` for
        ever, as when its worker is killed; the worker goes on with others), `block` (so, and the
        worker with it), `lose` (it stays `waiting`, as when its task got lost), `die` (all
        workers stop before this run, until `restart`), `kill` or `kill 3` (all workers are killed
        when this run has inserted its chunks, see `kill_workers`; 3 tasks are lost besides).

        Args:
            names: a glob that the document's name matches.
            every: take only each n-th of the runs that match.
            always: start over with the words when they are used up.

        Raises:
            ConfigError: an unknown word, or `every` below 1.
        """
        rule = FaultRule(parse_run_faults(words), names=names, every=every, always=always)
        with self._lock:
            self._run_rules.append(rule)

    def models(
        self,
        words: Sequence[str],
        *,
        names: str = "*",
        every: int = 1,
        always: bool = False,
    ) -> None:
        """Plan faults for calls of the stand-in models; one word for each call, in order.

        Words: `ok`, `error TEXT` with the provider's text. It becomes the error of the document
        that is being indexed, or of the chunk that is added or changed (recordings 951 to 954);
        a search is refused with it, by a 400 whatever the cause (945 to 949).

        Args:
            names: a glob that the model's name matches, `hashed-n-grams` or `word-overlap`.
            every: take only each n-th of the calls that match.
            always: start over with the words when they are used up.

        Raises:
            ConfigError: an unknown word, or `every` below 1.
        """
        rule = FaultRule(parse_model_faults(words), names=names, every=every, always=always)
        with self._lock:
            self._model_rules.append(rule)

    def kill_workers(self, *, lose: int = 0, restart: bool = True) -> None:
        """Kill the workers of the indexer, as `kill -9` does.

        The runs that are going stop where they are: their documents stay `parsing`, `splitting` or
        `indexing` for ever. Others start in their place (measured on 1.4.3 and 1.14.2). The
        indexing word `kill` does the same when a run has inserted its chunks.

        Args:
            lose: tasks that the workers had taken besides: as many of those that wait in the
                queue now are lost, and their documents stay `waiting`.
            restart: False leaves no workers until `restart()`.

        Raises:
            ConfigError: `lose` is negative.
        """
        if lose < 0:
            raise ConfigError(f"Invalid value for lose: {lose}.", hint="It must be at least 0.")
        with self._lock:
            self._counts[INDEXING]["kill"] += 1
            self._workers_dead = self._workers_dead or not restart
        self.on_kill(lose)

    def lock_dataset(self, dataset_id: str, seconds: float) -> None:
        """Block the creates of a dataset for some time, as the lock of a killed API process does.

        A create is read and gets no answer until the lock ends; then all that were blocked land
        in their order, also those whose client has given up. Everything else answers at once. On
        real servers it lasts up to 600 s (measured).

        Args:
            seconds: of real time.

        Raises:
            ConfigError: `seconds` is negative.
        """
        if seconds < 0:
            raise ConfigError(f"Invalid value for seconds: {seconds}.", hint="0 ends a lock.")
        self._locks.lock(dataset_id.lower(), seconds)

    def refuse_bodies(self, *, containing: bytes, word: str) -> None:
        """Let each call whose body contains these bytes meet a fault, as with a firewall's rule.

        The body is read as a whole first. The rule holds until `clear`, and goes before plans.

        Raises:
            ConfigError: nothing to look for, or an unknown fault.
        """
        if not containing:
            raise ConfigError("containing is empty.", hint="Give the bytes to look for.")
        (fault,) = parse_faults([word])[:1]
        self._prepare_stale_lists("refuse_bodies", [fault])
        with self._lock:
            self._body_rules.append((containing, fault))

    def restart(self) -> None:
        """Restart dead workers; they go on where they stopped."""
        with self._lock:
            self._workers_dead = False
        self.on_restart()

    def load(self, plans: Mapping[str, object]) -> None:
        """Add the plans of a JSON object; all of them, or none if one is wrong.

        `{"documents.create_by_file": ["503 x3"], "random": {"seed": 1, "rates": {…}},
        "indexing": ["hang", {"words": ["error no"], "names": "*.pdf", "always": true}, "restart"],
        "models": ["error too busy x3"], "kill_workers": {"lose": 2},
        "lock_dataset": [{"dataset_id": "…", "seconds": 5}],
        "refuse_bodies": [{"containing": "<script", "word": "403-html"}]}`

        Raises:
            ConfigError: an invalid plan; nothing was changed.
        """
        steps = parse_plans(plans)
        for target in (Faults(), self):
            for step in steps:
                _run_step(target, step)

    def clear(self) -> None:
        """Remove all plans and rules, and restart dead workers; `counts` stays as it is."""
        with self._lock:
            self._plans, self._random_faults = {}, {}
            self._run_rules, self._model_rules, self._body_rules = [], [], []
        self._locks.release_all()
        self.restart()

    def left(self) -> Mapping[str, Sequence[str]]:
        """Return what was planned and did not happen yet, without rules that have no end."""
        with self._lock:
            remaining = {
                endpoint: [fault.word for fault in planned]
                for endpoint, planned in self._plans.items()
                if planned
            }
            runs = [word for rule in self._run_rules for word in rule.list_remaining_words()]
            models = [word for rule in self._model_rules for word in rule.list_remaining_words()]
        remaining |= {INDEXING: runs} if runs else {}
        return remaining | ({MODELS: models} if models else {})

    def met(self) -> Mapping[str, Mapping[str, int]]:
        """Count what happened, by endpoint (or `indexing`, `models`) and word."""
        with self._lock:
            return {endpoint: dict(counts) for endpoint, counts in self._counts.items()}

    @property
    def are_workers_dead(self) -> bool:
        """Whether the workers have died."""
        return self._workers_dead

    @property
    def has_body_rules(self) -> bool:
        """Whether a rule looks at the bodies of calls."""
        return bool(self._body_rules)

    async def wait_for_lock(self, endpoint: str, dataset_id: str) -> None:
        """Wait until creates of this dataset are not blocked."""
        key = dataset_id.lower()
        if self._locks.is_locked(key):
            with self._lock:
                self._counts[endpoint][DATASET_LOCK] += 1
            await self._locks.wait(key)

    def take_fault(self, endpoint: str, body: bytes | None = None) -> Fault | None:
        """Return the fault of this call, and remove it from the plan."""
        if (
            not self._body_rules
            and endpoint not in self._plans
            and endpoint not in self._random_faults
        ):
            return None
        with self._lock:
            refused = (fault for part, fault in self._body_rules if body and part in body)
            fault = next(refused, None) or self._take_planned_fault(endpoint)
            if fault is not None:
                self._counts[endpoint][fault.word] += 1
            return fault

    def take_run_fault(self, document: str) -> RunFault | None:
        """Return the fault of this run, and remove it from the plan."""
        if not self._run_rules:
            return None
        with self._lock:
            faults = (rule.take_fault(document) for rule in self._run_rules)
            fault = next((fault for fault in faults if fault is not None), None)
            if fault is not None:
                self._counts[INDEXING][fault.word] += 1
                self._workers_dead = self._workers_dead or fault.outcome is RunOutcome.DIE
            return fault

    def call_model(self, model: str) -> None:
        """Call a model, which removes its fault from the plan.

        Raises:
            ModelError: it fails, with the provider's text.
        """
        if not self._model_rules:
            return
        with self._lock:
            faults = (rule.take_fault(model) for rule in self._model_rules)
            fault = next((fault for fault in faults if fault is not None), None)
            if fault is None:
                return
            self._counts[MODELS][fault.word] += 1
        if fault.text is not None:
            raise ModelError(fault.text)

    def _prepare_stale_lists(self, endpoint: str, planned: Iterable[Fault]) -> None:
        if not any(fault.kind is FaultKind.STALE_LIST for fault in planned):
            return
        if endpoint != _LIST_ENDPOINT:
            raise ConfigError(
                f"stale-list is planned for {endpoint}.",
                hint=f"Only {_LIST_ENDPOINT} can be stale.",
            )
        self.needs_versions = True
        self.on_stale_list()

    def _take_planned_fault(self, endpoint: str) -> Fault | None:
        if planned := self._plans.get(endpoint):
            return planned.popleft()
        chance = self._random_faults.get(endpoint)
        return chance.draw() if chance else None


def _run_step(faults: Faults, step: PlanStep) -> None:
    methods: Mapping[str, Callable[..., None]] = {
        "plan": faults.plan,
        "random": faults.random,
        "indexing": faults.indexing,
        "models": faults.models,
        "restart": faults.restart,
        "kill_workers": faults.kill_workers,
        "lock_dataset": faults.lock_dataset,
        "refuse_bodies": faults.refuse_bodies,
    }
    methods[step.method](**step.arguments)


def _require_endpoint(endpoint: str) -> None:
    if endpoint not in _ENDPOINT_NAMES:
        raise ConfigError(
            f"Unknown endpoint {endpoint!r}.", hint=f"Known: {', '.join(sorted(_ENDPOINT_NAMES))}."
        )
