"""The emulator in a separate process, to be killed: `python server_process.py FILE PORT`.

Faults are configured with `POST /_emulator/faults`. Prints a line when the server listens.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import anyio
from load_environment import KEY

from dify_kb.emulator import Emulator, Settings, serve


def print_url(url: str) -> None:
    """Print the URL: the parent process waits for this line."""
    sys.stdout.write(json.dumps({"url": url}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    server = Emulator(
        Path(sys.argv[1]),
        port=int(sys.argv[2]),
        api_key=KEY,
        settings=Settings(workers=2, create_io=0.05),
    )
    anyio.run(serve, server, print_url)
