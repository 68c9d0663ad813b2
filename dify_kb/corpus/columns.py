from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def column_names(header: Iterable[str]) -> list[str]:
    """Name the columns of a table as pandas, with which the server reads, does.

    One without a name is `Unnamed: 3`, counted from 0; a name that is there already gets a
    number: `price`, `price.1`.
    """
    names: dict[str, None] = {}
    twins: Counter[str] = Counter()
    for at, given in enumerate(header):
        wanted = name = given or f"Unnamed: {at}"
        while name in names:
            twins[wanted] += 1
            name = f"{wanted}.{twins[wanted]}"
        names[name] = None
    return list(names)
