"""The emulator's own routes, for tests and servers in other processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web
from attrs import frozen

from .faults import Faults
from .history import History, lines
from .outward import DroppedError, Outward

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


@frozen
class Control:
    """Where failures are planned and the history is read, without a key."""

    faults: Faults
    history: History
    outward: Outward

    def routes(self) -> list[web.RouteDef]:
        """Tell what is served."""
        return [
            web.get("/_emulator/faults", self.tell),
            web.post("/_emulator/faults", self.plan),
            web.delete("/_emulator/faults", self.clear),
            web.get("/_emulator/history", self.past),
            web.post("/_emulator/external-apis", self.register),
            web.post("/_emulator/external-datasets/{dataset_id}/retrieve", self.retrieve),
        ]

    async def tell(self, _: web.Request) -> web.Response:
        """Tell what is planned still, and what was met."""
        return self._state()

    async def plan(self, request: web.Request) -> web.Response:
        """Take plans."""
        try:
            self.faults.load(await request.json())
        except ValueError as error:
            # Of JSON that is none, too.
            return web.json_response({"error": str(error)}, status=400)
        return self._state()

    async def clear(self, _: web.Request) -> web.Response:
        """Forget the plans."""
        self.faults.clear()
        return self._state()

    async def past(self, _: web.Request) -> web.Response:
        """Tell the calls and the runs, as JSON Lines."""
        text = "".join(f"{line}\n" for line in lines(self.history.copy(), self.history.runs()))
        return web.Response(text=text, content_type="application/jsonl")

    async def register(self, request: web.Request) -> web.Response:
        """Register an external knowledge API, as the console does."""
        return await self._told(request, self._register)

    async def _register(self, request: web.Request) -> dict[str, object]:
        given = await request.json()
        words = (given.get(name, "") for name in ("name", "endpoint", "api_key"))
        return {"id": await self.outward.register(*map(str, words))}

    async def retrieve(self, request: web.Request) -> web.Response:
        """Ask an external dataset, as an app does."""
        return await self._told(request, self._retrieve)

    async def _retrieve(self, request: web.Request) -> dict[str, object]:
        given = await request.json()
        records = await self.outward.retrieve(
            request.match_info["dataset_id"],
            str(given.get("query", "")),
            metadata_condition=given.get("metadata_condition"),
            console=given.get("console") is True,
        )
        return {"records": records}

    async def _told(
        self,
        request: web.Request,
        act: Callable[[web.Request], Awaitable[dict[str, object]]],
    ) -> web.Response:
        try:
            return web.json_response(await act(request))
        except (ValueError, AttributeError, DroppedError) as error:
            # Of JSON that is none, or no object, too.
            return web.json_response({"error": str(error)}, status=400)

    def _state(self) -> web.Response:
        return web.json_response({"left": self.faults.left(), "met": self.faults.met()})
