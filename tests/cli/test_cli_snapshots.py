"""Snapshots of the texts of the command line: the help tree and typical errors.

`UPDATE_SNAPSHOTS=1 pytest tests/cli/test_cli_snapshots.py` rewrites them; review their diff.
"""

from __future__ import annotations

import fcntl
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_runner import Cli, create_dataset_with_documents
from error_cases import SECTIONS, UNKNOWN_ID, ErrorCase
from text_snapshot import check_snapshot, mask_variable_parts

from dify_kb.emulator import Emulator

MIN_ERROR_CASES = 60


def help_pages(cli: Cli, *command: str) -> Iterator[str]:
    """Yield the help of a command and of its subcommands."""
    code, out, err = cli(*command, "--help")
    assert (code, err) == (0, "")
    yield f"$ dify-kb {' '.join([*command, '--help'])}\n{out}"
    listed = re.search(r"^Commands:\n((?:  .*\n)+)", out, re.MULTILINE)
    for line in listed[1].splitlines() if listed else ():
        if name := re.match(r"  (\S+)", line):
            yield from help_pages(cli, *command, name[1])


@pytest.fixture
def places(cli: Cli, emulator: Emulator, docs: Path, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Create a dataset, files and journals; yield the values of the braces in the cases."""
    create_dataset_with_documents(emulator, "a.txt", "readme.txt", "twin.txt")
    cli("documents", "disable", "--dataset", "base", "twin.txt")
    cli("documents", "create", "--dataset", "base", "--name", "twin.txt", "--text", "x")
    cli("metadata", "create", "--dataset", "base", "year", "--type", "number")
    cli("datasets", "create", "other", "--technique", "economy")
    paths = {name: tmp_path / f"{name}.db" for name in ("foreign", "locked", "damaged")}
    for path in paths.values():
        assert cli("load", str(docs), "--dataset", "other", "--journal", str(path))[0] == 0
    paths["damaged"].write_bytes(paths["damaged"].read_bytes()[:5000])
    paths["empty"] = tmp_path / "empty"
    paths["empty"].mkdir()
    paths["list"] = tmp_path / "list.txt"
    paths["list"].write_text("reset.md\n")
    with Path(f"{paths['locked']}-lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write('{"pid": 4321, "host": "build-7"}')
        lock.flush()
        yield {"docs": str(docs), "unknown": UNKNOWN_ID} | {k: str(v) for k, v in paths.items()}


def run_case(cli: Cli, emulator: Emulator, case: ErrorCase, places: dict[str, str]) -> str:
    """Run a command and return its faults, command line, output and exit code."""
    emulator.faults.clear()
    for endpoint, words in case.faults.items():
        emulator.faults.plan(endpoint, words)
    words = [word.format(**places).replace("_", " ") for word in case.words.split()]
    words = [word.replace(" ", "_") if "/" in word or "{" in word else word for word in words]
    with pytest.MonkeyPatch.context() as environment:
        if case.unset:
            environment.delenv(case.unset)
        code, out, err = cli(*words)
    assert code, words
    notes = f"# without {case.unset}\n" if case.unset else ""
    notes += "".join(
        f"# faults: {endpoint} {', '.join(words)}\n" for endpoint, words in case.faults.items()
    )
    command = " ".join(f"'{word}'" if " " in word else word for word in words)
    return f"{notes}$ dify-kb {command}\n{out}{err}exit {code}\n"


def test_help_of_all_commands_matches_the_snapshot(cli: Cli) -> None:
    check_snapshot("help.txt", "\n".join(help_pages(cli)))


@pytest.mark.timeout(120)
def test_typical_errors_match_the_snapshot(
    cli: Cli, emulator: Emulator, places: dict[str, str], tmp_path: Path
) -> None:
    root = emulator.url.removesuffix("/v1")
    known = {emulator.url: "http://server", root: "http://server", str(tmp_path): "<tmp>"}
    parts = []
    for section, cases in SECTIONS.items():
        parts.append(f"== {section} ==\n")
        for number, case in enumerate(cases, 1):
            places["new"] = str(tmp_path / f"{number}.db")
            parts.append(mask_variable_parts(run_case(cli, emulator, case, places), known))

    assert sum(map(len, SECTIONS.values())) >= MIN_ERROR_CASES
    check_snapshot("errors.txt", "\n".join(parts))
