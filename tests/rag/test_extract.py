"""Text extraction; cases 199 to 225 were recorded from a 1.12.1 server."""

from __future__ import annotations

import codecs
import io
import sys
import zipfile
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dify_kb.rag import ExtractError, extract

TEXT_FORMATS = ("txt", "md", "markdown", "mdx", "html", "htm", "csv", "vtt", "properties")


@pytest.fixture
def no_detector(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide charset_normalizer: the package must work without it."""
    monkeypatch.setitem(sys.modules, "charset_normalizer", None)


def test_text_is_one_text_with_unix_lines() -> None:
    assert extract(b"a\r\nb\rc", "txt") == ["a\nb\nc"]


def test_dot_and_case_of_the_extension_are_ignored() -> None:
    assert extract(b"a;b", ".TXT") == ["a;b"]


def test_byte_order_mark_is_kept() -> None:
    assert extract(codecs.BOM_UTF8 + b"a", "txt") == ["\ufeffa"]


def test_markdown_is_split_at_headings() -> None:
    texts = extract(b"# Title\n\npara one\n\n## Sub\n\npara two", "md")

    assert texts == ["", "\n\nTitle\npara one", "\n\nSub\npara two"]


def test_markdown_code_keeps_comments_and_does_not_hide_later_headings() -> None:
    texts = extract(b"```\n# no heading\n```\n# Yes\nx <b>bold</b> a < b", "md")

    assert texts == ["```\n# no heading\n```", "\n\nYes\nx bold a < b"]


def test_html_gives_its_text_without_scripts() -> None:
    page = (
        b"<html><head><style>p{}</style><script>if (a<b) x()</script></head><body><!-- c -->"
        b"<h1>Hi</h1><p>para &amp; more</p><template>t</template></body></html>"
    )

    assert extract(page, "html") == ["Hipara & more"]


@pytest.mark.usefixtures("no_detector")
def test_html_is_decoded_with_its_declared_encoding() -> None:
    page = '<meta charset="gbk"><p>数据库</p>'.encode("gbk")

    assert extract(page, "htm") == ["数据库"]


@pytest.mark.usefixtures("no_detector")
def test_unknown_declared_encoding_is_ignored() -> None:
    assert extract(b"<meta charset=nonsense><p>caf\xe9</p>", "html") == ["café"]


@pytest.mark.usefixtures("no_detector")
@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "utf-16"])
def test_other_encodings_are_decoded_without_a_detector(encoding: str) -> None:
    assert extract("café déjà vu".encode(encoding), "txt") == ["café déjà vu"]


def test_detector_is_used_if_utf8_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    class Detector:
        @staticmethod
        def from_bytes(content: bytes) -> Detector:
            assert content == b"\xff"
            return Detector()

        def best(self) -> str:
            return "guessed"

    monkeypatch.setitem(sys.modules, "charset_normalizer", Detector)

    assert extract(b"\xff", "txt") == ["guessed"]


@pytest.mark.usefixtures("no_detector")
def test_binary_named_txt_is_an_error() -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.txt", "a" * 100)

    for content in (archive.getvalue(), bytes(range(256)) * 4):
        with pytest.raises(ExtractError, match="Could not detect encoding"):
            extract(content, "txt")


def test_unsupported_formats_are_an_error() -> None:
    with pytest.raises(ExtractError, match=r"does not support \.pptx files"):
        extract(b"", "pptx")


@settings(deadline=None)
@given(content=st.binary(), extension=st.sampled_from(TEXT_FORMATS))
def test_any_bytes_are_texts_or_an_extract_error(content: bytes, extension: str) -> None:
    with suppress(ExtractError):
        assert all(isinstance(text, str) for text in extract(content, extension))
