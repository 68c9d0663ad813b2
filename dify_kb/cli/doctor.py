from __future__ import annotations

import statistics
import time
from collections.abc import AsyncIterator, Callable, Sequence
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Annotated

import typer
from attrs import asdict, define, field

import dify_kb
from dify_kb.config import MAX_FILE_SIZE
from dify_kb.errors import ForbiddenError, KnowledgeError, ServerError, UnauthorizedError
from dify_kb.wire.version_bugs import list_version_bugs, parse_version

from . import exit_codes, output
from .benchmark_output import CLEANUP_NOTICE
from .bulk import format_count
from .output import DiagnosticCheck
from .run_command import CommandContext

if TYPE_CHECKING:
    from dify_kb import AsyncClient, AttemptEvent, ModelRef, ModelType

TESTED_VERSIONS = ("1.4.3", "1.8.1", "1.12.1", "1.14.2", "1.16")

MAX_CLOCK_SKEW = 30.0
"""Seconds that the clocks of server and client may differ."""

TRIAL_NOTICE = (
    "The trial creates temporary datasets (dify-kb-bench-…): 8 documents of 40 chunks, up to 8\n"
    "files of at most 15 MiB and, if there is an embedding model, a document of one sentence. It\n"
    "opens 32 connections at once. The datasets are deleted at the end, even after Ctrl-C;\n"
    "`dify-kb bench clean` deletes those of a killed run."
)


def doctor(
    context: typer.Context,
    trial: Annotated[
        bool,
        typer.Option(
            "--trial",
            help="Also measure the limits of worker, API and proxy, in temporary datasets"
            " (dify-kb-bench-…) that are deleted at the end; takes up to five minutes.",
        ),
    ] = False,
) -> None:
    """Check address, key, version, models and limits.

    Each check names the server settings that it depends on; see `dify-kb guide settings`. Costs
    five read requests, and with --trial about 120 more, of which 20 create or delete something.
    """
    command: CommandContext = context.obj
    log = AttemptLog()
    code = 0

    def report(check: DiagnosticCheck) -> None:
        nonlocal code
        output.print_check(check, json=command.json)
        if check.status == "failed":
            code = exit_codes.ACCESS_DENIED if check.check == "key" else exit_codes.GENERAL_ERROR

    async def main() -> int:
        from dify_kb.bench.server_settings import CONNECTIONS_TRIED

        concurrency = CONNECTIONS_TRIED if trial else None
        async with command.create_client(on_event=log.record, concurrency=concurrency) as client:
            async for check in _check_access(client):
                report(check)
            if code == 0:
                models = Models()
                async for check in models.check(client):
                    report(check)
                report(log.check_clock())
                if trial:
                    await _run_trial(client, models, report)
                else:
                    report(_untested_file_size())
            if trial:
                report(log.check_rate_limit())
                report(log.check_timeouts())
        return code

    command.run(main, interrupt_message=CLEANUP_NOTICE if trial else "")


async def _check_access(client: AsyncClient) -> AsyncIterator[DiagnosticCheck]:
    """Check address, version and key; stop after a failure that makes the others useless."""
    try:
        info = await client.ping()
    except KnowledgeError as error:
        yield _failed("address", error)
        return
    yield DiagnosticCheck(check="address", status="ok", detail=f"{client.base_url} responds")
    yield _check_version(info.server_version)
    yield _check_version_bugs(info.server_version)
    try:
        page = await client.datasets.list(limit=1, include_all=True)
    except KnowledgeError as error:
        if isinstance(error, UnauthorizedError | ForbiddenError):
            yield _failed("key", error)
        elif isinstance(error, ServerError) and "plugin daemon" in error.message.lower():
            yield DiagnosticCheck(
                check="plugin daemon",
                status="failed",
                detail=error.summary,
                remedy="Start the plugin daemon, or correct PLUGIN_DAEMON_URL. The key is valid.",
                settings=("PLUGIN_DAEMON_URL",),
            )
        else:
            yield _failed("server", error)
        return
    yield DiagnosticCheck(
        check="key",
        status="ok",
        detail=f"valid; the workspace has {format_count(page.total, 'dataset')}",
    )


def _failed(name: str, error: KnowledgeError, settings: Sequence[str] = ()) -> DiagnosticCheck:
    return DiagnosticCheck(
        check=name, status="failed", detail=error.summary, remedy=error.hint, settings=settings
    )


def _check_version(version: str | None) -> DiagnosticCheck:
    if version is None:
        return DiagnosticCheck(
            check="version",
            status="warning",
            detail="unknown: the response has no X-Version header",
            remedy="Check whether a proxy removes the X-Version header.",
        )
    if not version.startswith(TESTED_VERSIONS) and not list_version_bugs(version):
        return DiagnosticCheck(
            check="version",
            status="warning",
            detail=f"Dify {version} is not tested (tested: {', '.join(TESTED_VERSIONS)})",
            remedy="Most features should work; please report any problem.",
        )
    return DiagnosticCheck(check="version", status="ok", detail=f"Dify {version}")


def _check_version_bugs(version: str | None) -> DiagnosticCheck:
    bugs = list_version_bugs(version)
    if not bugs:
        return DiagnosticCheck(check="known bugs", status="ok", detail="none of this version")
    listed = "; ".join(f"{bug.description} (not in {bug.fixed_in})" for bug in bugs)
    latest = max((bug.fixed_in for bug in bugs), key=parse_version)
    return DiagnosticCheck(
        check="known bugs",
        status="warning",
        detail=listed,
        remedy=f"Upgrade Dify to {latest} or later.",
    )


