"""The README's figures are those of the committed runs."""

from __future__ import annotations

import pytest
import readme_numbers


def test_readme_numbers_are_those_of_the_committed_runs() -> None:
    """`python benchmarks/readme_numbers.py` writes them; none is written by hand."""
    numbers = readme_numbers.render_numbers(
        readme_numbers.read_run("client"), readme_numbers.read_run("scale")
    )

    _, _, rest = readme_numbers.README.read_text().partition(readme_numbers.BEGIN)
    assert rest.partition(readme_numbers.END)[0].strip("\n") == numbers


@pytest.mark.parametrize("name", ["client", "scale"])
def test_committed_run_has_machine_versions_and_ratios(name: str) -> None:
    run = readme_numbers.read_run(name)

    assert run["machine"]["cpus"] >= 1
    assert run["machine"]["processor"]
    assert {"dify-kb", "aiohttp"} <= run["versions"].keys()
    for table in run["tables"].values():
        for floor in table["floors"]:
            for figure in table["figures"].values():
                assert "problem" in figure or figure["ratios"][floor]["median"] >= 0


def test_committed_run_is_complete_and_of_a_clean_tree() -> None:
    run = readme_numbers.read_run("client")

    assert run["options"] == {"quick": False, "uvloop": False}
    assert not run["commit"].endswith("-dirty")
    assert not readme_numbers.read_run("scale")["commit"].endswith("-dirty")
