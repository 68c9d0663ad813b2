"""Check an evaluation against minimum values and an earlier report, for CI."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from attrs import frozen

from dify_kb.bench.report_comparison import compare_quality, list_missing_parts
from dify_kb.bench.significance import MIN_QUERIES
from dify_kb.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dify_kb.bench.results import QualityReport, QualityRow

    from .evaluation_queries import EvaluationQuery

_THRESHOLD = re.compile(r"(?:recall@(?P<k>[1-9]\d{0,2})|mrr|ndcg)=(?P<value>\d*\.?\d+)")


@frozen(kw_only=True)
class Threshold:
    """The minimum of a metric: `recall@5=0.8`, `mrr=0.7`, `ndcg=0.75`."""

    metric: str
    k: int | None
    """The k of recall@k; None for MRR and nDCG, which are at the largest k."""

    minimum: float

    @classmethod
    def parse(cls, text: str, max_k: int) -> Threshold:
        """Parse a minimum.

        Raises:
            ConfigError: the text is not a minimum, or k exceeds `max_k`.
        """
        match = _THRESHOLD.fullmatch(text.strip().lower())
        value = float(match["value"]) if match else 2.0
        k = int(match["k"]) if match and match["k"] else None
        if match is None or value > 1 or (k or 0) > max_k:
            raise ConfigError(
                f"Invalid minimum {text!r} for --min.",
                hint=f"Pass recall@K=0.8 (K up to {max_k}), mrr=0.7 or ndcg=0.75.",
            )
        return cls(metric=match[0].partition("=")[0], k=k, minimum=value)

    def read(self, row: QualityRow) -> float:
        """Return the value of the metric in a row."""
        if self.k is not None:
            return row.recall[str(self.k)].value
        return row.mrr.value if self.metric == "mrr" else row.ndcg.value


def find_missed_thresholds(report: QualityReport, thresholds: Sequence[Threshold]) -> Sequence[str]:
    """Return a sentence per minimum that the best row, by nDCG, does not reach."""
    best = report.rows[0]
    return [
        f"{threshold.metric} of {best.base}, {best.method}: {threshold.read(best):.3f} is below"
        f" {threshold.minimum:g}"
        for threshold in thresholds
        if threshold.read(best) < threshold.minimum
    ]


def find_regressions(before: QualityReport, after: QualityReport) -> Sequence[str]:
    """Return a sentence per metric that is worse than before, or was not measured."""
    worse = [
        f"{row.name}: {row.after:.3f} is worse than {row.before:.3f}"
        for row in compare_quality(before, after)
        if row.verdict == "worse"
    ]
    return [*worse, *(f"{part}: not measured" for part in list_missing_parts(before, after))]


def check_common_queries(before: QualityReport, queries: Sequence[EvaluationQuery]) -> None:
    """Check before an evaluation that it can be compared with an earlier report.

    Raises:
        ConfigError: they have fewer than 10 queries in common.
    """
    common = len({query.query for query in queries} & {*before.asked})
    if common < MIN_QUERIES:
        raise ConfigError(
            f"Only {common} queries in common with the earlier report: too few to tell a change"
            " from chance.",
            hint=f"Compare evaluations with at least {MIN_QUERIES} common queries.",
        )
