"""`python -m dify_kb`, and the console script `dify-kb`."""

from __future__ import annotations

import importlib.util
import sys


def main() -> None:
    """Run the command line, or print how to install its requirements."""
    missing = [name for name in ("typer", "rich") if importlib.util.find_spec(name) is None]
    if missing:
        sys.stderr.write(
            f"error: Package not installed: {', '.join(missing)}.\n"
            "next:  pip install 'dify-kb[cli]'\n"
        )
        sys.exit(1)
    from .cli import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
