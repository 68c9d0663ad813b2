"""A keyword and vector index of segments in SQLite."""

from __future__ import annotations

import heapq
import json
import math
from sqlite3 import Connection
from typing import TYPE_CHECKING, NamedTuple

from attrs import frozen

from .embedding import embed
from .tokenize import remove_stop_words, tokenize

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

_MAX_QUERY_WORDS = 256
"""Maximum distinct words of a query; the API's queries have fewer (at most 250 characters)."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS indexed_dataset (
    number INTEGER PRIMARY KEY,
    dataset_id TEXT NOT NULL UNIQUE
);
CREATE TABLE IF NOT EXISTS indexed_segment (
    number INTEGER PRIMARY KEY,
    segment_id TEXT NOT NULL UNIQUE,
    document_id TEXT NOT NULL,
    dataset INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS indexed_segment_document ON indexed_segment (document_id);
CREATE INDEX IF NOT EXISTS indexed_segment_dataset ON indexed_segment (dataset);
CREATE TABLE IF NOT EXISTS indexed_vector (
    number INTEGER PRIMARY KEY,
    dataset INTEGER NOT NULL,
    length REAL NOT NULL,
    vector BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS indexed_vector_dataset ON indexed_vector (dataset);
"""

_SEARCH = """
SELECT segment_id, -score FROM (
    SELECT rowid, bm25({table}) AS score FROM {table}
    WHERE {table} MATCH :words
    ORDER BY score, rowid LIMIT :limit
) AS found JOIN indexed_segment ON number = found.rowid
ORDER BY score, number
"""

# The plus prevents SQLite from running the full-text query once per segment of the documents.
_SEARCH_DOCUMENTS = _SEARCH.replace(
    ":words\n",
    """:words AND +{table}.rowid IN (
        SELECT number FROM indexed_segment
        WHERE document_id IN (SELECT value FROM json_each(:documents))
    )
""",
)

_SELECT_VECTORS = "SELECT number, length, vector FROM indexed_vector WHERE dataset = :dataset"
_SELECT_VECTORS_OF_DOCUMENTS = _SELECT_VECTORS.replace(
    ":dataset",
    """:dataset AND number IN (
        SELECT number FROM indexed_segment
        WHERE document_id IN (SELECT value FROM json_each(:documents))
    )""",
)

_DELETE_DOCUMENT = "DELETE FROM indexed_segment WHERE document_id = ? RETURNING dataset, number"
_DELETE_SEGMENTS = """
DELETE FROM indexed_segment WHERE segment_id IN (SELECT value FROM json_each(?))
RETURNING dataset, number
"""


class IndexedSegment(NamedTuple):
    """A segment to index."""

    segment_id: str
    dataset_id: str
    document_id: str
    content: str


@frozen
class SearchHit:
    """A segment found by a search. A higher `score` is better; scores are comparable within one
    search: BM25 for words, cosine similarity (0 to 1) for vectors.
    """

    segment_id: str
    score: float


