from __future__ import annotations

import random
from pathlib import Path

import pytest
import pytrec_eval
from attrs import frozen

from dify_kb.bench.metrics import Ranks, ndcg, recall, reciprocal_rank
from dify_kb.bench.quality.evaluation_queries import EvaluationQuery, RelevantItem, find_ranks
from dify_kb.bench.quality.trec_files import (
    format_qrels,
    format_run,
    list_found,
    write_trec_files,
)
from dify_kb.errors import ConfigError
from dify_kb.models import Record
from dify_kb.wire import codec

DEPTH, CUTOFFS = 10, (1, 3, 5, 10)


def record(chunk: str, document: str, content: str) -> Record:
    return codec.decode(
        Record,
        {
            "segment": {
                "id": chunk,
                "content": content,
                "document_id": f"id-{document}",
                "document": {"id": f"id-{document}", "name": document},
            },
            "score": 0.5,
        },
    )


@frozen(kw_only=True)
class RandomResults:
    """Random results of a query, without two items in one chunk."""

    query: EvaluationQuery
    records: list[Record]

    @property
    def ranks(self) -> Ranks:
        return find_ranks(self.query, self.records)


def draw_results(rng: random.Random) -> RandomResults:
    items = [
        RelevantItem(document=f"manual {number}.md")
        if rng.random() < 0.5
        else RelevantItem(text=f"answer {number}!")
        for number in range(rng.randint(1, 5))
    ]
    records = [record(f"c{index}", f"other{index}.md", "nothing") for index in range(20)]
    for number, item in enumerate(items):
        if rng.random() < 0.7:
            records.append(
                record(f"r{number}", item.document or "answers.md", f"It is {item.text or 'so'}")
            )
    rng.shuffle(records)
    query = EvaluationQuery(query="q", relevant=items)
    return RandomResults(query=query, records=records[:DEPTH])


def test_metrics_equal_those_of_trec_eval() -> None:
    rng = random.Random(7)
    results = [draw_results(rng) for _ in range(500)]
    qrels = format_qrels([result.query for result in results])
    run = format_run(
        "500 characters, hybrid 0.5",
        [list_found(number, each.query, each.records) for number, each in enumerate(results)],
    )
    measures = {
        f"recall.{','.join(map(str, CUTOFFS))}",
        f"ndcg_cut.{','.join(map(str, CUTOFFS))}",
        "recip_rank",
    }

    evaluator = pytrec_eval.RelevanceEvaluator(pytrec_eval.parse_qrel(qrels.splitlines()), measures)
    expected = evaluator.evaluate(pytrec_eval.parse_run(run.splitlines()))

    assert len(expected) == len(results)
    for number, result in enumerate(results, 1):
        known = expected[f"q{number}"]
        for k in CUTOFFS:
            assert recall(result.ranks, k) == pytest.approx(known[f"recall_{k}"])
            assert ndcg(result.ranks, k) == pytest.approx(known[f"ndcg_cut_{k}"])
        assert reciprocal_rank(result.ranks, DEPTH) == pytest.approx(known["recip_rank"])


def test_files_have_documents_texts_and_other_chunks(tmp_path: Path) -> None:
    query = EvaluationQuery(
        query="How do\tI reset it?",
        relevant=[RelevantItem(document="a b.md"), RelevantItem(text="red button")],
    )
    records = [
        record("c1", "other.md", "nothing"),
        record("c2", "a b.md", "Hold the Red  button."),
        record("c2", "a b.md", "Hold the Red  button."),
        record("c3", "a b.md", "More."),
    ]
    folder = tmp_path / "new" / "trec"

    write_trec_files(folder, [query], {"Docs, semantic": [list_found(0, query, records)]})

    assert (folder / "qrels.txt").read_text() == "q1 0 a%20b.md 1\nq1 0 q1.2 1\n"
    assert (folder / "queries.tsv").read_text() == "q1\tHow do I reset it?\n"
    assert (folder / "Docs-semantic.run").read_text().splitlines() == [
        "q1 Q0 c1 1 4 Docs-semantic",
        "q1 Q0 a%20b.md 2 3 Docs-semantic",
        "q1 Q0 q1.2 3 2 Docs-semantic",
        "q1 Q0 c3 4 1 Docs-semantic",
    ]


def test_folder_that_cannot_be_written_is_a_configuration_error(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")

    with pytest.raises(ConfigError, match="Cannot write to"):
        write_trec_files(file / "trec", [], {})
