"""Grouping of the operations of a commit into statements."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dify_kb.ingest.journal.group_commit import MAX_ROWS, EvaluatedOperation, Statement, group_rows


def intend(rows: int) -> str:
    return f"intend {rows}"


def accept(rows: int) -> str:
    return f"accept {rows}"


def make_operations(*operations: tuple[Statement, str]) -> list[EvaluatedOperation]:
    return [(place, statement, [key]) for place, (statement, key) in enumerate(operations)]


def group_positions(operations: list[EvaluatedOperation]) -> list[tuple[Statement, list[int]]]:
    return [(statement, [row[0] for row in rows]) for statement, rows in group_rows(operations)]


def test_rows_of_equal_statements_are_grouped() -> None:
    operations = make_operations((accept, "a"), (intend, "b"), (accept, "c"), (intend, "d"))

    assert group_positions(operations) == [(accept, [0, 2]), (intend, [1, 3])]


def test_rows_per_statement_are_bounded() -> None:
    operations = make_operations(*[(intend, str(number)) for number in range(2 * MAX_ROWS + 1)])

    assert [len(places) for _, places in group_positions(operations)] == [MAX_ROWS, MAX_ROWS, 1]


def test_statement_without_a_key_keeps_its_position() -> None:
    operations = make_operations((intend, "a"), ("UPDATE run", "1"), (intend, "b"))

    assert group_positions(operations) == [(intend, [0]), ("UPDATE run", [1]), (intend, [2])]


@given(
    st.lists(
        st.tuples(
            st.sampled_from([intend, accept, "UPDATE run"]), st.sampled_from("abcdefghijklmnopqrst")
        ),
        max_size=60,
    )
)
def test_every_operation_runs_once_and_in_order_per_key(
    operations: list[tuple[Statement, str]],
) -> None:
    places = [place for _, rows in group_positions(make_operations(*operations)) for place in rows]

    assert sorted(places) == list(range(len(operations)))
    for key in "abcdefghijklmnopqrst":
        own = [place for place in places if operations[place][1] == key]
        assert own == sorted(own)
