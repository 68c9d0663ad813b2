"""Random sequences of loads, lost responses, kills and changes, with an in-memory server."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import tempfile
from collections.abc import Coroutine, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar

import hypothesis.strategies as st
import pytest
from attrs import define, evolve, field, frozen
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from journal_examples import IDENTITY, intent
from load_examples import LONG

from dify_kb.ingest import ItemResult, Outcome
from dify_kb.ingest.engine.pending_uploads import PendingUpload
from dify_kb.ingest.engine.reconcile import ReconcileDecision, decide_next_step
from dify_kb.ingest.engine.tracked_file import TrackedFile
from dify_kb.ingest.journal import Journal, JournalRow, JournalState, open_journal
from dify_kb.ingest.planning.file_plan import (
    PlannedAction,
    PlannedFile,
    PlanOptions,
    is_journal_complete,
    plan_file,
)
from dify_kb.ingest.remote_document import RemoteDocument
from dify_kb.ingest.sources.found_file import FoundFile
from dify_kb.models import Document, IndexingStatus
from dify_kb.wire import codec

T = TypeVar("T")

"""Different and more examples in each run; `--hypothesis-seed` repeats those of a failure."""

KEYS = ("a.md", "b/c.md", "d__e.md")
CONTENTS = (b"aa", b"bb", b"ccc")
QUARANTINE = 10.0
ENDS = ("accepted", "lost", "landed unseen", "refused")


@frozen
class Stored:
    """A document of the server."""

    id: str
    name: str
    file: str
    content: bytes
    status: IndexingStatus = IndexingStatus.WAITING
    enabled: bool = True

    @property
    def remote(self) -> RemoteDocument:
        return RemoteDocument(
            document_id=self.id, enabled=self.enabled, status=self.status, upload_file_id=self.file
        )

    @property
    def document(self) -> Document:
        return codec.decode(
            Document,
            {
                "id": self.id,
                "name": self.name,
                "position": 1,
                "data_source_type": "upload_file",
                "data_source_info": None,
                "data_source_detail_dict": {
                    "upload_file": {"id": self.file, "size": len(self.content)}
                },
                "dataset_process_rule_id": None,
                "created_from": "api",
                "created_by": "somebody",
                "created_at": 1_795_000_000,
                "tokens": 0,
                "indexing_status": self.status.value,
                "error": None,
                "enabled": self.enabled,
                "disabled_at": None,
                "disabled_by": None,
                "archived": False,
                "display_status": "available",
                "word_count": 7,
                "hit_count": 0,
                "doc_form": "text_model",
                "doc_metadata": None,
            },
        )


@define
class Server:
    """The documents by name, and unanswered creates that may still arrive."""

    documents: dict[str, Stored] = field(factory=dict)
    flying: list[tuple[str, bytes, float]] = field(factory=list)
    _numbers: itertools.count[int] = field(factory=itertools.count)

    def create(self, name: str, content: bytes) -> Stored:
        """Create a document, replacing an enabled one with the same name."""
        before = self.documents.get(name)
        # Two simultaneous indexing runs would leave the chunks of both; a disabled document would
        # not be replaced, but duplicated.
        assert before is None or before.status.is_final, "sent while its document is indexed"
        assert before is None or before.enabled, "a duplicate of a disabled document"
        number = next(self._numbers)
        made = Stored(before.id if before else f"d{number}", name, f"f{number}", content)
        self.documents[name] = made
        return made


@define
class Load:
    """The state of a run: listed documents and files in progress."""

    snapshot: Mapping[str, RemoteDocument] | None
    """The listed documents; None if the journal is trusted."""

    left: list[str]
    held: dict[str, PendingUpload] = field(factory=dict)
    followed: dict[str, PlannedFile] = field(factory=dict)
    ended: dict[str, ItemResult | str] = field(factory=dict)


class Loads(RuleBasedStateMachine):
    """Checks the guarantees of a load after every step."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.stack = AsyncExitStack()
        self.server = Server()
        self.files: dict[str, tuple[bytes, int]] = {}
        self.clock = itertools.count(1)
        self.now = 0.0
        self.rows: dict[str, tuple[JournalState, str | None]] = {}
        self.load: Load | None = None
        self.wishes = PlanOptions()
        self.journal: Journal

    @initialize(
        contents=st.tuples(*[st.sampled_from(CONTENTS)] * len(KEYS)), retry_failed=st.booleans()
    )
    def begin(self, contents: tuple[bytes, ...], *, retry_failed: bool) -> None:
        self.wishes = PlanOptions(retry_failed=retry_failed)
        self.files = {key: (one, next(self.clock)) for key, one in zip(KEYS, contents, strict=True)}
        self._open()

    def teardown(self) -> None:
        try:
            if hasattr(self, "journal"):
                self._converge()
                self._close()
        finally:
            self.runner.close()
            self.folder.cleanup()

    # Changes of files and of the server.

    @rule(contents=st.tuples(*[st.sampled_from([*CONTENTS, None])] * len(KEYS)))
    def change(self, contents: tuple[bytes | None, ...]) -> None:
        for key, content in zip(KEYS, contents, strict=True):
            if content is not None:
                self.files[key] = (content, next(self.clock))

    @rule(key=st.sampled_from(KEYS))
    def touch(self, key: str) -> None:
        if key in self.files:
            self.files[key] = (self.files[key][0], next(self.clock))

    @rule(key=st.sampled_from(KEYS))
    def remove(self, key: str) -> None:
        self.files.pop(key, None)

    @rule(good=st.tuples(*[st.sampled_from([True, True, False])] * len(KEYS)))
    def index(self, good: tuple[bool, ...]) -> None:
        for key, well in zip(KEYS, good, strict=True):
            name = self._name(key)
            document = self.server.documents.get(name)
            if document is not None and not document.status.is_final:
                status = IndexingStatus.COMPLETED if well else IndexingStatus.ERROR
                self.server.documents[name] = evolve(document, status=status)

    @precondition(lambda self: not self.load)
    @rule(key=st.sampled_from(KEYS))
    def somebody_deletes(self, key: str) -> None:
        self.server.documents.pop(self._name(key), None)

    @precondition(lambda self: not self.load)
    @rule(key=st.sampled_from(KEYS), enabled=st.booleans())
    def somebody_switches(self, key: str, *, enabled: bool) -> None:
        name = self._name(key)
        flies = any(flying == name for flying, _, _ in self.server.flying)
        if name in self.server.documents and not flies:
            self.server.documents[name] = evolve(self.server.documents[name], enabled=enabled)

    @rule(number=st.integers(0, len(KEYS)))
    def land(self, number: int) -> None:
        for name, content, _ in self.server.flying[:number]:
            self.server.create(name, content)
        del self.server.flying[:number]

    @rule(seconds=st.sampled_from([1.0, QUARANTINE]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.server.flying = [one for one in self.server.flying if one[2] > self.now]

    # Steps of a load.

    @rule(ends=st.tuples(*[st.sampled_from(ENDS)] * len(KEYS)), number=st.integers(1, len(KEYS)))
    def go(self, ends: tuple[str, ...], number: int) -> None:
        """Begin or continue a load with some of its files."""
        load = self.load or self._start()
        for end in ends[:number]:
            if load.left:
                self._take(load.left.pop(0), end)

    @precondition(lambda self: not self.load)
    @rule()
    def load_in_peace(self) -> None:
        self._load_in_peace()

    @precondition(lambda self: not self.load)
    @rule(ends=st.tuples(*[st.sampled_from(ENDS)] * len(KEYS)), landed=st.integers(0, len(KEYS)))
    def load_until_killed(self, ends: tuple[str, ...], landed: int) -> None:
        self.go(ends, len(KEYS))
        self.index((True,) * len(KEYS))
        self.look(ends)
        self.kill()
        self.land(landed)

    @precondition(lambda self: self.load)
    @rule(ends=st.tuples(*[st.sampled_from(ENDS)] * len(KEYS)))
    def look(self, ends: tuple[str, ...]) -> None:
        """Look up the pending files and those being indexed."""
        assert self.load is not None
        for key, end in zip(KEYS, ends, strict=True):
            if key in self.load.held:
                self._settle(key, end)
            if key in self.load.followed:
                self._watch(key)

    @precondition(lambda self: self.load and not (self.load.left or self.load.held))
    @rule()
    def stop(self) -> None:
        self.load = None

    @rule()
    def kill(self) -> None:
        """Discard all state except the journal."""
        self.load = None
        self._close()
        self._open()

    @invariant()
    def the_journal_remembers(self) -> None:
        if not hasattr(self, "journal"):
            return
        rows = self.journal.get_rows(KEYS)
        recorded = {key: (row.state, row.document_id) for key, row in rows.items()}
        assert recorded == self.rows
        assert len({row.name for row in rows.values()}) == len(rows)

    @invariant()
    def the_counts_are_right(self) -> None:
        if not hasattr(self, "journal"):
            return
        states = list(self.rows.values())
        assert self.journal.files.count_unanswered() == sum(
            state is JournalState.SENDING for state, _ in states
        )
        known = sum(
            state is not JournalState.SENDING and document is not None for state, document in states
        )
        assert self.journal.files.count_documents() == known

    def _converge(self) -> None:
        """Load again without faults, and check that every file has its document."""
        self.kill()
        self.wait(QUARANTINE)
        for name, document in self.server.documents.items():
            status = document.status if document.status.is_final else IndexingStatus.COMPLETED
            self.server.documents[name] = evolve(document, enabled=True, status=status)
        self.wishes = PlanOptions(retry_failed=True)
        self._load_in_peace()
        self._load_in_peace()
        ended = self._load_in_peace()
        assert ended == dict.fromkeys(self.files, Outcome.UNCHANGED)
        for key, (content, _) in self.files.items():
            assert self.server.documents[self._name(key)].content == content

    def _load_in_peace(self) -> dict[str, object]:
        load = self._start()
        self.go(("accepted",) * len(KEYS), len(KEYS))
        while load.held or load.followed:
            self.wait(QUARANTINE)
            self.look(("accepted",) * len(KEYS))
            self.index((True,) * len(KEYS))
        self.load = None
        return {
            key: end.outcome if isinstance(end, ItemResult) else end
            for key, end in load.ended.items()
        }

    def _start(self) -> Load:
        trusts = is_journal_complete(
            known=self.journal.files.count_documents(),
            unsettled=self.journal.files.count_unanswered(),
            documents=len(self.server.documents),
        )
        there = {name: one.remote for name, one in self.server.documents.items()}
        self.load = Load(None if trusts else there, sorted(self.files))
        return self.load

    def _take(self, key: str, send: str) -> None:
        """Plan a file, and send it if the plan says so."""
        assert self.load is not None
        if key not in self.files:
            return
        content, mtime = self.files[key]
        found = FoundFile(key=key, size=len(content), token=str(mtime), data=content)
        row = self.journal.get_rows([key]).get(key)
        decided = plan_file(
            found,
            row,
            self._remote(found, row),
            self.wishes,
            is_unchanged=lambda row: _same(found, row),
        )
        if isinstance(decided, ItemResult):
            self._check_end(decided)
            self.load.ended[key] = decided
            return
        self._check_done(found, row)
        if decided.action is PlannedAction.SEND and decided.replaces and self.load.snapshot is None:
            decided = evolve(decided, action=PlannedAction.LOOK_UP)
        match decided.action:
            case PlannedAction.SEND:
                self._send(decided, send)
            case PlannedAction.LOOK_UP:
                lost = decided.row is not None and decided.row.state is JournalState.SENDING
                self._hold(decided, lost=lost)
            case PlannedAction.FOLLOW:
                self.load.followed[key] = decided
            case PlannedAction.ASSIGN_METADATA:
                raise AssertionError(decided)

    def _check_end(self, result: ItemResult) -> None:
        """Check that an unsent file had a document when the load began."""
        assert self.load is not None
        if result.outcome is Outcome.UNCHANGED:
            document = self.server.documents.get(self._name(result.key))
            assert document is not None
            assert document.content == self.files[result.key][0]
            assert document.status is IndexingStatus.COMPLETED

    def _check_done(self, found: FoundFile, row: JournalRow | None) -> None:
        """Check that indexed files are not sent again unless they changed."""
        document = self.server.documents.get(found.name)
        if row is None or row.state is not JournalState.DONE or document is None:
            return
        ours = (row.document_id, row.upload_file_id) == (document.id, document.file)
        assert not (ours and document.content == found.data)

    def _check_not_twice(self, key: str, name: str, content: bytes) -> None:
        """Check that a file whose upload arrived is not sent again after a lost response."""
        document, row = self.server.documents.get(name), self.journal.get_rows([key]).get(key)
        if document is None or row is None or document.status is IndexingStatus.ERROR:
            return
        remembers = row.state in {JournalState.SENDING, JournalState.ACCEPTED, JournalState.DONE}
        assert not (remembers and document.content == content and row.content == _digest(content))

    def _remote(self, found: FoundFile, row: JournalRow | None) -> RemoteDocument | None:
        """Return the document as the load knows it."""
        assert self.load is not None
        if self.load.snapshot is not None:
            return self.load.snapshot.get(found.name)
        if row is None or row.document_id is None:
            return None
        return RemoteDocument(
            document_id=row.document_id,
            enabled=True,
            status=IndexingStatus.COMPLETED,
            upload_file_id=row.upload_file_id,
        )

    def _send(self, planned: PlannedFile, what: str) -> None:
        assert self.load is not None
        planned = evolve(planned, attempts=planned.attempts + 1)
        key, name, content = planned.found.key, planned.name, planned.found.data or b""
        assert not any(flying == name for flying, _, _ in self.server.flying), "sent too early"
        self._check_not_twice(key, name, content)
        previous = planned.replaces.upload_file_id if planned.replaces else None
        row = intent(
            key,
            name=name,
            size=len(content),
            token=planned.found.token,
            content=_digest(content),
            previous=previous,
            attempts=planned.attempts,
        )
        self._run(self.journal.record_intent(row))
        self.rows[key] = (JournalState.SENDING, self.rows.get(key, (None, None))[1])
        match what:
            case "accepted":
                self._accepted(planned, self.server.create(name, content))
            case "landed unseen":
                self.server.create(name, content)
                self._hold(planned, lost=True)
            case "lost":
                self.server.flying.append((name, content, self.now + QUARANTINE))
                self._hold(planned, lost=True)
            case _:
                self._end(planned, JournalState.FAILED)

    def _hold(self, planned: PlannedFile, *, lost: bool) -> None:
        assert self.load is not None
        until = self.now + QUARANTINE if lost else self.now
        self.load.held[planned.found.key] = PendingUpload(
            file=TrackedFile.from_plan(planned),
            since=self.now,
            due=self.now,
            lost=lost,
            until=until,
        )

    def _settle(self, key: str, send: str) -> None:
        assert self.load is not None
        held = self.load.held[key]
        planned = held.file.planned
        document = self.server.documents.get(planned.name)
        decision = decide_next_step(held, document.document if document else None, self.now)
        if decision is ReconcileDecision.WAIT:
            return
        del self.load.held[key]
        remote = document.remote if document else None
        again = evolve(planned, action=PlannedAction.SEND, replaces=remote, row=None)
        match decision:
            case ReconcileDecision.TAKE_OVER:
                assert document is not None
                row = planned.row
                self._accepted(planned, document)
                if row is not None and not planned.is_unchanged:
                    del self.load.followed[key]
                    self._hold(evolve(again, attempts=0), lost=False)
            case ReconcileDecision.SEND:
                self._send(again, send)
            case ReconcileDecision.KEEP_DISABLED:
                self._skip(held)
            case _:
                raise AssertionError(decision)

    def _skip(self, held: PendingUpload) -> None:
        """Skip a file whose document was disabled; a lost upload did not arrive."""
        assert self.load is not None
        key = held.file.key
        if held.lost:
            self._end(held.file.planned, JournalState.WAITING)
        self.load.ended[key] = Outcome.SKIPPED

    def _accepted(self, planned: PlannedFile, document: Stored) -> None:
        assert self.load is not None
        key = planned.found.key
        self.journal.record_accepted(key, document.id, None, document.file)
        self._run(self.journal.flush())
        self.rows[key] = (JournalState.ACCEPTED, document.id)
        row = self.journal.get_rows([key])[key]
        assert document.content == planned.found.data or (planned.row and not planned.is_unchanged)
        assert row.content == _digest(document.content)
        self.load.followed[key] = evolve(planned, row=row)

    def _watch(self, key: str) -> None:
        assert self.load is not None
        planned = self.load.followed[key]
        assert planned.row is not None
        document = self.server.documents.get(planned.name)
        if document is not None and not document.status.is_final:
            return
        del self.load.followed[key]
        good = (
            document is not None
            and document.file == planned.row.upload_file_id
            and document.status is IndexingStatus.COMPLETED
        )
        self._end(planned, JournalState.DONE if good else JournalState.FAILED)

    def _end(self, planned: PlannedFile, state: JournalState) -> None:
        assert self.load is not None
        key = planned.found.key
        self.journal.record_state(key, state)
        self._run(self.journal.flush())
        if key in self.rows:
            self.rows[key] = (state, self.rows[key][1])
        self.load.ended[key] = state

    def _open(self) -> None:
        path = Path(self.folder.name) / "journal.db"
        self.journal = self._run(self.stack.enter_async_context(open_journal(path, IDENTITY)))
        self.journal._database.connection.execute("PRAGMA synchronous=OFF")

    def _close(self) -> None:
        self._run(self.stack.aclose())

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    @staticmethod
    def _name(key: str) -> str:
        return FoundFile(key=key, size=0).name


def _same(found: FoundFile, row: JournalRow) -> bool:
    if found.size != row.size:
        return False
    return found.token == row.token or _digest(found.data or b"") == row.content


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


@pytest.mark.timeout(300 if LONG else 120)
def test_no_sequence_of_events_loses_or_duplicates_files() -> None:
    run_state_machine_as_test(
        Loads,
        settings=settings(
            max_examples=400 if LONG else 50,
            derandomize=not LONG,  # the same examples in each run
            stateful_step_count=20,
            # Failing examples are not shrunk: that took minutes, and most of a gigabyte.
            phases=[Phase.generate],
            database=None,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
