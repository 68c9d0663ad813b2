"""The blocking client, which runs the asynchronous client in a background thread."""

from __future__ import annotations

import copy
import os  # noqa: TC003 -- for check_methods
import ssl as _ssl  # noqa: TC003 -- for check_methods
from typing import TYPE_CHECKING, NoReturn, Self

from dify_kb.argument_checks import check_methods
from dify_kb.client import AsyncClient
from dify_kb.client_archive_methods import check_copy, describe_operand
from dify_kb.errors import ConfigError
from dify_kb.models import Dataset
from dify_kb.profiles import require_profile

from ._loop_thread import LoopThread
from ._resources import BlockingClientBase

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

    from dify_kb.archive import CompareReport, CopyReport, OnArchiveEvent, OnExistingDocument
    from dify_kb.arguments import Duration
    from dify_kb.config import Policy, Retry, Timeout
    from dify_kb.event_loops import EventLoopName
    from dify_kb.models import ModelRef
    from dify_kb.transport import OnAttempt

__all__ = ["Client"]


@check_methods
class Client(BlockingClientBase):
    """A blocking client of one Dify server.

    Use it as a context manager: `with Client(url, key) as client`. Methods, parameters and results
    are those of `AsyncClient`, which runs in a background thread. The thread starts with the first
    call (or `with`) and ends with `close` or the process. Threads may share a client. A call takes
    about 0.3 ms longer than the asynchronous one; `iter` adds that once per 100 rows, `load` once
    in all. Ctrl-C cancels the current call. The client also works while an event loop is running,
    as in a notebook, but blocks it.

    Args:
        base_url: address of the server, with or without `/v1`. `emulator:` (in memory) or
            `emulator:FILE` (persistent, in a file) starts the embedded server while the client is
            open; append `?version=…` for another Dify version than 1.16. None reads
            `DIFY_BASE_URL`; there is no default host.
        api_key: a knowledge API key (`dataset-…`). None reads `DIFY_API_KEY`.
        timeout: timeouts of one attempt; a single duration, such as `30` (seconds) or `"2m"`, sets
            all of them.
        retry: number of attempts, and the backoff between them.
        concurrency: maximum requests in flight of all threads, which is also the number of
            connections; None is 8.
        headers: additional headers of every request.
        proxy: address of an HTTP proxy, such as `http://proxy.example:3128`; SOCKS is not
            supported. Ignored by the embedded server.
        trust_env: whether to use the proxies of the environment: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY
            and NO_PROXY, which lists host names, ports, addresses and networks (10.0.0.0/8).
            Credentials of a netrc file are never used.
        ssl: SSL context, for a private certificate authority.
        on_event: callback after each attempt; called in the client's thread, must not block and
            must not call the client.
        policy: all timeouts, retry limits and intervals; `timeout` and `retry` override its parts.
        loop: event loop of the client's thread: None and `asyncio` are that of the standard
            library, `uvloop` that of the package (extra `fast`), which does not support forks.

    Raises:
        ConfigError: the address or the key is missing or invalid, or another argument is invalid.
        TypeError: an argument has the wrong type.
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        timeout: Timeout | Duration | None = None,
        retry: Retry | None = None,
        concurrency: int | None = None,
        headers: Mapping[str, str] | None = None,
        proxy: str | None = None,
        trust_env: bool = False,
        ssl: _ssl.SSLContext | None = None,
        on_event: OnAttempt | None = None,
        policy: Policy | None = None,
        loop: EventLoopName | None = None,
    ) -> None:
        self._target = AsyncClient(
            base_url,
            api_key,
            timeout=timeout,
            retry=retry,
            concurrency=concurrency,
            headers=headers,
            proxy=proxy,
            trust_env=trust_env,
            ssl=ssl,
            on_event=on_event,
            policy=policy,
            loop=loop,
        )
        self._loop = LoopThread(self._target, loop or "asyncio")
        self._entered = self._view = False

    @classmethod
    def from_profile(
        cls,
        name: str | None = None,
        *,
        timeout: Timeout | Duration | None = None,
        retry: Retry | None = None,
        concurrency: int | None = None,
        headers: Mapping[str, str] | None = None,
        proxy: str | None = None,
        trust_env: bool = False,
        ssl: _ssl.SSLContext | None = None,
        on_event: OnAttempt | None = None,
        policy: Policy | None = None,
        loop: EventLoopName | None = None,
    ) -> Self:
        """Create a client with the address and key of a profile in `~/.config/dify-kb/config.toml`.

        Blocks while the `key_command` of the profile runs, for 60 s at most. A profile without a
        key uses `DIFY_API_KEY`.

        Args:
            name: None uses `DIFY_PROFILE`, or the file's `default_profile`.

        Raises:
            ConfigError: the profile does not exist, or its configuration, key or `ca` is invalid.
        """
        profile = require_profile(name)
        return cls(
            profile.url,
            profile.read_key(),
            timeout=timeout,
            retry=retry,
            concurrency=concurrency,
            headers=headers,
            proxy=proxy,
            trust_env=trust_env,
            ssl=ssl or profile.create_ssl_context(),
            on_event=on_event,
            policy=policy,
            loop=loop,
        )

    def __enter__(self) -> Self:
        self._check_owner()
        if self._entered:
            raise ConfigError(
                "The client is already open.", hint="Open each client once; threads may share it."
            )
        self._loop.start()
        self._entered = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    if not TYPE_CHECKING:  # type checkers report the missing methods

        async def __aenter__(self) -> NoReturn:
            raise TypeError("Client requires 'with', or use AsyncClient with 'async with'.")

        async def __aexit__(self, *_: object) -> None:
            pass

    def __repr__(self) -> str:
        return repr(self._target).replace("AsyncClient", type(self).__name__, 1)

    @property
    def base_url(self) -> str:
        """The address, with `/v1`. An embedded server has one only while the client is open."""
        return self._target.base_url

    @property
    def server_version(self) -> str | None:
        """The version in the server's last response.

        None before the first response, or behind a proxy that removes the header.
        """
        return self._open_target.server_version

    def with_options(
        self, *, timeout: Timeout | Duration | None = None, retry: Retry | None = None
    ) -> Self:
        """Return a client with other settings that shares the connections of this client.

        The returned client is closed together with this client.
        """
        view = copy.copy(self)
        view._target = self._open_target.with_options(timeout=timeout, retry=retry)  # noqa: SLF001 -- our own class
        view._view = True  # noqa: SLF001 -- likewise
        return view

    def copy(
        self,
        dataset_id: Dataset | str,
        target: Client,
        *,
        name: str | None = None,
        target_id: Dataset | str | None = None,
        on_existing: OnExistingDocument = "fail",
        recut: bool = False,
        embedding: ModelRef | None = None,
        files: bool = True,
        full: bool = False,
        on_event: OnArchiveEvent | None = None,
    ) -> CopyReport:
        """Copy a knowledge base to another server, or under another name to the same.

        An export followed by an import; the archive between is kept in
        `~/.local/state/dify-kb/copies`, so that the same copy again reads and sends only what
        changed, and continues after an interruption. Costs as `export` and `import_`.

        Args:
            target: client of the other server, or this one.
            name: name of the copy, which is created if necessary; by default the same name.
            target_id: an existing knowledge base of the other server instead of a name.
            on_existing: see `import_`.
            recut: see `import_`.
            embedding: see `import_`.
            files: copy the files that documents were created from.
            full: see `export`.
            on_event: receives `ArchiveProgress` in the client's thread; must not block.

        Raises:
            ConfigError: see `export` and `import_`; or the copy would replace its source.
            ArchiveError: the same copy is running already.
        """
        from dify_kb.archive import CopyReport, copy_folder

        # Each client sends its requests in its own thread.
        source = dataset_id if isinstance(dataset_id, Dataset) else self.datasets.get(dataset_id)
        check_copy(source, name, target_id, is_same_client=target is self)
        with copy_folder(self._target._identity, source.id) as folder:  # noqa: SLF001 -- our own class
            exported = self.export(source, folder, files=files, full=full, on_event=on_event)
            if not exported:
                return CopyReport(exported=exported)
            imported = target.import_(
                folder,
                name=None if target_id is not None else name or source.name,
                dataset_id=target_id,
                on_existing=on_existing,
                recut=recut,
                embedding=embedding,
                on_event=on_event,
            )
            return CopyReport(exported=exported, imported=imported)

    def compare(
        self,
        a: Dataset | str | os.PathLike[str],
        b: Dataset | str | os.PathLike[str],
        *,
        target: Client | None = None,
        on_event: OnArchiveEvent | None = None,
    ) -> CompareReport:
        """Compare two knowledge bases, or archives of them, document by document.

        Each knowledge base is read as by `export` without files. Documents are compared by name.
        Not compared are ids, order, dates, files and the chunking rules of documents.

        Args:
            a: a knowledge base or its id, or the path of an archive.
            b: the same; a knowledge base of `target` if that is given.
            target: client of the server of `b`; by default this one.
            on_event: receives `ArchiveProgress` in the client's thread; must not block.

        Raises:
            ArchiveError: an archive is damaged, or a knowledge base could not be read completely.
        """
        from dify_kb.archive import compare_archives, comparison_folder

        with comparison_folder() as folder:
            first = self._read_operand(a, folder / "a", on_event)
            second = (target or self)._read_operand(b, folder / "b", on_event)  # noqa: SLF001 -- likewise
            return compare_archives(first, second, (describe_operand(a), describe_operand(b)))

    def close(self) -> None:
        """Cancel the calls of other threads, close all connections and end the thread.

        Safe to repeat; all later calls raise `ConfigError`. Has no effect in a forked process, as
        the connections belong to its parent.

        Raises:
            ConfigError: the client was returned by `with_options`, or the caller is a callback in
                the client's thread.
        """
        self._check_owner()
        self._entered = False
        self._loop.close()

    def _read_operand(
        self,
        operand: Dataset | str | os.PathLike[str],
        folder: Path,
        on_event: OnArchiveEvent | None,
    ) -> Path:
        target = self._open_target
        return self._loop.run(lambda: target._read_operand(operand, folder, on_event))  # noqa: SLF001 -- our own class

    def _check_owner(self) -> None:
        if self._view:
            raise ConfigError(
                "A client of with_options cannot be opened or closed.",
                hint="Open and close the client whose with_options returned it.",
            )
