"""Loads of archives, git repositories and lists of URLs."""

from __future__ import annotations

import io
import os
import ssl
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trustme
from cli_load_files import count_creates
from cli_runner import Cli, parse_error

from dify_kb.cli.command_line import instruct_repetition
from dify_kb.emulator import Emulator
from dify_kb.ingest import state_folder
from dify_kb.ingest.journal import read_journal

SECRET = "the-secret-token"
AUTHORITY = trustme.CA()


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "docs.zip"
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("a.md", "the text of a")
        made.writestr("sub/b.md", "the text of b")
        made.writestr("../c.md", "the text of c")
    return path


@pytest.fixture
def server() -> Iterator[str]:
    """Serve `a.md` for everybody, and `private` for nobody; return its host and port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_found = self.path == "/a.md"
            self.send_response(200 if is_found else 401)
            self.send_header("WWW-Authenticate", 'Basic realm="git"')
            self.send_header("Content-Length", "4" if is_found else "0")
            self.end_headers()
            self.wfile.write(b"text" if is_found else b"")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- as of the base class
            pass

    web = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"127.0.0.1:{web.server_port}"
    web.shutdown()
    thread.join()
    web.server_close()


def test_archive_is_loaded_with_its_own_journal(
    cli: Cli, archive: Path, emulator: Emulator
) -> None:
    arguments = ["load", str(archive), "--dataset", "d", "--create"]

    code, out, err = cli(*arguments)
    again, second, _ = cli(*arguments)

    assert (code, again) == (3, 3)
    assert "2 added, 1 failed" in out
    assert "name that leaves the archive" in err
    assert f"Reading {archive}." in err
    assert "2 unchanged, 1 failed" in second
    assert count_creates(emulator) == 2
    (journal,) = read_journal.list_journals(state_folder())
    assert read_journal.read_overview(journal).source == str(archive)


def test_dry_run_into_a_new_dataset_lists_the_members(cli: Cli, archive: Path) -> None:
    code, out, _ = cli("load", str(archive), "--dataset", "d", "--create", "--dry-run")

    assert code == 3
    assert out.splitlines()[:2] == ["add     a.md", "add     sub/b.md"]


def test_source_that_cannot_be_read_creates_no_dataset(
    cli: Cli, tmp_path: Path, emulator: Emulator, archive: Path
) -> None:
    archive.write_bytes(archive.read_bytes()[:-30])
    for source, what in {
        str(archive): "is damaged or truncated",
        f"git+file://{tmp_path}/none": "No repository",
        "git+https://": "Invalid git address",
        "ftp://host/x": "Unknown scheme",
    }.items():
        code, _, err = cli("load", source, "--dataset", "d", "--create")
        assert code in {1, 2}
        assert what in parse_error(err)[0]
    code, _, err = cli("load", "--urls-from", str(tmp_path / "no"), "--dataset", "d", "--create")
    assert "Cannot read the list of URLs" in parse_error(err)[0]
    assert not emulator.history


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["{docs}", "--urls-from", "-"], "--urls-from accepts neither"),
        (["--files-from", "-", "--urls-from", "-"], "--urls-from accepts neither"),
        (["{docs}", "git+https://host/x"], "together with folders"),
        (["git+https://me:the-secret-token@host/x", "{docs}"], "git+https://host/x together"),
        (["git+https://host/x", "--files-from", "-"], "Not a directory"),
    ],
)
def test_sources_that_cannot_be_combined(
    cli: Cli, docs: Path, arguments: list[str], what: str
) -> None:
    given = [argument.format(docs=docs) for argument in arguments]

    code, _, err = cli("load", *given, "--dataset", "d")

    assert code == 2
    assert what in parse_error(err)[0]
    assert SECRET not in err


def test_git_repository_is_loaded(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "gitconfig"
    config.write_text("[user]\n name = Test\n email = test@example.org\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    folder = tmp_path / "repository"
    (folder / "docs").mkdir(parents=True)
    (folder / "docs/a.md").write_text("text")
    for command in ("init -q -b main", "add -A", "commit -q -m one"):
        subprocess.run(["git", "-C", folder, *command.split()], check=True)  # noqa: S603, S607 -- fixed
    source = f"git+file://{folder}@main#docs"

    code, out, _ = cli("load", source, "--dataset", "d", "--create")

    assert (code, "1 added" in out) == (0, True)
    (journal,) = read_journal.list_journals(state_folder())
    assert read_journal.read_overview(journal).source == source


def test_credentials_are_printed_nowhere(cli: Cli, server: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    arguments = ["--log-file", str(log), "--dataset", "d", "--create", "--technique", "economy"]

    _, out, err = cli("load", f"git+http://me:{SECRET}@{server}/private", *arguments)
    assert "No access to" in err
    listing = tmp_path / "urls"
    listing.write_text(f"http://me:{SECRET}@{server}/no.md?{SECRET}\n")
    code, more, errors = cli("-v", "load", "--urls-from", str(listing), *arguments)

    assert code == 3
    assert "HTTP 401" in errors
    assert SECRET not in out + err + more + errors + log.read_text()
    found = [path for path in tmp_path.rglob("*") if path.is_file() and path != listing]
    assert found
    assert not [path for path in found if SECRET.encode() in path.read_bytes()]
    words = ["load", f"git+https://me:{SECRET}@host/x.git", "--dataset", "d"]
    assert instruct_repetition("resume", words) == (
        "Run this command to resume, with your own value for …:\n"
        "       dify-kb load 'git+https://…@host/x.git' --dataset d"
    )


@pytest.mark.parametrize("place", ["-", "{folder}/urls"])
def test_list_of_urls(
    cli: Cli, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    lines = f"# documents\nhttp://{server}/a.md\nhandbook.md\thttp://{server}/a.md\n"
    (tmp_path / "urls").write_text(lines)
    listing = place.format(folder=tmp_path)
    arguments = ["load", "--urls-from", listing, "--dataset", "d", "--create"]

    results = []
    for _ in range(2):
        with (tmp_path / "urls").open("rb") as stdin:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.FileIO(os.dup(stdin.fileno()))))
            results.append(cli(*arguments)[1])
            sys.stdin.close()

    assert "2 added" in results[0]
    assert "2 unchanged" in results[1]


def test_urls_are_downloaded_with_the_certificate_authority_of_the_command_line(
    cli: Cli, tmp_path: Path
) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "4")
            self.end_headers()
            self.wfile.write(b"text")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- as of the base class
            pass

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    AUTHORITY.issue_cert("127.0.0.1").configure_cert(context)
    AUTHORITY.cert_pem.write_to_path(tmp_path / "ca.pem")
    web = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    web.socket = context.wrap_socket(web.socket, server_side=True)
    thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    urls = tmp_path / "urls.txt"
    urls.write_text(f"https://127.0.0.1:{web.server_port}/a.md\n")
    load = ("load", "--urls-from", str(urls), "-d", "d", "--create")

    refused = cli(*load)
    trusted = cli(*load, "--ca", str(tmp_path / "ca.pem"), "--retry-failed")
    web.shutdown()
    thread.join()
    web.server_close()

    assert refused[0] == 3
    assert "certificate" in refused[2].lower()
    assert trusted[0] == 0, trusted[2]
    assert "1 added" in trusted[1]
