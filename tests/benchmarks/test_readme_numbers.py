"""The numbers in the README and the guide are those of the committed runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import readme_numbers


@pytest.mark.parametrize(
    "path", [readme_numbers.README, readme_numbers.GUIDE], ids=["readme", "guide"]
)
def test_written_numbers_are_those_of_the_committed_runs(path: Path) -> None:
    """`python benchmarks/readme_numbers.py` writes them; none is written by hand."""
    assert readme_numbers.read_written_part(path) == readme_numbers.render_files()[path]


def test_readme_table_is_small() -> None:
    table = readme_numbers.render_readme_table(readme_numbers.read_run("client"))

    assert sum(line.startswith("|") for line in table.splitlines()) <= 2 + 8


def test_missing_marker_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text(readme_numbers.BEGIN)

    with pytest.raises(ValueError, match="Missing marker"):
        readme_numbers.read_written_part(path)


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
