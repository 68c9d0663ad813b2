"""A world of three hands on one dataset: a user, a person in the console, and a sync."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
from collections import Counter
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

import anyio
import attrs
from attrs import define, field

from dify_kb import AsyncClient, AttemptEvent, Policy, ProcessRule, SyncReport, Timeout
from dify_kb.emulator import Emulator
from dify_kb.emulator.store import DocumentState

T = TypeVar("T")

_SHORT = Policy().scaled(0.002)
POLICY = attrs.evolve(
    _SHORT,
    timeout=Timeout(connect=5.0, read=5.0, answer=5.0, progress=5.0),
    load_timing=attrs.evolve(
        _SHORT.load_timing,
        grace_period=0.0,
        late_create_after_disconnect=0.05,
        late_create_after_timeout=0.05,
    ),
)
"""Short waits; a killed run ends without waiting for its requests."""


class Killed(BaseException):
    """Raised in a run at the moment of its death."""


@define(eq=False)
class SyncWorld:
    """The source, the dataset and what each document must be."""

    emulator: Emulator
    root: Path
    state: str
    runner: asyncio.Runner
    options: dict[str, Any] = field(factory=dict)
    files: dict[str, bytes] = field(factory=dict)
    foreign: dict[str, tuple[object, ...]] = field(factory=dict)
    """The documents of the person by id, as they must stay."""

    touched: set[str] = field(factory=set)
    """Keys of files whose documents the person switched, or whose names a foreign one has."""

    log: list[str] = field(factory=list)
    client: AsyncClient = field(init=False)
    dataset_id: str = field(init=False)
    _attempts: int = 0
    _kill_at: int | None = None
    _watched: dict[str, str] = field(factory=dict)
    _numbers: itertools.count[int] = field(factory=lambda: itertools.count(100))

    def __attrs_post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        self.use_new_home()
        self.client = AsyncClient(
            self.emulator.url,
            self.emulator.api_key,
            policy=POLICY,
            on_event=self._observe,
        )
        dataset = self.run(
            self.client.datasets.create(self.root.name, indexing_technique="economy")
        )
        self.dataset_id = dataset.id

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the event loop of this world."""
        return self.runner.run(coroutine)

    def close(self) -> None:
        """Close the client and remove the folder."""
        self.run(self.client.aclose())
        shutil.rmtree(self.root)

    @property
    def folder(self) -> Path:
        """The source."""
        return self.root / "docs"

    def use_new_home(self) -> None:
        """Forget all local state."""
        home = self.root / f"home{next(self._numbers)}"
        os.environ["XDG_STATE_HOME"] = str(home)

    # The user

    def write(self, key: str, text: str) -> None:
        """Write a file with a size that no other version of any file has."""
        content = f"{text} ".encode() * 3 + b"x" * next(self._numbers)
        path = self.folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        self.files[key] = content
        self.log.append(f"write {key} {len(content)}")

    def remove(self, key: str) -> None:
        """Remove a file."""
        (self.folder / key).unlink()
        del self.files[key]
        self.log.append(f"remove {key}")

    def rename(self, key: str, new: str) -> None:
        """Rename a file, over another one too."""
        (self.folder / new).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / key).rename(self.folder / new)
        self.files[new] = self.files.pop(key)
        if key in self.touched:
            self.touched.add(new)
        self.log.append(f"rename {key} {new}")

    # The person

    def documents(self) -> list[DocumentState]:
        """Return the documents on the server."""
        return self.emulator.documents(self.dataset_id)

    def own(self) -> list[DocumentState]:
        """Return the documents that are not the person's."""
        return [one for one in self.documents() if one.id not in self.foreign]

    def make_foreign(self, name: str) -> None:
        """Make a document of the person."""
        text = "person " * 3 + "y" * next(self._numbers)
        created = self.run(
            self.client.documents.create_by_file(
                self.dataset_id,
                text.encode(),
                name=name,
                process_rule=ProcessRule.automatic(),
                duplicate=False,
            )
        )
        self.settle()
        self.foreign[created.document.id] = self._describe(created.document.id)
        key = name.replace("__", "/")
        if key in KEYS:
            self.touched.add(key)
        self.log.append(f"foreign {name} {created.document.id[:8]}")

    def delete(self, document: DocumentState) -> None:
        """Delete a document of the sync."""
        if document.archived:
            return
        self.run(self.client.documents.delete(self.dataset_id, document.id))
        self.log.append(f"delete {document.name} {document.id[:8]}")

    def switch(self, document: DocumentState, action: str) -> None:
        """Enable, disable, archive or unarchive a document of the sync."""
        self.settle()
        if document.status != "completed":
            return
        switch = getattr(self.client.documents, action)
        self.run(switch(self.dataset_id, [document.id]))
        self.touched.add(document.name.replace("__", "/"))
        # Its file may have been renamed since.
        self.touched |= {
            key for key, content in self.files.items() if len(content) == document.size
        }
        self.log.append(f"{action} {document.name} {document.id[:8]}")

    def settle(self) -> None:
        """Wait until nothing is being indexed."""

        async def wait() -> None:
            with anyio.fail_after(60):
                while any(  # noqa: ASYNC110 -- another thread
                    one.status not in FINAL for one in self.documents()
                ):
                    await anyio.sleep(0.002)

        self.run(wait())

    # The sync

    def sync(self, *, kill_at: int | None = None, **options: Any) -> SyncReport | None:
        """Run a sync, which dies after a number of requests; return its report, if it has one."""
        self._attempts, self._kill_at = 0, kill_at
        self._watched = {} if self.options.get("keep_ids") else self._searchable()
        arguments = {**self.options, "state": self.state, "stall_after": 20.0, **options}
        self.log.append(f"sync kill_at={kill_at} {options}")

        async def run() -> SyncReport:
            return await self.client.sync(
                self.dataset_id,
                self.folder,
                allow_empty=True,
                max_delete="100%",
                **arguments,
            )

        try:
            report = self.run(run())
        except (Killed, BaseExceptionGroup) as death:
            if isinstance(death, BaseExceptionGroup) and death.split(Killed)[1] is not None:
                raise
            self.log.append("killed")
            return None
        finally:
            self._watched, self._kill_at = {}, None
        changes = [(one.action.symbol, one.old_key, one.key, one.reason) for one in report.changes]
        self.log.append(f"-> {report.stopped} {report.held} {changes}")
        self.check_foreign()
        return report

    def _observe(self, _: AttemptEvent) -> None:
        self._attempts += 1
        self._check_searchable()
        if self._kill_at is not None and self._attempts >= self._kill_at:
            raise Killed

    def _searchable(self) -> dict[str, str]:
        """Return the documents that search finds, by the key of their file, if that stays."""
        return {
            key: one.name
            for one in self.own()
            if (key := one.name.replace("__", "/")) in self.files
            and key not in self.touched
            and _is_searchable(one)
        }

    def _check_searchable(self) -> None:
        if not self._watched:
            return
        found = {one.name for one in self.documents() if _is_searchable(one)}
        missing = set(self._watched.values()) - found
        if missing:
            history = [
                f"{one.endpoint} {one.document} {one.status}"
                for one in self.emulator.history[-self._attempts :]
            ]
            raise AssertionError(
                "\n".join(
                    [
                        f"not found by search: {missing}",
                        *self.log,
                        *map(str, self.documents()),
                        *history,
                    ]
                )
            )

    # What must hold

    def check_foreign(self) -> None:
        """Check that no document of the person was touched."""
        for document_id, before in self.foreign.items():
            assert self._describe(document_id) == before, "\n".join(self.log)

    def _describe(self, document_id: str) -> tuple[object, ...]:
        one = next((one for one in self.documents() if one.id == document_id), None)
        return () if one is None else attrs.astuple(one)

    def check_end(self) -> None:
        """Check that the dataset has exactly the documents of the source, and the foreign ones."""
        self.settle()
        story = "\n".join(self.log)
        own = self.own()
        if self.options.get("delete") in {"disable", "archive"}:  # the trash
            own = [
                one
                for one in own
                if (one.enabled and not one.archived) or one.name.replace("__", "/") in self.files
            ]
        counts = Counter(one.name.replace("__", "/") for one in own)
        taken = {name.replace("__", "/") for name in self._foreign_names()}
        for key in self.files:
            wanted = {0, 1} if key in taken else {1}
            assert counts[key] in wanted, f"{key}: {counts[key]} documents\n{story}"
        # A file that was renamed to a name that is taken keeps its old document.
        waiting = {len(self.files[key]) for key in taken if key in self.files}
        own = [
            one
            for one in own
            if one.size not in waiting or one.name.replace("__", "/") in self.files
        ]
        extra = {one.name.replace("__", "/") for one in own} - set(self.files)
        assert not extra, f"left: {extra}\n{story}"
        for one in own:
            key = one.name.replace("__", "/")
            if key in self.touched:
                continue
            assert one.size == len(self.files[key]), f"old content: {key} {one}\n{story}"
            assert _is_searchable(one), f"not found: {key}\n{story}"
            assert one.chunks == one.completed > 0, f"{one}\n{story}"

    def _foreign_names(self) -> Sequence[str]:
        return [one.name for one in self.documents() if one.id in self.foreign]


FINAL = frozenset({"completed", "error"})
KEYS = ("a.md", "b.md", "c/d.md", "c/e.md", "f.md")


def _is_searchable(one: DocumentState) -> bool:
    return one.status == "completed" and one.enabled and not one.archived and one.completed > 0
