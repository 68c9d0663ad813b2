from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

# U+00EF, U+00BF and U+00BE look like the bytes of a byte order mark to the server, so it deletes
# these letters from every text (measured, 1.4.3 to 1.12.1).
_REMOVED = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u00ef\u00bf\u00be\ufffe]")

_NEWLINES = re.compile(r"\n{3,}")
_SPACES = re.compile("[\t\f\r \u00a0\u1680\u180e\u2000-\u200a\u202f\u205f\u3000]{2,}")

# The lookbehind keeps a long run of letters linear: a match can only start where the run does.
_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]+@[a-z\d-]++\.[a-z\d.-]+", re.ASCII | re.IGNORECASE)
_URL = re.compile(r"(!?\[[^\[\]\n]*\]\(https?://[^\s)]+\))|https?://[^\s)]+")


def clean(text: str, steps: Iterable[str] = ()) -> str:
    """Return `text` as the server cuts and stores it.

    Some characters always go; `steps` are the ids of the enabled pre-processing rules, in order.
    Unknown steps are ignored, as on the server.
    """
    text = _REMOVED.sub("", text.replace("<|", "<").replace("|>", ">"))
    for step in steps:
        match step:
            case "remove_extra_spaces":
                text = _without_extra_spaces(text)
            case "remove_urls_emails":
                text = _without_urls_and_emails(text)
            case _:
                pass
    return text


def _without_extra_spaces(text: str) -> str:
    """Leave at most one empty line, and one space where two or more stood; a lone tab stays."""
    return _SPACES.sub(" ", _NEWLINES.sub("\n\n", text))


def _without_urls_and_emails(text: str) -> str:
    """Delete addresses, except the targets of Markdown links and images."""
    return _URL.sub(r"\1", _EMAIL.sub("", text))
