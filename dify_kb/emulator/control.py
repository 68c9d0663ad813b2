"""The emulator's own routes, for tests and servers in other processes."""

from __future__ import annotations

from aiohttp import web
from attrs import frozen

from .faults import Faults
from .history import History, lines


@frozen
class Control:
    """Where failures are planned and the history is read, without a key."""

    faults: Faults
    history: History

    def routes(self) -> list[web.RouteDef]:
        """Tell what is served."""
        return [
            web.get("/_emulator/faults", self.tell),
            web.post("/_emulator/faults", self.plan),
            web.delete("/_emulator/faults", self.clear),
            web.get("/_emulator/history", self.past),
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

    def _state(self) -> web.Response:
        return web.json_response({"left": self.faults.left(), "met": self.faults.met()})
