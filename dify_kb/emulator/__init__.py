"""An embedded Dify knowledge server for tests, demos and benchmarks.

The emulator uses the endpoint catalogue and the models of this package, but not its client. Its
behavior is that of real servers, as recorded and measured.
"""

from __future__ import annotations

from .assertions import LoadCheck, check_load
from .clocks import Clock, ManualClock, SystemClock
from .embedded_server import Emulator, serve
from .faults import Faults
from .history import Exchange, RunEvent
from .settings import Settings
from .store import DocumentState
from .version_profiles import VERSIONS

__all__ = [
    "VERSIONS",
    "Clock",
    "DocumentState",
    "Emulator",
    "Exchange",
    "Faults",
    "LoadCheck",
    "ManualClock",
    "RunEvent",
    "Settings",
    "SystemClock",
    "check_load",
    "serve",
]
