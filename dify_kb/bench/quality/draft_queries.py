"""Draft queries with known answers from the texts of documents, without a language model. Pure.

Four kinds, in turn:

* `question`: a question of the text; the sentence after it is relevant.
* `heading`: a question about a heading; the first sentence below it is relevant.
* `words`: rare words of a passage; its document is relevant.
* `sentence`: a sentence of a passage; the passage with it is relevant.

Drafts are easier than questions of people, which use other words than the answer. They compare
settings of one server; the level of their scores means little until somebody has reviewed them.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence

from attrs import frozen

from dify_kb.bench.corpus.random_text import StableRandom
from dify_kb.models import MAX_QUERY_LENGTH
from dify_kb.rag.tokenize import remove_stop_words, tokenize

from .evaluation_queries import EvaluationQuery, RelevantItem, fold_text

SEED = 20

SENTENCE_LENGTHS = (15, 200)
"""Characters of a sentence; chunks split longer ones."""

HEADING_LENGTHS = (4, 80)

MIN_LETTERS = 0.6
"""The part of letters in a sentence, without spaces; less is code or a table."""

RARE_WORDS = 3
"""The words of a query of rare words."""

MIN_WORD_LENGTH = 4

_FENCED_CODE = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_NOT_PROSE = re.compile(r"\s*(?:[|$>{}<]|!\[|--)")
_LIST_MARKER = re.compile(r"\s*(?:[-*+•]|\d{1,3}[.)])\s+")
# The full-width ! ? 。 , : and ; of Chinese and Japanese are escaped.
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[\u3002\uff01\uff1f])")
_QUESTION = re.compile(r"[?\uff1f]$")
_HEADING = re.compile(r"(?:#+\s*)?([^\W_].*[^\s.,:;!\u3002\uff0c\uff1a\uff1b\uff01])")
_QUESTION_WORDS = re.compile(
    r"(?:how|what|when|where|which|who|why|can|do|does|is|are)\b", re.IGNORECASE
)


@frozen(kw_only=True)
class DraftPassage:
    """A text of a document: a section, a page or a chunk."""

    document: str
    """The name of the document."""

    text: str


@frozen(kw_only=True)
class _TextBlock:
    """A heading and the sentences below it."""

    document: str
    heading: str
    sentences: Sequence[str]


def draft_queries(passages: Sequence[DraftPassage], count: int) -> Sequence[EvaluationQuery]:
    """Return at most `count` drafts, from as many documents as possible; the same each time.

    Texts that occur more than once have no known answer and are left out.
    """
    blocks = [block for passage in passages for block in _split_blocks(passage)]
    known = Counter(fold_text(sentence) for block in blocks for sentence in block.sentences)
    blocks = [_keep_unique(block, known) for block in blocks]
    queues = {
        kind: _spread_over_documents(list(draft(blocks))) for kind, draft in _DRAFTERS.items()
    }
    drafts: dict[str, EvaluationQuery] = {}
    for kind in itertools.cycle(queues):
        if len(drafts) >= count or not any(queues.values()):
            break
        if queues[kind]:
            draft = queues[kind].pop(0)
            drafts.setdefault(fold_text(draft.query), draft)
    return list(drafts.values())


def _split_blocks(passage: DraftPassage) -> Iterator[_TextBlock]:
    """Split a text at its headings."""
    heading, lines = "", list[str]()
    text = _FENCED_CODE.sub("\n", passage.text)
    rows = [line.strip() for line in text.split("\n")]
    for before, line in itertools.pairwise(["", *rows]):
        if not before and _is_heading(line):
            yield _build_block(passage.document, heading, lines)
            heading, lines = _HEADING.fullmatch(line)[1], []  # type: ignore[index]  # is one
        else:
            lines.append("" if _NOT_PROSE.match(line) else line)
    yield _build_block(passage.document, heading, lines)


def _is_heading(line: str) -> bool:
    low, high = HEADING_LENGTHS
    return low <= len(line) <= high and _HEADING.fullmatch(line) is not None


def _build_block(document: str, heading: str, lines: Sequence[str]) -> _TextBlock:
    paragraphs: list[str] = [""]
    for line in lines:
        marker = _LIST_MARKER.match(line)
        if not line or marker:
            paragraphs.append("")
        paragraphs[-1] += f" {line[marker.end() :] if marker else line}"
    sentences = [
        sentence.strip() for text in paragraphs for sentence in _SENTENCE_END.split(text.strip())
    ]
    return _TextBlock(
        document=document, heading=heading, sentences=list(filter(_is_prose, sentences))
    )


def _is_prose(sentence: str) -> bool:
    low, high = SENTENCE_LENGTHS
    characters = fold_text(sentence)
    letters = sum(map(str.isalpha, characters))
    return low <= len(sentence) <= high and letters >= MIN_LETTERS * len(characters)


def _keep_unique(block: _TextBlock, known: Mapping[str, int]) -> _TextBlock:
    sentences = [sentence for sentence in block.sentences if known[fold_text(sentence)] == 1]
    return _TextBlock(document=block.document, heading=block.heading, sentences=sentences)


def _draft_from_questions(blocks: Sequence[_TextBlock]) -> Iterator[tuple[str, EvaluationQuery]]:
    for block in blocks:
        lines = [block.heading, *block.sentences] if block.heading else block.sentences
        for line, answer in itertools.pairwise(lines):
            if _QUESTION.search(line) and not _QUESTION.search(answer):
                yield block.document, _build_draft("question", line, RelevantItem(text=answer))


def _draft_from_headings(blocks: Sequence[_TextBlock]) -> Iterator[tuple[str, EvaluationQuery]]:
    for block in blocks:
        if block.heading and block.sentences and not _QUESTION.search(block.heading):
            query = _ask_about(block)
            yield (
                block.document,
                _build_draft("heading", query, RelevantItem(text=block.sentences[0])),
            )


def _draft_from_rare_words(blocks: Sequence[_TextBlock]) -> Iterator[tuple[str, EvaluationQuery]]:
    words = [tokenize(" ".join(block.sentences)) for block in blocks]
    counts = Counter(itertools.chain.from_iterable(words))
    spread: defaultdict[str, set[str]] = defaultdict(set)
    for block, listed in zip(blocks, words, strict=True):
        for word in listed:
            spread[word].add(block.document)
    for block, listed in zip(blocks, words, strict=True):
        long_words = [word for word in dict.fromkeys(listed) if len(word) >= MIN_WORD_LENGTH]
        rare = sorted(long_words, key=lambda word: (len(spread[word]), counts[word]))[:RARE_WORDS]
        if len(rare) == RARE_WORDS and len(spread[rare[0]]) == 1:
            query = " ".join(word for word in long_words if word in rare)
            yield (
                block.document,
                _build_draft("words", query, RelevantItem(document=block.document)),
            )


def _draft_from_sentences(blocks: Sequence[_TextBlock]) -> Iterator[tuple[str, EvaluationQuery]]:
    for block in blocks:
        # The first sentence answers the heading.
        for sentence in block.sentences[1:] or block.sentences:
            if not _QUESTION.search(sentence):
                item = RelevantItem(text=sentence)
                yield block.document, _build_draft("sentence", sentence, item)


_Drafter = Callable[[Sequence[_TextBlock]], Iterator[tuple[str, EvaluationQuery]]]

_DRAFTERS: Mapping[str, _Drafter] = {
    "question": _draft_from_questions,
    "heading": _draft_from_headings,
    "words": _draft_from_rare_words,
    "sentence": _draft_from_sentences,
}


def _ask_about(block: _TextBlock) -> str:
    """Return a question about a heading: in English if its text is, else the words alone."""
    title = re.sub(r"[\W_]+", " ", block.document.rpartition(".")[0] or block.document).strip()
    if _QUESTION_WORDS.match(block.heading):
        return f"{block.heading}?"
    if _is_english(" ".join(block.sentences)):
        return f"What does {title} say about {block.heading}?"
    return f"{title}: {block.heading}"


def _is_english(text: str) -> bool:
    words = {*tokenize(text)}
    return len(words - remove_stop_words(words)) >= 3  # noqa: PLR2004 -- names have one or two


def _build_draft(kind: str, query: str, item: RelevantItem) -> EvaluationQuery:
    return EvaluationQuery(query=query[:MAX_QUERY_LENGTH], relevant=[item], draft=kind)


def _spread_over_documents(
    drafts: Sequence[tuple[str, EvaluationQuery]],
) -> list[EvaluationQuery]:
    """Shuffle drafts: the first of each document, then the second of each, and so on."""
    rng = StableRandom(SEED)
    remaining, shuffled = list(drafts), list[tuple[str, EvaluationQuery]]()
    while remaining:
        shuffled.append(remaining.pop(rng.integer_below(len(remaining))))
    seen: Counter[str] = Counter()
    placed: list[tuple[int, EvaluationQuery]] = []
    for document, draft in shuffled:
        placed.append((seen[document], draft))
        seen[document] += 1
    return [draft for _, draft in sorted(placed, key=lambda entry: entry[0])]