@frozen
class SearchIndex:
    """A keyword and vector index of segments, in separate tables of the given database.

    One FTS5 table per dataset: other datasets affect neither the cost nor the scores of a search.
    Nothing is committed; the caller owns the transactions and the thread. Parts of segments, such
    as child chunks, can be indexed under separate ids.
    """

    database: Connection

    def __attrs_post_init__(self) -> None:
        for statement in _SCHEMA.split(";"):
            self.database.execute(statement)

    def add(self, rows: Iterable[tuple[str, str, str, str]], *, vectors: bool = False) -> None:
        """Add `IndexedSegment` rows; a row replaces an indexed segment with the same id.

        `vectors` makes `search_vectors` find them too; each vector costs 0.5 KB and about 0.1 ms.
        """
        latest = {row[0]: IndexedSegment(*row) for row in rows}
        self.remove_segments(latest)
        tables = {
            dataset_id: self._ensure_table(dataset_id)
            for dataset_id in dict.fromkeys(row.dataset_id for row in latest.values())
        }
        for row in latest.values():
            number = self.database.execute(
                "INSERT INTO indexed_segment (segment_id, document_id, dataset) VALUES (?, ?, ?)",
                (row.segment_id, row.document_id, tables[row.dataset_id]),
            ).lastrowid
            self.database.execute(
                _with_table(
                    tables[row.dataset_id], "INSERT INTO {table} (rowid, words) VALUES (?, ?)"
                ),
                (number, " ".join(tokenize(row.content))),
            )
            if vectors:
                self._insert_vector(number, tables[row.dataset_id], row.content)

    def remove_document(self, document_id: str) -> None:
        """Remove the segments of a document from all datasets."""
        self._delete_rows(_DELETE_DOCUMENT, document_id)

    def remove_segments(self, segment_ids: Iterable[str]) -> None:
        """Remove segments; unknown ids are ignored."""
        self._delete_rows(_DELETE_SEGMENTS, json.dumps([*segment_ids]))

    def remove_dataset(self, dataset_id: str) -> None:
        """Remove a dataset. This drops a table, so the connection must not have open cursors."""
        number = self._dataset_number(dataset_id)
        if number is None:
            return
        self.database.execute(_with_table(number, "DROP TABLE {table}"))
        self.database.execute("DELETE FROM indexed_segment WHERE dataset = ?", (number,))
        self.database.execute("DELETE FROM indexed_vector WHERE dataset = ?", (number,))
        self.database.execute("DELETE FROM indexed_dataset WHERE number = ?", (number,))

    def search(
        self,
        dataset_id: str,
        query: str,
        limit: int,
        document_ids: Collection[str] | None = None,
        *,
        all_words: bool = False,
    ) -> list[SearchHit]:
        """Return at most `limit` segments that contain any word of `query`, best first.

        Segments are ranked by BM25; equal scores keep the order of indexing. The query is plain
        text without special characters. `document_ids` restricts the search to these documents;
        their number is unlimited. With `all_words` a segment must contain all words of the query
        except stop words.
        """
        number = self._dataset_number(dataset_id)
        query_words = [*dict.fromkeys(tokenize(query))][:_MAX_QUERY_WORDS]
        if all_words:
            query_words = sorted(remove_stop_words(query_words))
        if number is None or not query_words or limit <= 0:
            return []
        matches = self.database.execute(
            _with_table(number, _SEARCH if document_ids is None else _SEARCH_DOCUMENTS),
            {
                "words": (" AND " if all_words else " OR ").join(
                    f'"{word}"' for word in query_words
                ),
                "documents": json.dumps([*(document_ids or ())]),
                "limit": limit,
            },
        )
        return [SearchHit(segment_id=segment_id, score=score) for segment_id, score in matches]

    def count_segments_with(self, dataset_id: str, word: str) -> int:
        """Count the segments that contain a word of `tokenize`; slower for more common words."""
        number = self._dataset_number(dataset_id)
        if number is None:
            return 0
        count = "SELECT count(*) FROM {table} WHERE {table} MATCH ?"
        row: tuple[int] = self.database.execute(
            _with_table(number, count), (f'"{word}"',)
        ).fetchone()
        return row[0]

    def search_vectors(
        self,
        dataset_id: str,
        query: str,
        limit: int,
        document_ids: Collection[str] | None = None,
    ) -> list[SearchHit]:
        """Return the `limit` segments with the vectors most similar to that of `query`, best first.

        There is no minimum similarity; equal scores keep the order of indexing. Reads every vector:
        18 ms for 10,000 (measured on one core).
        """
        dataset = self._dataset_number(dataset_id)
        if dataset is None or limit <= 0:
            return []
        query_bits = int.from_bytes(embed(query), "little")
        query_length = math.sqrt(query_bits.bit_count()) or 1.0
        rows = self.database.execute(
            _SELECT_VECTORS if document_ids is None else _SELECT_VECTORS_OF_DOCUMENTS,
            {"dataset": dataset, "documents": json.dumps([*(document_ids or ())])},
        )
        best = heapq.nsmallest(
            limit,
            (
                (-(query_bits & int.from_bytes(vector, "little")).bit_count() / length, number)
                for number, length, vector in rows
            ),
        )
        ids = self._segment_ids([number for _, number in best])
        return [
            SearchHit(segment_id=ids[number], score=-score / query_length) for score, number in best
        ]

    def _segment_ids(self, numbers: Iterable[int]) -> dict[int, str]:
        rows = self.database.execute(
            "SELECT number, segment_id FROM indexed_segment"
            " WHERE number IN (SELECT value FROM json_each(?))",
            (json.dumps([*numbers]),),
        )
        return dict(rows.fetchall())

    def _insert_vector(self, number: int | None, dataset: int, content: str) -> None:
        vector = embed(content)
        # A text without words has an empty vector; its similarity to every query is 0.
        length = math.sqrt(int.from_bytes(vector, "little").bit_count()) or 1.0
        self.database.execute(
            "INSERT INTO indexed_vector VALUES (?, ?, ?, ?)", (number, dataset, length, vector)
        )

    def _dataset_number(self, dataset_id: str) -> int | None:
        row: tuple[int] | None = self.database.execute(
            "SELECT number FROM indexed_dataset WHERE dataset_id = ?", (dataset_id,)
        ).fetchone()
        return row[0] if row else None

    def _ensure_table(self, dataset_id: str) -> int:
        existing = self._dataset_number(dataset_id)
        if existing is not None:
            return existing
        number: int
        (number,) = self.database.execute(
            "INSERT INTO indexed_dataset (dataset_id) VALUES (?) RETURNING number", (dataset_id,)
        ).fetchone()
        # The ascii tokenizer treats every non-ASCII character as part of a word. So it finds
        # exactly the given words, independently of SQLite's Unicode version.
        self.database.execute(
            _with_table(
                number, "CREATE VIRTUAL TABLE {table} USING fts5 (words, tokenize = 'ascii')"
            )
        )
        return number

    def _delete_rows(self, statement: str, value: str) -> None:
        for dataset, number in self.database.execute(statement, (value,)).fetchall():
            self.database.execute(
                _with_table(dataset, "DELETE FROM {table} WHERE rowid = ?"), (number,)
            )
            self.database.execute("DELETE FROM indexed_vector WHERE number = ?", (number,))


def _with_table(dataset: int, statement: str) -> str:
    """Insert the name of a dataset's full-text table into a statement."""
    return statement.replace("{table}", f"indexed_words_{dataset:d}")
