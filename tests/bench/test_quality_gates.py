from __future__ import annotations

import pytest
from attrs import evolve
from sample_reports import QUALITY

from dify_kb.bench.quality.evaluation_queries import EvaluationQuery, RelevantItem
from dify_kb.bench.quality.quality_gates import (
    Threshold,
    check_common_queries,
    find_missed_thresholds,
    find_regressions,
)
from dify_kb.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "value"),
    [("recall@3=0.8", 0.7), ("Recall@1=.5", 0.5), (" mrr=0.7", 0.6), ("ndcg=1", 0.6)],
)
def test_minimum_is_of_a_metric_of_the_best_row(text: str, value: float) -> None:
    threshold = Threshold.parse(text, 10)

    assert threshold.read(QUALITY.rows[0]) == value
    assert bool(find_missed_thresholds(QUALITY, [threshold])) == (value < threshold.minimum)


@pytest.mark.parametrize(
    "text", ["", "recall=0.8", "recall@0=1", "recall@11=1", "map=0.5", "mrr=80", "mrr", "ndcg=-1"]
)
def test_invalid_minimum_is_rejected(text: str) -> None:
    with pytest.raises(ConfigError, match="--min"):
        Threshold.parse(text, 10)


def test_missed_minimum_names_metric_row_and_values() -> None:
    (missed,) = find_missed_thresholds(QUALITY, [Threshold.parse("recall@3=0.8", 10)])

    assert missed == "recall@3 of 500 characters, semantic: 0.700 is below 0.8"


def test_regressions_are_worse_and_missing_rows() -> None:
    row = evolve(QUALITY.rows[0], ranks=[[1]] * 10)
    good = evolve(QUALITY, rows=[row, evolve(row, method="full text")])
    bad = evolve(QUALITY, rows=[evolve(row, ranks=[[None]] * 10)])

    found = find_regressions(good, bad)

    assert "semantic: MRR: 0.000 is worse than 1.000" in found
    assert found[-1] == "full text: not measured"
    assert find_regressions(bad, good) == []
    assert find_regressions(good, good) == []


def test_reports_without_common_queries_cannot_be_compared() -> None:
    queries = [
        EvaluationQuery(query=text, relevant=[RelevantItem(text="a")]) for text in QUALITY.asked
    ]

    check_common_queries(QUALITY, queries)
    with pytest.raises(ConfigError, match="Only 9 queries in common"):
        check_common_queries(QUALITY, queries[1:])
