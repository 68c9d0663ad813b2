from __future__ import annotations

import re

_PASSING = re.compile(
    r"rate.?limit|too many requests|quota.{0,20}per (second|minute)|time[d ]*[ -]?out|timeout"
    r"|connection|connect(ing)? (to|error)|temporar|unavailable|overload|try again|throttl"
    r"|\b(429|500|502|503|504|529)\b|server error|bad gateway|deadlock|lock wait",
    re.IGNORECASE,
)


def transient(error: str) -> bool:
    """Tell whether a document's error looks like one that passes: a provider's limits, its
    outages, a broken connection.
    """
    return _PASSING.search(error) is not None
