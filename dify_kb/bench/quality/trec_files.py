"""Write the results of an evaluation as files of TREC, for other programs.

`qrels.txt` has the relevant items, `queries.tsv` the queries, and each `.run` file the results of
one search method; `trec_eval`, `ir_measures` and `pytrec_eval` read them. A relevant document has
its name as id, a relevant text the id `q3.1` (query 3, item 1), and any other result the id of its
chunk. Items found in the same chunk follow one another, so that metrics can be slightly lower than
those of `eval`, which gives them the same rank.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import quote

from dify_kb.errors import ConfigError

from .evaluation_queries import find_ranks, unique_records

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from dify_kb.models import Record

    from .evaluation_queries import EvaluationQuery


def list_found(number: int, query: EvaluationQuery, records: Sequence[Record]) -> Sequence[str]:
    """Return the ids of the results of a query, by rank. `number` counts queries from 0."""
    ids = _item_ids(number, query)
    found: dict[str, None] = {}
    ranks = find_ranks(query, records)
    for rank, record in enumerate(unique_records(records), 1):
        items = [name for name, first in zip(ids, ranks, strict=True) if first == rank]
        found.update(dict.fromkeys(items or [record.segment.id]))
    return list(found)


def format_qrels(queries: Sequence[EvaluationQuery]) -> str:
    """Return the relevant items of all queries, one per line."""
    return "".join(
        f"q{number + 1} 0 {name} 1\n"
        for number, query in enumerate(queries)
        for name in dict.fromkeys(_item_ids(number, query))
    )


def format_run(name: str, found: Sequence[Sequence[str]]) -> str:
    """Return the results of one search method. Scores are only in the order of ranks."""
    tag = _file_stem(name)
    return "".join(
        f"q{number} Q0 {document} {rank} {len(documents) - rank + 1} {tag}\n"
        for number, documents in enumerate(found, 1)
        for rank, document in enumerate(documents, 1)
    )


def write_trec_files(
    folder: Path, queries: Sequence[EvaluationQuery], runs: Mapping[str, Sequence[Sequence[str]]]
) -> None:
    """Write the files of an evaluation into a folder, which is created if necessary.

    Args:
        runs: the results of each search method, by query, from `list_found()`.

    Raises:
        ConfigError: the folder cannot be written.
    """
    texts = (" ".join(query.query.split()) for query in queries)
    files = {
        "qrels.txt": format_qrels(queries),
        "queries.tsv": "".join(f"q{number}\t{text}\n" for number, text in enumerate(texts, 1)),
        **{f"{_file_stem(name)}.run": format_run(name, found) for name, found in runs.items()},
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"Cannot write to {folder}: {error.strerror}.", hint="Pass a writable folder to --trec."
        ) from error


def _item_ids(number: int, query: EvaluationQuery) -> Sequence[str]:
    # Fields are separated by spaces.
    return [
        quote(item.document, safe="/:~+,;=@()") if item.document else f"q{number + 1}.{index}"
        for index, item in enumerate(query.relevant, 1)
    ]


def _file_stem(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name).strip("-")
