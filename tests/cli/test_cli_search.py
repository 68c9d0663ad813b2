"""`search`: methods of a dataset, and errors that are raised before the request."""

from __future__ import annotations

import pytest
from cli_runner import Cli, called_endpoints, parse_error, parse_json_lines

from dify_kb.emulator import Emulator

WHERE = ["--dataset", "base"]


@pytest.fixture(params=["high_quality"])
def base(cli: Cli, request: pytest.FixtureRequest) -> None:
    """Create a dataset with two documents about animals."""
    cli("datasets", "create", "base", "--technique", request.param)
    for name, text in (("wombat.txt", "Wombats dig burrows."), ("bat.txt", "Bats fly at night.")):
        cli("documents", "create", *WHERE, "--name", name, "--text", text, "--wait")


economy = pytest.mark.parametrize("base", ["economy"], indirect=True)


@pytest.mark.usefixtures("base")
@pytest.mark.parametrize("method", ["semantic", "full_text", "hybrid"])
def test_high_quality_dataset_supports_three_methods(cli: Cli, method: str) -> None:
    code, out, _ = cli("search", *WHERE, "burrows", "--method", method, "--top-k", "1", "--json")

    assert code == 0
    assert [row["segment"]["document"]["name"] for row in parse_json_lines(out)] == ["wombat.txt"]


@economy
@pytest.mark.usefixtures("base")
def test_economy_dataset_supports_keyword_search(cli: Cli) -> None:
    code, out, _ = cli("search", *WHERE, "burrows", "--json")

    assert code == 0
    assert [row["segment"]["document"]["name"] for row in parse_json_lines(out)] == ["wombat.txt"]


@economy
@pytest.mark.usefixtures("base")
def test_the_order_of_results_without_scores_is_explained(cli: Cli) -> None:
    """Since 1.12, the server returns the results of a keyword search in no order (measured)."""
    code, out, err = cli("search", *WHERE, "night burrows wombats")

    assert code == 0
    assert out.index("wombat.txt") < out.index("\n2. bat.txt")
    assert "sorted by the number of words that they share with the query" in " ".join(err.split())


@economy
@pytest.mark.usefixtures("base")
@pytest.mark.parametrize(
    ("options", "what"),
    [
        (
            ["--method", "hybrid"],
            "Dataset 'base' is economy and does not support the search method 'hybrid'.",
        ),
        (
            ["--score-threshold", "0.5"],
            "A score threshold cannot be used with keyword search, which has no scores.",
        ),
    ],
)
def test_unsupported_options_of_an_economy_dataset_are_errors(
    cli: Cli, emulator: Emulator, options: list[str], what: str
) -> None:
    """The server would return a database error, or ignore the threshold."""
    code, _, err = cli("search", *WHERE, "burrows", *options)

    assert (code, parse_error(err)[0]) == (2, what)
    assert "datasets.retrieve" not in called_endpoints(emulator)


@pytest.mark.usefixtures("base")
def test_keyword_search_of_a_high_quality_dataset_is_an_error(cli: Cli) -> None:
    """The server finds nothing with keyword search (recording 934)."""
    code, _, err = cli("search", *WHERE, "burrows", "--method", "keyword")

    assert code == 2
    assert parse_error(err)[1] == "Use the method semantic, full_text or hybrid."