@define
class Models:
    """The embedding and rerank models of the workspace; the first of each is tried."""

    embedding: ModelRef | None = None
    rerank: ModelRef | None = None

    async def check(self, client: AsyncClient) -> AsyncIterator[DiagnosticCheck]:
        """List the models, at one request per type."""
        for kind, lack in (
            (dify_kb.ModelType.TEXT_EMBEDDING, "only economy datasets (keyword search) work"),
            (dify_kb.ModelType.RERANK, "search results cannot be reranked"),
        ):
            try:
                refs = await self._list(client, kind)
            except KnowledgeError as error:
                yield _failed(f"{kind} models", error, ("PLUGIN_DAEMON_URL",))
                continue
            names = ", ".join(f"{ref.provider}:{ref.model}" for ref in refs)
            yield DiagnosticCheck(
                check=f"{kind} models",
                status="ok" if refs else "warning",
                detail=names or f"none: {lack}",
                remedy=""
                if refs
                else "Add a model provider in the Dify console under Settings; the plugin daemon"
                " must run.",
            )

    async def _list(self, client: AsyncClient, kind: ModelType) -> Sequence[ModelRef]:
        from dify_kb.bench.temporary_dataset import list_models

        refs = await list_models(client, kind)
        first = next(iter(refs), None)
        if kind is dify_kb.ModelType.TEXT_EMBEDDING:
            self.embedding = first
        else:
            self.rerank = first
        return refs


async def _run_trial(
    client: AsyncClient, models: Models, report: Callable[[DiagnosticCheck], None]
) -> None:
    from dify_kb.bench.server_settings import SettingsTrial

    output.note(TRIAL_NOTICE)
    trial = SettingsTrial(
        client=client,
        report=lambda check: report(DiagnosticCheck(**asdict(check))),
        embedding=models.embedding,
        rerank=models.rerank,
    )
    try:
        await trial.run()
    except KnowledgeError as error:
        report(_failed("trial", error))


def _untested_file_size() -> DiagnosticCheck:
    return DiagnosticCheck(
        check="file size",
        status="ok",
        detail=f"files of up to {MAX_FILE_SIZE >> 20} MiB are sent, the server's default limit;"
        " --trial measures it",
        settings=("UPLOAD_FILE_SIZE_LIMIT",),
    )


@define
class AttemptLog:
    """A log of the attempts of a client. Pass `record` to the client as `on_event`."""

    now: Callable[[], float] = time.time
    _events: list[AttemptEvent] = field(factory=list)
    _skews: list[float] = field(factory=list)

    def record(self, event: AttemptEvent) -> None:
        """Record one attempt."""
        self._events.append(event)
        try:
            server_time = parsedate_to_datetime(event.date or "").timestamp()
        except ValueError:
            return
        # The header was written between the request and now, and has whole seconds.
        self._skews.append(server_time + 0.5 - (self.now() - event.seconds / 2))

    def check_clock(self) -> DiagnosticCheck:
        """Compare the server's clock with the local one."""
        if not self._skews:
            return DiagnosticCheck(
                check="clock", status="ok", detail="unknown: the responses have no Date header"
            )
        skew = statistics.median(self._skews)
        if abs(skew) <= MAX_CLOCK_SKEW:
            return DiagnosticCheck(check="clock", status="ok", detail="server and client agree")
        return DiagnosticCheck(
            check="clock",
            status="warning",
            detail=f"the server is {abs(skew):,.0f} s {'ahead' if skew > 0 else 'behind'}; the ages"
            " that `stats` and `monitor` show are wrong by as much",
            remedy="Synchronize the clocks of both machines (NTP).",
        )

    def check_rate_limit(self) -> DiagnosticCheck:
        """Report requests that were refused because of their number."""
        total = len(self._events)
        quota, overload = (
            sum(event.failure_kind == kind for event in self._events)
            for kind in ("quota", "overload")
        )
        if quota:
            return DiagnosticCheck(
                check="rate limit",
                status="warning",
                detail=f"the subscription refused {quota} of {total} requests (403), as it limits"
                " their number per minute",
                remedy="Load more slowly, e.g. `dify-kb load --rate 8/min`. A self-hosted server"
                " has this limit only with BILLING_ENABLED.",
                settings=("BILLING_ENABLED",),
            )
        if overload:
            return DiagnosticCheck(
                check="rate limit",
                status="warning",
                detail=f"{overload} of {total} requests got 429 or 503: a proxy limits their rate,"
                " or the server is overloaded",
                remedy="Raise rate and burst of limit_req in nginx, or load with --rate.",
                settings=("limit_req",),
            )
        return DiagnosticCheck(
            check="rate limit", status="ok", detail=f"not reached by {total} requests"
        )

    def check_timeouts(self) -> DiagnosticCheck:
        """Report responses of a proxy that got none from the API."""
        for status, settings, reason in (
            (504, ("NGINX_PROXY_READ_TIMEOUT", "proxy_read_timeout"), "the proxy stopped waiting"),
            (502, ("GUNICORN_TIMEOUT",), "the API process ended, or is down"),
        ):
            for event in self._events:
                if event.status == status:
                    return DiagnosticCheck(
                        check="timeouts",
                        status="warning",
                        detail=f"{event.endpoint}: {status} after {event.seconds:.1f} s; {reason}",
                        remedy=f"See the log of the API; raise {settings[0]} if requests take that"
                        " long.",
                        settings=settings,
                    )
        return DiagnosticCheck(check="timeouts", status="ok", detail="no 502 and no 504")
