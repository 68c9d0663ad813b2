"""Lay out tables for a terminal of a certain width, or for a pipe. Pure.

Names are never wrapped: on a terminal a name that does not fit gets an ellipsis, in a pipe it stays
whole. Widths are counted in terminal cells, of which a Chinese character or an emoji takes two.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence

from attrs import frozen
from rich.cells import cell_len

NAME_COLUMNS = frozenset({"name", "dataset", "document", "source", "model"})
"""Columns that are shortened in the middle: names often differ at their end."""

TEXT_COLUMNS = frozenset({"text", "error"})
"""Columns that are shortened at the end."""

ID_COLUMN = "id"
"""The last column of most tables. Ids are never shortened, since commands require them whole."""

MIN_SHORTENED = 24
"""The least width of a shortened column. Below it, the id gets a line of its own."""

MIN_SHORTENED_WITHOUT_ID = 16
"""The same once the id has a line of its own. Below it, each value gets a line."""

INDENT = "  "

_MESSAGE_LABEL = re.compile(
    r"(?:error: |next:  |warning: |note: |ok  +|\s+next: |\s*failed +|\s+)?"
)
_COMMAND_LINE = re.compile(r"\s+(?:dify-kb|export) ")
_QUOTED_COMMAND = re.compile(r"`[^`]*`")
_NUMBER = re.compile(r"-|[+-]?[\d.,]+( ?[KMG]iB| bytes|%| %)?")


@frozen
class TableLine:
    """A line of a table, with its style for rich."""

    text: str
    style: str = ""


@frozen(kw_only=True)
class TableFormat:
    """The space for a table: its width in cells, None in a pipe, and the mark of omitted text."""

    width: int | None = None
    ellipsis: str = "…"

    def shorten(self, text: str, width: int, *, middle: bool) -> str:
        """Return a text that takes at most `width` cells, without its middle or its last words."""
        if cell_len(text) <= width:
            return text
        kept = width - len(self.ellipsis)
        tail = _last_cells(text, kept // 2) if middle else ""
        head = _first_cells(text, kept - cell_len(tail))
        last_space = head.rfind(" ")
        if not middle and last_space > len(head) // 2:
            head = head[: last_space + 1]
        return f"{head}{self.ellipsis}{tail}"

    def format_table(
        self,
        columns: Sequence[str],
        rows: Sequence[Sequence[str]],
        *,
        shortened: Collection[str] = NAME_COLUMNS | TEXT_COLUMNS,
        highlighted: Collection[int] = (),
    ) -> Iterator[TableLine]:
        """Yield the lines of a table with a header.

        Where the table is too wide, values of the columns `shortened` are shortened; where that is
        not enough, the id, then each value, gets a line of its own.
        """
        widths = [
            max(cell_len(column), *(cell_len(row[place]) for row in rows), 0)
            for place, column in enumerate(columns)
        ]
        places = [place for place, column in enumerate(columns) if column in shortened]
        has_ids = columns[-1] == ID_COLUMN
        least = MIN_SHORTENED if has_ids else MIN_SHORTENED_WITHOUT_ID
        fitted = self._fit(widths, places, least)
        has_id_lines = fitted is None and has_ids
        if has_id_lines:
            fitted = self._fit(widths[:-1], places, MIN_SHORTENED_WITHOUT_ID)
        if fitted is None:
            for number, row in enumerate(rows):
                if number:
                    yield TableLine("")
                yield from self.format_details(list(zip(columns, row, strict=True)))
            return
        shown = len(fitted)
        right = [
            place not in places and _is_numeric([row[place] for row in rows])
            for place in range(shown)
        ]
        if any(columns):
            yield TableLine(_join(columns[:shown], fitted, right), "bold")
        for number, row in enumerate(rows):
            cells = [
                self.shorten(cell, width, middle=column not in TEXT_COLUMNS)
                for cell, width, column in zip(row, fitted, columns, strict=False)
            ]
            yield TableLine(_join(cells, fitted, right), "bold" if number in highlighted else "")
            if has_id_lines:
                yield TableLine(f"{INDENT}{row[-1]}", "dim")

    def format_details(self, pairs: Sequence[tuple[str, str]]) -> Iterator[TableLine]:
        """Yield the lines of names with their values; texts are wrapped between words."""
        name_width = max((cell_len(name) for name, _ in pairs), default=0)
        for name, value in pairs:
            start = f"{name}{' ' * (name_width - cell_len(name))}{INDENT}"
            if self.width is None:
                yield TableLine(f"{start}{value}".rstrip())
                continue
            space = self.width - name_width - len(INDENT)
            if max(map(cell_len, value.split(" "))) > space:
                yield TableLine(name)
                start, space = INDENT, self.width - len(INDENT)
            for line in wrap_words(value, space):
                yield TableLine(f"{start}{line}".rstrip())
                start = " " * cell_len(start)

    def _fit(
        self, widths: Sequence[int], places: Sequence[int], least: int
    ) -> Sequence[int] | None:
        """Return the widths of the columns in the table; None if it would be too wide."""
        if self.width is None:
            return widths
        excess = sum(widths) + len(INDENT) * (len(widths) - 1) - self.width
        fitted = list(widths)
        while excess > 0:
            widest = max(places, key=lambda place: fitted[place], default=None)
            if widest is None or fitted[widest] <= least:
                return None
            fitted[widest] -= 1
            excess -= 1
        return fitted


def wrap_words(text: str, width: int, *, breaks_wide: bool = False) -> Iterator[str]:
    """Yield lines of at most `width` cells, or of one word that is longer.

    Args:
        breaks_wide: wrap texts in wide characters, as in Chinese, between characters.
    """
    line = ""
    for word in text.split(" "):
        longer = f"{line} {word}" if line else word
        if cell_len(longer) <= width or not longer:
            line = longer
            continue
        if line:
            yield line
        while breaks_wide and cell_len(word) > max(width, 1) and cell_len(word) > len(word):
            part = _first_cells(word, width) or word[0]
            yield part
            word = word[len(part) :]  # noqa: PLW2901 -- its rest
        line = word
    yield line


def wrap_message(text: str, width: int) -> str:
    """Return a message in lines of at most `width` cells, wrapped between words.

    Commands, in a line of their own or in backquotes, stay in one line, so that they can be copied.
    """
    lines: list[str] = []
    for line in text.split("\n"):
        if cell_len(line) <= width or _COMMAND_LINE.match(line):
            lines.append(line)
            continue
        label = match[0] if (match := _MESSAGE_LABEL.match(line)) else ""
        words = _QUOTED_COMMAND.sub(
            lambda quoted: quoted[0].replace(" ", "\0"), line.removeprefix(label)
        )
        rest = list(wrap_words(words, width - len(label)))
        lines += [f"{label}{rest[0]}", *(f"{' ' * len(label)}{part}" for part in rest[1:])]
    return "\n".join(lines).replace("\0", " ")


def _join(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    padded: list[str] = []
    for cell, width, aligned_right in zip(cells, widths, right, strict=True):
        space = " " * (width - cell_len(cell))
        padded.append(f"{space}{cell}" if aligned_right else f"{cell}{space}")
    return INDENT.join(padded).rstrip()


def _is_numeric(cells: Sequence[str]) -> bool:
    return any(cell != "-" for cell in cells) and all(map(_NUMBER.fullmatch, cells))


def _first_cells(text: str, width: int) -> str:
    """Return the longest beginning of a text that takes at most `width` cells."""
    end = 0
    while end < len(text) and cell_len(text[: end + 1]) <= width:
        end += 1
    return text[:end]


def _last_cells(text: str, width: int) -> str:
    start = len(text)
    while start and cell_len(text[start - 1 :]) <= width:
        start -= 1
    return text[start:]
