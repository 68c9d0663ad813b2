"""Count the files of a source in advance, for the total of the progress display."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from .found_file import FoundFile
from .scan import Rules, Scanner, SeenKeys, scan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from dify_kb.ingest.report import ItemResult

    from .items import Item
    from .roots import Root


@frozen
class Totals:
    """The size of a source: `files` that can be loaded, their `bytes`, and `refused` files."""

    files: int = 0
    bytes: int = 0
    refused: int = 0


def count_source(roots: Sequence[Root], rules: Rules, stop: Callable[[], bool]) -> Totals | None:
    """Return the totals of a scan of `roots`; None if `stop()` ended it early. Blocking.

    Reads no file: 10,000 files take about 0.1 s of CPU.
    """
    return _sum(scan(roots, rules, stop=stop), stop)


def count_items(
    items: Iterable[Item], rules: Rules, stop: Callable[[], bool], *, explicit: bool = False
) -> Totals | None:
    """Return the totals of a collection of items; None if `stop()` ended it early. Blocking."""
    scanner, seen = Scanner.from_rules(rules), SeenKeys()
    checked = (scanner.check_item(item, explicit=explicit) for item in items)
    return _sum((seen.reject_repeated(one) for one in checked if one is not None), stop)


def _sum(checked: Iterable[FoundFile | ItemResult], stop: Callable[[], bool]) -> Totals | None:
    files = size = refused = 0
    for one in checked:
        if stop():
            return None
        if isinstance(one, FoundFile):
            files += 1
            size += one.size
        else:
            refused += 1
    return None if stop() else Totals(files, size, refused)
