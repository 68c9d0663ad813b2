"""Fault plans for API calls, indexing runs, model calls, workers and dataset locks."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict, deque
from typing import TYPE_CHECKING, Final

from dify_kb.emulator.stub_models import ModelError
from dify_kb.errors import ConfigError
from dify_kb.wire.catalog import ENDPOINTS

from .apply import DatasetLocks
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
"""The key of the plans for indexing runs, next to the names of endpoints."""

DATASET_LOCK: Final = "dataset-lock"
"""The word under which `met` counts the creates that a dataset lock blocked."""

_LIST_ENDPOINT: Final = "documents.list"

MODELS: Final = "models"
"""The key of the plans for model calls."""


class Faults:
    """Fault plans of a server. All methods are thread-safe.

    These words replace the server's response; the call is not processed: `503`, `503-html` (a
    proxy's error page), `429 retry-after=1`, `rate-limit`, `document-limit` and `vector-limit`
    (403s of a subscription), `provider-not-initialize` (400: the model provider has no
    credentials), `plugin-daemon` (400: the server cannot reach its models; temporary),
    `being-indexed` (400 for a status change: the document is locked, for up to 600 s),
    `413-early` (nginx, before the body is read), `empty` (200 without content), `login-page` (200
    with an HTML page), `redirect` (302 to a gateway's `/signin`), `close` (orderly close of the
    connection), `reset` (abort of the connection), `reset-after 50%` (abort after half of the
    body; `reset-after 1000` counts bytes). Any status accepts `-html` (`403-html`): the response
    of a proxy, in HTML and without `X-Version`. `commit-then-` before the 403s, or before a fault
    that a proxy can cause, processes the call first.

    These words let the call proceed: `ok`, `stall 0.2` (delay in real seconds), `slow-read 1000`
    (read the body at 1000 bytes per second), `trickle 2` (send the response over 2 s), `truncate`
    (cut the JSON of the response), `late 2` (read the body, reset the connection, process the
    call 2 s later) and `late 2 silent` (the same, but keep the connection open without a
    response). For `documents.list`: `stale-list 5` (return the list of 5 s ago by the server's
    clock, as a cache does, unless the request has `Cache-Control: no-cache`) and
    `stale-list 5 always` (ignore that header).

    Append ` x20` to a word to repeat it for 20 calls.
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
        """Whether a stale list was ever planned, which needs old versions of documents."""

        self.on_restart: Callable[[], None] = lambda: None
        """Called when dead workers are restarted; set by the server."""

        self.on_kill: Callable[[int], None] = lambda _: None
        """Called with the number of queued tasks to lose when workers are killed."""

        self.on_stale_list: Callable[[], None] = lambda: None
        """Called when old versions of documents must be kept from now on."""

    def plan(self, endpoint: str, words: Sequence[str]) -> None:
        """Plan faults for the next calls of an endpoint, after those already planned.

        Raises:
            ConfigError: an endpoint or fault is unknown.
        """
        _require_endpoint(endpoint)
        planned = parse_faults(words)
        self._prepare_stale_lists(endpoint, planned)
        with self._lock:
            self._plans.setdefault(endpoint, deque()).extend(planned)

    def random(self, seed: int, rates: Mapping[str, Mapping[str, float]]) -> None:
        """Inject random faults: `rates` maps endpoint and word to a probability from 0 to 1.

        Replaces earlier rates. With the same seed, the n-th call of an endpoint gets the same
        fault, whatever is called in between at other endpoints. Planned faults have priority, and
        their calls do not count.

        Raises:
            ConfigError: an endpoint or fault is unknown, or probabilities sum to more than 1.
        """
        for endpoint in rates:
            _require_endpoint(endpoint)
        random_faults = build_random_faults(seed, rates)
        for endpoint, rate in rates.items():
            self._prepare_stale_lists(endpoint, parse_faults([*rate]))
        with self._lock:
            self._random_faults = random_faults

    def stop_random(self) -> None:
        """Stop injecting random faults."""
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
        """Plan faults for indexing runs, one word per run, in order.

        Words: `ok`, `error TEXT` (the document ends in `error`), `vector-limit` (the same, with
        the `error_code` of Dify Cloud where the version has one), `hang` (the document stays
        `indexing` forever, as if its worker was killed; the worker continues with others), `block`
        (the same, but the worker hangs too), `lose` (the document stays `waiting`, as if its task
        was lost), `die` (all workers stop before this run, until `restart`), `kill` or `kill 3`
        (all workers are killed after this run has inserted its chunks, see `kill_workers`; 3
        queued tasks are lost too).

        Args:
            names: glob for the names of documents.
            every: use a word only for every n-th matching run.
            always: repeat the words forever.

        Raises:
            ConfigError: a word is unknown, or `every` is below 1.
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
        """Plan faults for calls of the stub models, one word per call, in order.

        Words: `ok`, `error TEXT` with the provider's message. The message becomes the error of the
        document that is being indexed, or of the chunk that is added or changed (recordings 951 to
        954); a search fails with it, with status 400 whatever the cause (945 to 949).

        Args:
            names: glob for the names of models, `hashed-n-grams` and `word-overlap`.
            every: use a word only for every n-th matching call.
            always: repeat the words forever.

        Raises:
            ConfigError: a word is unknown, or `every` is below 1.
        """
        rule = FaultRule(parse_model_faults(words), names=names, every=every, always=always)
        with self._lock:
            self._model_rules.append(rule)

    def kill_workers(self, *, lose: int = 0, restart: bool = True) -> None:
        """Kill the workers of the indexer, as `kill -9` does.

        Active runs stop where they are: their documents stay `parsing`, `splitting` or `indexing`
        forever. New workers start (measured on 1.4.3 and 1.14.2). The indexing word `kill` does
        the same after a run has inserted its chunks.

        Args:
            lose: number of queued tasks that the workers had prefetched: these are lost, and
                their documents stay `waiting`.
            restart: False starts no new workers until `restart()` is called.

        Raises:
            ConfigError: `lose` is negative.
        """
        if lose < 0:
            raise ConfigError(f"Invalid value for 'lose': {lose}.", hint="Use 0 or more.")
        with self._lock:
            self._counts[INDEXING]["kill"] += 1
            self._workers_dead = self._workers_dead or not restart
        self.on_kill(lose)

    def lock_dataset(self, dataset_id: str, seconds: float) -> None:
        """Block document creation in a dataset, as the lock of a killed API process does.

        The server reads each create and responds only after the lock ends; then the blocked creates
        are processed in order, even if their client has given up. Other calls are not blocked. On
        real servers the lock lasts up to 600 s (measured).

        Args:
            seconds: duration in real time; 0 ends a lock.

        Raises:
            ConfigError: `seconds` is negative.
        """
        if seconds < 0:
            raise ConfigError(
                f"Invalid value for 'seconds': {seconds}.", hint="Use 0 to end a lock."
            )
        self._locks.lock(dataset_id.lower(), seconds)

    def refuse_bodies(self, *, containing: bytes, word: str) -> None:
        """Apply a fault to every call whose body contains these bytes, like a firewall rule.

        The whole body is read first. The rule stays until `clear`, and has priority over plans.

        Raises:
            ConfigError: `containing` is empty, or the fault is unknown.
        """
        if not containing:
            raise ConfigError("'containing' is empty.", hint="Pass the bytes to search for.")
        (fault,) = parse_faults([word])[:1]
        self._prepare_stale_lists("refuse_bodies", [fault])
        with self._lock:
            self._body_rules.append((containing, fault))

    def restart(self) -> None:
        """Restart dead workers; they continue where they stopped."""
        with self._lock:
            self._workers_dead = False
        self.on_restart()

    def load(self, plans: Mapping[str, object]) -> None:
        """Add all plans of a JSON object, or none if one is invalid.

        `{"documents.create_by_file": ["503 x3"], "random": {"seed": 1, "rates": {…}},
        "indexing": ["hang", {"words": ["error no"], "names": "*.pdf", "always": true}, "restart"],
        "models": ["error too busy x3"], "kill_workers": {"lose": 2},
        "lock_dataset": [{"dataset_id": "…", "seconds": 5}],
        "refuse_bodies": [{"containing": "<script", "word": "403-html"}]}`

        Raises:
            ConfigError: a plan is invalid; nothing was changed.
        """
        steps = parse_plans(plans)
        for target in (Faults(), self):
            for step in steps:
                _run_step(target, step)

    def clear(self) -> None:
        """Remove all plans, rules and locks, and restart dead workers; keep the counts of `met`."""
        with self._lock:
            self._plans, self._random_faults = {}, {}
            self._run_rules, self._model_rules, self._body_rules = [], [], []
        self._locks.release_all()
        self.restart()

    def left(self) -> Mapping[str, Sequence[str]]:
        """Return the planned words that were not used yet; rules with `always` are left out."""
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
        """Return how often each fault occurred, by endpoint (or `indexing`, `models`) and word."""
        with self._lock:
            return {endpoint: dict(counts) for endpoint, counts in self._counts.items()}

    @property
    def are_workers_dead(self) -> bool:
        """Whether the workers are dead."""
        return self._workers_dead

    @property
    def has_body_rules(self) -> bool:
        """Whether a rule of `refuse_bodies` is active."""
        return bool(self._body_rules)

    async def wait_for_lock(self, endpoint: str, dataset_id: str) -> None:
        """Wait until no lock blocks creates in this dataset."""
        key = dataset_id.lower()
        if self._locks.is_locked(key):
            with self._lock:
                self._counts[endpoint][DATASET_LOCK] += 1
            await self._locks.wait(key)

    def take_fault(self, endpoint: str, body: bytes | None = None) -> Fault | None:
        """Remove and return the fault of a call; None without one."""
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
        """Remove and return the fault of an indexing run; None without one."""
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
        """Simulate a model call, using up its planned fault.

        Raises:
            ModelError: the call was planned to fail; the message is the provider's.
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
                f"'stale-list' does not apply to '{endpoint}'.",
                hint=f"Use it for {_LIST_ENDPOINT} only.",
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
            f"Unknown endpoint {endpoint!r}.", hint=f"Use {', '.join(sorted(_ENDPOINT_NAMES))}."
        )
