"""Documents of a benchmark: generated manuals, or files of the user.

Manuals differ in language, format and size, and are the same for the same seed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from attrs import frozen

from dify_kb.errors import ConfigError
from dify_kb.ingest.sources.document_names import document_name, file_extension
from dify_kb.models import DOCUMENT_EXTENSIONS, MAX_FILE_SIZE, MAX_QUERY_LENGTH

from .file_formats import WRITERS
from .languages import ENGLISH, LANGUAGES, Language
from .random_text import Manual, Question, StableRandom, generate_manual

if TYPE_CHECKING:
    from pathlib import Path

SEED = 20

FORMAT_SHARES: Mapping[str, int] = {
    "md": 5, "pdf": 4, "docx": 4, "html": 3, "txt": 2, "xlsx": 1, "csv": 1,
}  # fmt: skip
"""Shares of the formats in twenty documents, by extension."""

MEDIAN, SPREAD, SMALLEST, LARGEST = 6000, 1.2, 400, 1_000_000
"""Bytes of text, and the standard deviation of their logarithm. File sizes are log-normal with a
median of 4 KiB and a long tail in the study of 60,000 file systems by Agrawal and others (FAST
2007); documents with text are a little larger."""

MODELS = ("Korvan", "Belisar", "Tundra", "Meridian", "Okapi", "Quasar", "Zephyr", "Larix")

TEXT_EXTENSIONS = frozenset({"txt", "md", "markdown", "mdx", "csv", "vtt", "properties"})
"""Extensions of files whose lines are used as queries."""

QUERY_LENGTHS = (20, 200)
"""Minimum and maximum length of a line used as a query, in characters."""


@frozen(kw_only=True)
class Sample:
    """A document and the questions that it answers, which are unknown for files of the user."""

    name: str
    data: bytes
    questions: Sequence[Question] = ()


def generate_documents(
    count: int, *, seed: int = SEED, formats: Mapping[str, int] = FORMAT_SHARES
) -> Iterator[Sample]:
    """Generate documents. Names are unique and contain the language code.

    Args:
        formats: shares by extension; the extensions must be in `FORMAT_SHARES`.
    """
    rng = StableRandom(seed)
    extensions = [extension for extension, share in formats.items() for _ in range(share)]
    weighted_languages = [language for language, share in LANGUAGES.values() for _ in range(share)]
    for number in range(count):
        language, extension = rng.choice(weighted_languages), rng.choice(extensions)
        if extension == "pdf" and not language.latin:
            extension = "docx" if "docx" in formats else extensions[0]
        # Consecutive names are similar, as in real folders.
        model = MODELS[number % len(MODELS)]
        product = f"{model} {100 + 10 * (number // len(MODELS))}"
        name = f"{product.replace(' ', '-').lower()}.{language.code}.{extension}"
        size = rng.log_normal_size(MEDIAN, SPREAD, SMALLEST, LARGEST)
        manual = generate_manual(rng, language, product, size)
        yield _build_sample(name, language, extension, manual)


def generate_html_page(size: int) -> bytes:
    """Return an HTML page of exactly `size` bytes (at least 400).

    Beyond 3,000 bytes the page is filled by an image, as in large files of real folders: the
    server receives a large upload and has little to index.
    """
    sections = generate_manual(StableRandom(SEED), ENGLISH, "Korvan 100", min(size // 2, 3000))
    text = WRITERS["html"](sections)[: max(0, size - 100)]
    head = b'\n<img alt="" src="data:image/png;base64,'
    return text + head + b"A" * (size - len(text) - len(head) - 3) + b'">\n'


def _build_sample(name: str, language: Language, extension: str, manual: Manual) -> Sample:
    return Sample(
        name=name,
        data=WRITERS[extension](manual),
        questions=[
            Question(
                query=section.query, document=name, answer=section.answer, language=language.code
            )
            for section in manual.sections
        ],
    )


def read_user_files(folder: Path, *, documents: int, size: int) -> Sequence[Sample]:
    """Read a random sample of the files of a folder that the server accepts.

    The sample is the same each time. Hidden files are skipped.

    Args:
        documents: maximum number of files.
        size: maximum total size, in bytes.

    Raises:
        ConfigError: not a directory, or no file is accepted by servers.
    """
    if not folder.is_dir():
        raise ConfigError(f"Not a directory: {folder}.", hint="Pass a folder with documents.")
    paths = sorted(path for path in folder.rglob("*") if _is_loadable(path, folder))
    rng, chosen_files, remaining = StableRandom(SEED), list[Sample](), size
    while paths and len(chosen_files) < documents:
        path = paths.pop(rng.integer_below(len(paths)))
        if path.stat().st_size <= remaining:
            data = path.read_bytes()
            remaining -= len(data)
            chosen_files.append(
                Sample(name=document_name(path.relative_to(folder).as_posix()), data=data)
            )
    if not chosen_files:
        raise ConfigError(
            f"No supported documents in {folder}.",
            hint=f"Supported: {', '.join(sorted(DOCUMENT_EXTENSIONS))}, up to 15 MiB.",
        )
    return chosen_files


def queries_for_samples(samples: Sequence[Sample], count: int) -> Sequence[str]:
    """Return queries related to the documents, for searches whose results are not evaluated."""
    known_queries = [question.query for sample in samples for question in sample.questions]
    lines = known_queries or [line for sample in samples for line in _text_lines(sample)]
    rng = StableRandom(SEED)
    queries = [rng.choice(lines)[:MAX_QUERY_LENGTH] for _ in range(count)] if lines else []
    return queries or [re.sub(r"[\W_]+", " ", sample.name) for sample in samples]


def _text_lines(sample: Sample) -> Sequence[str]:
    if file_extension(sample.name) not in TEXT_EXTENSIONS:
        return []
    text = sample.data[:100_000].decode(errors="ignore")
    lines = (" ".join(line.split()) for line in text.splitlines())
    return [line[: QUERY_LENGTHS[1]] for line in lines if len(line) >= QUERY_LENGTHS[0]]


def _is_loadable(path: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    supported = file_extension(path.name) in DOCUMENT_EXTENSIONS
    return not hidden and supported and path.is_file() and 0 < path.stat().st_size <= MAX_FILE_SIZE
