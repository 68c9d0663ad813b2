"""Change many resources: confirmation, concurrent requests, a line for each result."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

import anyio
import anyio.to_thread
import typer
from attrs import define

from dify_kb.errors import (
    ApiError,
    BadRequestError,
    ConfigError,
    ConflictError,
    KnowledgeError,
    NotFoundError,
    PartialError,
)

from . import output
from .exit_codes import ARCHIVED_DOCUMENT_CODE, GENERAL_ERROR, exit_code_for
from .name_lookup import ResourceRef
from .output_streams import continue_if_unwritable, is_quiet

SOME_FAILED = 3
"""The exit code if some resources were changed and some were not."""

WORKERS = 4
"""Concurrent requests; a default server is saturated by two or three (measured)."""

BATCH_SIZE = 50
"""Documents per request that changes their status; the server changes all of them or none."""

MAX_LISTED = 10
"""Resources that are listed before the confirmation."""


@define
class ChangeReporter:
    """A printer and counter of the results of a change of many resources."""

    noun: str
    past_tense: str
    """The past participle of the change, as `deleted`."""

    json: bool
    action: str = ""
    """What was done, before the name, as `Metadata set on`; default: the past participle."""

    changed_count: int = 0
    failed_count: int = 0

    def report_changed(self, thing: ResourceRef) -> None:
        """Print that a resource was changed."""
        self.changed_count += 1
        if self.json or not is_quiet():
            done = self.action or self.past_tense.capitalize()
            self._write(self.past_tense, f"{done} {thing}.", thing)

    def report_refused(self, thing: ResourceRef, error: KnowledgeError) -> None:
        """Print why a resource was not changed: without --json on stderr, also with --quiet."""
        self.failed_count += 1
        text = f"failed  {thing}: {error.summary}"
        if self.json:
            self._write("failed", text, thing, error=error.summary)
        else:
            output.err.print(output.escape(text))

    def report_dry_run(self, things: Sequence[ResourceRef]) -> int:
        """Print what would be changed, and return the exit code."""
        for thing in things:
            self._write(
                f"would be {self.past_tense}", f"Would be {self.past_tense}: {thing}", thing
            )
        output.note(f"{format_count(len(things), self.noun)} would be {self.past_tense}.")
        return 0

    def finish(self) -> int:
        """Print the counts, and return the exit code."""
        if self.changed_count + self.failed_count != 1:
            failed = f", {self.failed_count:,} failed" if self.failed_count else ""
            count = format_count(self.changed_count, self.noun)
            done = f"{self.action} {count}" if self.action else f"{count} {self.past_tense}"
            output.note(f"{done}{failed}.")
        return SOME_FAILED if self.failed_count else 0

    def _write(self, kind: str, text: str, thing: ResourceRef, **more: object) -> None:
        if self.json:
            text = output.dump_json({"type": kind, "id": thing.id, "name": thing.name, **more})
        else:
            text = output.escape(text)
        output.write_line(text)


async def change_each(
    things: Sequence[ResourceRef],
    work: Callable[[ResourceRef], Awaitable[None]],
    reporter: ChangeReporter,
) -> int:
    """Change each resource by its own request, `WORKERS` at a time; return the exit code.

    After an error that concerns all of them, requests in flight still finish: the server carries
    them out anyway.

    Raises:
        KnowledgeError: the only resource was refused, or an error concerns all of them.
    """
    continue_if_unwritable()
    remaining, stopped = iter(things), list[KnowledgeError]()

    async def worker() -> None:
        for thing in remaining:
            if stopped:
                return
            try:
                await work(thing)
            except KnowledgeError as error:
                if len(things) == 1 or not _is_item_error(error):
                    stopped.append(error)
                    return
                reporter.report_refused(thing, error)
            else:
                reporter.report_changed(thing)

    async with anyio.create_task_group() as group:
        for _ in range(min(WORKERS, len(things))):
            group.start_soon(worker)
    return _finish(reporter, len(things), stopped[0] if stopped else None)


async def change_in_batches(
    things: Sequence[ResourceRef],
    work: Callable[[Sequence[ResourceRef]], Awaitable[None]],
    reporter: ChangeReporter,
) -> int:
    """Change `BATCH_SIZE` resources per request; halve a refused batch to find the refused ones.

    Raises:
        KnowledgeError: the only resource was refused, or an error concerns all of them.
    """
    continue_if_unwritable()
    remaining = deque(
        things[start : start + BATCH_SIZE] for start in range(0, len(things), BATCH_SIZE)
    )
    stopped: KnowledgeError | None = None
    while remaining and stopped is None:
        batch = remaining.popleft()
        try:
            await work(batch)
        except KnowledgeError as error:
            if len(things) == 1 or not isinstance(error, BadRequestError):
                stopped = error
            elif len(batch) == 1:
                reporter.report_refused(batch[0], error)
            else:
                middle = len(batch) // 2
                remaining.extendleft((batch[middle:], batch[:middle]))
        else:
            for thing in batch:
                reporter.report_changed(thing)
    return _finish(reporter, len(things), stopped)


def report_partial(error: PartialError, *, json: bool) -> int:
    """Print an error of a change that was done in part, and return the exit code of its cause."""
    cause = error.__cause__
    code = exit_code_for(cause) if isinstance(cause, KnowledgeError) else GENERAL_ERROR
    code = SOME_FAILED if code == GENERAL_ERROR else code
    output.print_error(error)
    if json:
        output.print_json(
            {"type": "error", "error": error.summary, "hint": error.hint, "exit": code}
        )
    return code


async def confirm_deletion(what: str, things: Sequence[str], *, yes: bool) -> None:
    """Request confirmation on the terminal, unless `yes` is set.

    Raises:
        ConfigError: standard input is not a terminal.
        Exit: the deletion was not confirmed.
    """
    if yes:
        return
    require_terminal(f"the deletion of {what}", "delete")
    for thing in things[:MAX_LISTED]:
        output.err.print(f"  {output.escape(thing)}")
    if len(things) > MAX_LISTED:
        output.err.print(f"  … and {len(things) - MAX_LISTED:,} more")
    if not await ask(f"Delete {what}?"):
        output.err.print("Nothing was deleted.")
        raise typer.Exit(GENERAL_ERROR)


def require_terminal(action: str, verb: str) -> None:
    """Check that an action can be confirmed on the terminal.

    Raises:
        ConfigError: standard input is not a terminal.
    """
    if not sys.stdin.isatty():
        raise ConfigError(
            f"Cannot ask to confirm {action}: standard input is not a terminal.",
            hint=f"Pass --yes to {verb} without confirmation.",
        )


async def ask(question: str) -> bool:
    """Return whether a question is answered with yes on the terminal."""
    output.err.print(f"{output.escape(question)} [y/N] ", end="")
    answer = await _read_answer()
    return answer.strip().casefold() in {"y", "yes"}


async def _read_answer() -> str:
    """Read a line from the terminal; Ctrl-C interrupts it."""
    loop, readable = asyncio.get_running_loop(), anyio.Event()
    try:
        loop.add_reader(sys.stdin.fileno(), readable.set)
    except NotImplementedError:  # Windows
        return await anyio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(sys.stdin.fileno())
    return sys.stdin.readline()


def format_count(count: int, noun: str) -> str:
    """Return a count with its noun in singular or plural: `1 tag`, `2,000 tags`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _finish(reporter: ChangeReporter, total: int, stopped: KnowledgeError | None) -> int:
    if stopped is None:
        return reporter.finish()
    if total > 1:
        output.err.print(
            f"{reporter.changed_count:,} of {format_count(total, reporter.noun)}"
            f" {reporter.past_tense}."
        )
    raise stopped


def _is_item_error(error: KnowledgeError) -> bool:
    """Return whether an error concerns one resource only, not all that follow."""
    if isinstance(error, ApiError) and error.code == ARCHIVED_DOCUMENT_CODE:
        return True
    return isinstance(error, BadRequestError | NotFoundError | ConflictError)
