"""The corpus: manuals of several languages, formats and sizes, the same for the same seed. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from attrs import frozen

from .chance import Chance
from .formats import WRITERS
from .manual import Manual, Question, manual
from .tongues import ENGLISH, TONGUES, Tongue

SEED = 20

FORMATS: Mapping[str, int] = {
    "md": 5, "pdf": 4, "docx": 4, "html": 3, "txt": 2, "xlsx": 1, "csv": 1,
}  # fmt: skip
"""Formats by extension, and the share of each in twenty documents."""

MEDIAN, SPREAD, SMALLEST, LARGEST = 6000, 1.2, 400, 1_000_000
"""Bytes of text, and the standard deviation of their logarithm. File sizes are log-normal with a
median of 4 KiB and a long tail in the study of 60,000 file systems by Agrawal and others (FAST
2007); documents with text lie a little above it."""

MODELS = ("Korvan", "Belisar", "Tundra", "Meridian", "Okapi", "Quasar", "Zephyr", "Larix")


@frozen(kw_only=True)
class Sample:
    """A document: its name, its bytes, and what it answers. A document of the user's own answers
    nothing that we know of.
    """

    name: str
    data: bytes
    questions: Sequence[Question] = ()


def corpus(
    count: int, *, seed: int = SEED, formats: Mapping[str, int] = FORMATS
) -> Iterator[Sample]:
    """Write so many documents, one after the other. Names are unique, and say the language.

    Args:
        formats: shares by extension, of those in `FORMATS`.
    """
    chance = Chance(seed)
    drawn = [extension for extension, share in formats.items() for _ in range(share)]
    spoken = [tongue for tongue, share in TONGUES.values() for _ in range(share)]
    for number in range(count):
        tongue, extension = chance.pick(spoken), chance.pick(drawn)
        if extension == "pdf" and not tongue.latin:
            extension = "docx" if "docx" in formats else drawn[0]
        # Neighbours in the alphabet have much in common, as in real folders.
        model = MODELS[number % len(MODELS)]
        product = f"{model} {100 + 10 * (number // len(MODELS))}"
        name = f"{product.replace(' ', '-').lower()}.{tongue.code}.{extension}"
        size = chance.size(MEDIAN, SPREAD, SMALLEST, LARGEST)
        written = manual(chance, tongue, product, size)
        yield _sample(name, tongue, extension, written)


def page_of(size: int) -> bytes:
    """Write an HTML page of exactly `size` bytes (400 at least) for the price of a small one.

    Beyond 3,000 bytes it is a picture, as in large files of real folders, so that the server has
    the upload to do and little to index.
    """
    sections = manual(Chance(SEED), ENGLISH, "Korvan 100", min(size // 2, 3000))
    text = WRITERS["html"](sections)[: max(0, size - 100)]
    head = b'\n<img alt="" src="data:image/png;base64,'
    return text + head + b"A" * (size - len(text) - len(head) - 3) + b'">\n'


def _sample(name: str, tongue: Tongue, extension: str, written: Manual) -> Sample:
    return Sample(
        name=name,
        data=WRITERS[extension](written),
        questions=[
            Question(
                query=section.query, document=name, answer=section.answer, language=tongue.code
            )
            for section in written.sections
        ],
    )
