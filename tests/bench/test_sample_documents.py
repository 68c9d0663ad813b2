from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from dify_kb.bench.corpus import (
    FORMAT_SHARES,
    generate_documents,
    generate_html_page,
    queries_for_samples,
    read_user_files,
)
from dify_kb.bench.corpus.random_text import StableRandom
from dify_kb.bench.quality.evaluation_queries import fold_text, read_queries
from dify_kb.cli import run
from dify_kb.errors import ConfigError
from dify_kb.models import MAX_QUERY_LENGTH
from dify_kb.rag.extract import extract


def extension(name: str) -> str:
    return name.rpartition(".")[2]


def test_same_seed_generates_the_same_bytes() -> None:
    """Reports of two runs can only be compared if the corpus never changes."""
    written = [
        (sample.name, sample.data)
        for sample in generate_documents(30)
        if extension(sample.name) == "md"
    ]

    digest = hashlib.sha256(b"".join(name.encode() + data for name, data in written)).hexdigest()

    assert written == [
        (sample.name, sample.data)
        for sample in generate_documents(30)
        if extension(sample.name) == "md"
    ]
    assert digest[:16] == "a9f1d0496d2a7fa6"


def test_another_seed_generates_other_documents() -> None:
    assert next(generate_documents(1, seed=1)) != next(generate_documents(1, seed=2))


def test_every_format_and_language_is_generated_and_extractable() -> None:
    samples = list(generate_documents(120))

    assert {extension(sample.name) for sample in samples} == set(FORMAT_SHARES)
    assert {sample.name.split(".")[1] for sample in samples} == {"en", "de", "fr", "es", "zh", "ja"}
    assert len({sample.name for sample in samples}) == 120
    found = asked = 0
    for sample in samples:
        text = fold_text(" ".join(extract(sample.data, extension(sample.name))))
        found += sum(fold_text(question.answer) in text for question in sample.questions)
        asked += len(sample.questions)
    # A PDF page may end in the middle of a sentence.
    assert found >= 0.99 * asked > 1000


def test_sizes_have_a_long_tail() -> None:
    sizes = sorted(len(sample.data) for sample in generate_documents(150, formats={"txt": 1}))

    median = sizes[75]
    assert 3000 < median < 12000
    assert sizes[-1] > 8 * median
    assert sizes[0] < median / 4


def test_questions_fit_into_a_query() -> None:
    assert all(
        1 <= len(question.query) <= MAX_QUERY_LENGTH
        for sample in generate_documents(60)
        for question in sample.questions
    )


@pytest.mark.parametrize("size", [400, 4096, 100 * 1024, 5 * 1024 * 1024])
def test_html_page_has_the_requested_size_and_little_text(size: int) -> None:
    data = generate_html_page(size)

    assert len(data) == size
    assert 0 < len("".join(extract(data, "html"))) < 5000


def test_stable_random_stays_within_bounds() -> None:
    chance = StableRandom(1)

    assert {chance.integer_between(2, 4) for _ in range(200)} == {2, 3, 4}
    assert all(10 <= chance.log_normal_size(100, 3, 10, 500) <= 500 for _ in range(200))


def test_user_files_are_selected_within_limits(folder: Path) -> None:
    (folder / "sub").mkdir()
    for number in range(20):
        (folder / "sub" / f"{number}.md").write_text(f"This is a line of file number {number}.\n")
    (folder / "tool.exe").write_text("no")
    (folder / ".hidden.md").write_text("no")
    (folder / "empty.md").touch()

    chosen = read_user_files(folder, documents=5, size=10_000)

    assert len(chosen) == 5
    assert all(sample.name.startswith("sub__") for sample in chosen)
    assert chosen == read_user_files(folder, documents=5, size=10_000)
    assert len(read_user_files(folder, documents=100, size=100)) < 4
    assert all("line of file number" in query for query in queries_for_samples(chosen, 10))


def test_folder_without_documents_is_rejected(folder: Path) -> None:
    with pytest.raises(ConfigError, match="No supported documents"):
        read_user_files(folder, documents=5, size=10_000)
    with pytest.raises(ConfigError, match="Not a directory"):
        read_user_files(folder / "no", documents=5, size=10_000)


def test_corpus_command_writes_documents_and_queries(tmp_path: Path) -> None:
    assert run(["bench", "corpus", str(tmp_path / "new"), "--documents", "12"]) == 0

    assert len(list((tmp_path / "new" / "documents").iterdir())) == 12
    asked = read_queries(tmp_path / "new" / "queries.jsonl")
    assert len(asked) == 100
    first = json.loads((tmp_path / "new" / "queries.jsonl").read_text().splitlines()[0])
    assert first["query"] == asked[0].query
    assert run(["bench", "corpus", str(tmp_path / "new")]) == 2
