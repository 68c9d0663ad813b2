"""Multipart bodies, verified with two other parsers."""

from __future__ import annotations

import json
from email.parser import BytesParser
from email.policy import HTTP
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dify_kb.models import CreateByFile, DocForm, File, ProcessRule
from dify_kb.wire.multipart import build_multipart

if TYPE_CHECKING:
    from email.message import MIMEPart
    from pathlib import Path


def make_request(name: str = "a.txt", content: bytes = b"hello") -> CreateByFile:
    return CreateByFile(
        file=File(name=name, content=content, size=len(content)), doc_form=DocForm.QA
    )


def join_body(body: CreateByFile) -> tuple[str, bytes]:
    form = build_multipart(body)
    assert isinstance(form.file.content, bytes)
    return form.content_type, form.head + form.file.content + form.tail


def parse_parts(content_type: str, content: bytes) -> list[MIMEPart]:
    head = f"Content-Type: {content_type}\r\n\r\n".encode()
    message = BytesParser(policy=HTTP).parsebytes(head + content)
    assert not message.defects
    return list(message.iter_parts())


def read_payload(part: MIMEPart) -> bytes:
    content = part.get_payload(decode=True)
    assert isinstance(content, bytes)
    return content


def read_file_header(body: CreateByFile) -> bytes:
    lines = build_multipart(body).head.split(b"\r\n")
    return next(line for line in lines if b'name="file"' in line)


def test_a_form_has_two_parts() -> None:
    """The server reads the field `data` and the file `file`, and rejects a second file."""
    data, file = parse_parts(*join_body(make_request()))

    assert data.get_param("name", header="content-disposition") == "data"
    assert json.loads(read_payload(data)) == {"doc_form": "qa_model"}
    assert file.get_param("name", header="content-disposition") == "file"
    assert file.get_filename() == "a.txt"
    assert file.get_content_type() == "application/octet-stream"
    assert read_payload(file) == b"hello"


def test_the_data_field_is_not_a_file() -> None:
    """The server would treat a part with a file name as a file and ignore the options."""
    data, _ = parse_parts(*join_body(make_request()))

    assert data.get_filename() is None


def test_data_is_json_without_the_file() -> None:
    """The options must not contain the file's bytes, path or size."""
    body = CreateByFile(
        file=File(name="a.txt", content=b"hello", size=5), process_rule=ProcessRule.automatic()
    )

    data, _ = parse_parts(*join_body(body))

    assert json.loads(read_payload(data)) == {"process_rule": {"mode": "automatic"}}


@given(content=st.binary(max_size=200))
def test_the_size_is_that_of_the_whole_body(content: bytes) -> None:
    """With a smaller Content-Length the server truncates the body; with a larger one it waits."""
    body = make_request(content=content)
    _, sent = join_body(body)

    assert build_multipart(body).content_length(len(content)) == len(sent)


@given(content=st.binary(max_size=200))
def test_any_bytes_arrive_unchanged(content: bytes) -> None:
    """Also bytes that end with line breaks or begin like a boundary."""
    _, file = parse_parts(*join_body(make_request(content=b"--" + content + b"\r\n")))

    assert (
        read_payload(file).replace(b"\r\n", b"\n")
        == b"--" + content.replace(b"\r\n", b"\n") + b"\n"
    )


@pytest.mark.parametrize("name", ["数据.txt", "é.md", "my file (1).txt", "a;b'c%20.txt", "😀.txt"])
def test_a_file_name_is_sent_as_it_is(name: str) -> None:
    """The server stores a quoted name unchanged: `my%20file.txt` (measured)."""
    assert f'filename="{name}"'.encode() in read_file_header(make_request(name))


@pytest.mark.parametrize(
    ("name", "sent"),
    [('a"b.txt', "a%22b.txt"), ("a\r\nX-Evil: 1.txt", "a%0D%0AX-Evil: 1.txt")],
)
def test_a_file_name_cannot_end_its_header(name: str, sent: str) -> None:
    """Otherwise a name could add headers or parts to the request."""
    assert read_file_header(make_request(name)).endswith(f'filename="{sent}"'.encode())


def test_two_forms_have_two_boundaries() -> None:
    """A file could contain a predictable boundary."""
    assert (
        build_multipart(make_request()).content_type != build_multipart(make_request()).content_type
    )


def test_building_a_form_does_not_open_the_file(tmp_path: Path) -> None:
    """The file is opened per attempt, so a missing file is not an error yet."""
    file = File(name="a.txt", content=tmp_path / "gone.txt")

    form = build_multipart(CreateByFile(file=file))

    assert form.file is file


def test_a_file_does_not_show_its_content() -> None:
    """Log lines must not contain 15 MB of bytes or private text."""
    assert "hello" not in repr(make_request())
