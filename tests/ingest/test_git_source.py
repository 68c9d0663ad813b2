from __future__ import annotations

import base64
import os
import re
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from attrs import define
from hypothesis import given
from hypothesis import strategies as st
from load_examples import count_outcomes, create_dataset, list_document_names

from dify_kb import AsyncClient, SourceEntry
from dify_kb.errors import ConfigError, KnowledgeError, SourceError
from dify_kb.ingest.sources import git_program
from dify_kb.ingest.sources.file_source import OpenedEntry, hide_user
from dify_kb.ingest.sources.git_source import GitSource

POINTER = (
    f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0123456789abcdef' * 4}\nsize 12345\n"
)
SECRET = "the-secret-token"
LARGE = 3 * git_program.SMALL_BLOB


@define
class Repository:
    """A git repository with a work tree."""

    folder: Path

    def git(self, *arguments: str) -> str:
        run = subprocess.run(  # noqa: S603 -- fixed arguments
            ["git", "-C", self.folder, *arguments],  # noqa: S607 -- of the PATH
            capture_output=True,
            text=True,
            check=True,
        )
        return run.stdout.strip()

    def commit(self, files: dict[str, str | bytes]) -> str:
        for name, content in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "-m", "change")
        return self.git("rev-parse", "HEAD")

    def url(self, suffix: str = "") -> str:
        return f"git+file://{self.folder}{suffix}"


@pytest.fixture(autouse=True)
def _configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use no configuration of the user."""
    config = tmp_path / "gitconfig"
    config.write_text(
        "[user]\n name = Test\n email = test@example.org\n[init]\n defaultBranch = main\n"
        '[protocol "file"]\n allow = always\n'
    )
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")


@pytest.fixture
def create_repository(tmp_path: Path) -> Callable[[str], Repository]:
    def create(name: str) -> Repository:
        folder = tmp_path / name
        folder.mkdir()
        repository = Repository(folder)
        repository.git("init", "--quiet")
        return repository

    return create


@pytest.fixture
def repository(create_repository: Callable[[str], Repository]) -> Repository:
    return create_repository("docs")


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the keys of the files that are opened from now on."""
    keys: list[str] = []
    original = GitSource.open

    def record(source: GitSource, entry: SourceEntry) -> OpenedEntry:
        keys.append(entry.key)
        return original(source, entry)

    monkeypatch.setattr(GitSource, "open", record)
    return keys


def scan(source: GitSource) -> dict[str, SourceEntry]:
    source.prepare()
    return {entry.key: entry for entry in source.scan()}


def read(source: GitSource, entry: SourceEntry) -> bytes:
    stream = source.open(entry).stream
    data = b"".join(iter(lambda: stream.read(100_000), b""))
    stream.close()
    return data


async def test_fresh_clone_of_the_same_commit_reads_no_file(
    client: AsyncClient, repository: Repository, tmp_path: Path, opened: list[str]
) -> None:
    repository.commit({f"sub/{number}.md": f"text {number}" for number in range(30)})
    dataset = await create_dataset(client)

    first = await client.load(dataset, repository.url())
    assert len(opened) == 30
    opened.clear()
    shutil.rmtree(tmp_path / "cache")
    second = await client.load(dataset, repository.url())
    assert opened == []
    repository.commit({"sub/7.md": "other"})
    third = await client.load(dataset, repository.url())

    assert count_outcomes(first) == {"added": 30}
    assert count_outcomes(second) == {"unchanged": 30}
    assert count_outcomes(third) == {"unchanged": 29, "updated": 1}
    assert opened == ["sub/7.md"]


async def test_what_is_no_file_is_skipped_with_the_reason(
    client: AsyncClient, repository: Repository, create_repository: Callable[[str], Repository]
) -> None:
    library = create_repository("library")
    library.commit({"x.md": "text"})
    repository.commit({"a.md": "text", "big.pdf": POINTER, "almost.md": "v" * len(POINTER)})
    (repository.folder / "link.md").symlink_to("a.md")
    repository.git("submodule", "--quiet", "add", str(library.folder), "lib.md")
    repository.commit({})
    dataset = await create_dataset(client)

    report = await client.load(dataset, repository.url())

    assert count_outcomes(report) == {"added": 2, "skipped": 3}
    assert report.skipped_reasons == {
        "symbolic link": 1,
        "submodule: load its repository as a source of its own": 1,
        "pointer of Git LFS: the repository does not contain the file": 1,
    }


def test_names_of_any_kind(repository: Repository) -> None:
    names = [
        "Ünïcode/日本.md",
        "new\nline.md",
        'quo"te\t.md',
        " space .md",
        "-option.md",
        "a@b#c.md",
    ]
    repository.commit({name: name for name in names})
    raw = os.fsdecode(b"latin-\xe9.md")
    (repository.folder / raw).write_text("raw")
    repository.commit({})
    source = GitSource(repository.url())

    entries = scan(source)

    assert set(entries) == {*names, raw}
    assert all(read(source, entries[name]) == name.encode() for name in names)
    source.close()


def test_branch_tag_commit_and_folder(repository: Repository) -> None:
    first = repository.commit({"a.md": "1", "docs/b.md": "1", "docs/deep/c.md": "1"})
    repository.git("tag", "-a", "v1", "-m", "annotated")
    repository.git("checkout", "--quiet", "-b", "feature/x@y")
    repository.commit({"docs/b.md": "22"})

    def sizes(suffix: str) -> dict[str, int | None]:
        source = GitSource(repository.url(suffix))
        try:
            return {key: entry.size for key, entry in scan(source).items()}
        finally:
            source.close()

    assert sizes("@main")["docs/b.md"] == 1
    assert sizes("@v1")["docs/b.md"] == 1
    assert sizes(f"@{first}")["docs/b.md"] == 1
    assert sizes("")["docs/b.md"] == 2
    assert sizes("@feature/x%40y#docs") == {"b.md": 2, "deep/c.md": 1}
    assert sizes("@v1#subdirectory=docs/deep/") == {"c.md": 1}


def test_folder_of_a_server_with_filters_downloads_only_its_files(repository: Repository) -> None:
    repository.commit({"huge.md": os.urandom(LARGE), "docs/a.md": "a", "docs/b.md": "b"})
    repository.git("config", "uploadpack.allowFilter", "true")
    source = GitSource(repository.url("#docs"))

    entries = scan(source)

    assert [read(source, entries[name]) for name in ("a.md", "b.md")] == [b"a", b"b"]
    folder = source._git.folder
    assert folder is not None
    assert sum(path.stat().st_size for path in folder.rglob("*.pack")) < 10_000
    source.close()


def test_identity_is_that_of_the_branch_without_credentials() -> None:
    source = GitSource(f"git+https://me:{SECRET}@host:8443/team/docs.git@main#sub/guide")

    assert source.identity == "git+https://host:8443/team/docs.git@main#sub/guide"
    assert source.label == "guide"
    assert (
        GitSource("git+ssh://git@host/team/docs.git").identity == "git+ssh://git@host/team/docs.git"
    )
    assert GitSource("git+https://host/team/docs.git").label == "docs"


async def test_renamed_branch_is_an_error_with_the_branches_there(
    client: AsyncClient, repository: Repository
) -> None:
    repository.commit({"a.md": "text"})
    dataset = await create_dataset(client)
    await client.load(dataset, repository.url("@main"))
    repository.git("branch", "-m", "main", "trunk")
    repository.git("tag", "v1")

    with pytest.raises(ConfigError, match="No branch, tag or commit 'main'") as raised:
        await client.load(dataset, repository.url("@main"))
    assert "trunk, v1" in raised.value.hint


def test_repository_without_a_default_branch_is_an_error_with_the_branches_there(
    repository: Repository,
) -> None:
    repository.commit({"a.md": "text"})
    repository.git("symbolic-ref", "HEAD", "refs/heads/gone")

    with pytest.raises(ConfigError, match="No branch, tag or commit 'HEAD'") as raised:
        GitSource(repository.url()).prepare()
    assert "main" in raised.value.hint
    source = GitSource(repository.url("@main"))
    assert set(scan(source)) == {"a.md"}
    source.close()


def test_repository_with_ids_of_sha256_is_read(repository: Repository) -> None:
    shutil.rmtree(repository.folder / ".git")
    repository.git("init", "--quiet", "--object-format=sha256")
    commit = repository.commit({"docs/a.md": "text"})
    for suffix in ("", f"@{commit}", "#docs", ""):
        source = GitSource(repository.url(suffix))
        (entry,) = scan(source).values()
        assert len(entry.token or "") == 64
        assert read(source, entry) == b"text"
        source.close()


def test_local_repository_is_copied_without_computing_deltas(repository: Repository) -> None:
    """Which take a minute for 10,000 files that git did not pack yet."""
    lines = "".join(f"line {number}\n" for number in range(100))
    repository.commit({f"{number}.md": f"{number}\n{lines}" for number in range(120)})
    source = GitSource(repository.url())
    source.prepare()

    clone = source._git.folder
    assert clone is not None
    (pack,) = clone.glob("objects/pack/*.pack")
    report = source._git.run("verify-pack", "--verbose", "--stat-only", str(pack))
    source.close()

    assert report == "non delta: 122 objects"


@pytest.mark.parametrize(
    ("suffix", "summary", "hint"),
    [
        ("@" + "0" * 40, "No commit '0000", "main"),
        ("@0123456", "No branch, tag or commit", "all digits"),
        ("#nothing", "No folder 'nothing' in git.file", "docs"),
        ("#a.md", "No folder 'a.md'", "docs"),
        ("-nowhere", "No repository at file://", "Check the address"),
    ],
)
def test_wrong_address_is_an_error_with_the_remedy(
    repository: Repository, suffix: str, summary: str, hint: str
) -> None:
    repository.commit({"a.md": "text", "docs/b.md": "text"})
    source = GitSource(repository.url(suffix))

    with pytest.raises(ConfigError, match=summary) as raised:
        source.prepare()

    assert hint in raised.value.hint
    with pytest.raises(ConfigError, match=summary):  # not the state of the first attempt
        source.prepare()


def test_empty_repository_and_missing_program(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="is empty"):
        GitSource(repository.url()).prepare()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="git is not installed"):
        GitSource(repository.url()).prepare()


@pytest.mark.parametrize(
    "url",
    [
        "git+https://",
        "git+https://host",
        "git+https:///path",
        "git+file://host/path",
        "git+ssh://-oProxyCommand=x/path",
        "git+https://host/path@--upload-pack=x",
        "git+https://host/path@a:b",
        "git+https://host/path@",
        "git+https://host/path@a..b",
        "git+https://host/path?token=x",
        "git+https://host/path#../up",
        "git+ftp://host/path",
        f"git+https://me:{SECRET}#x@host",
        f"git+https://me:x/{SECRET}@host/path",
        "git+https://host/path#a%00b",
        "git+https://[host/path",
    ],
)
def test_invalid_address(url: str) -> None:
    with pytest.raises(ConfigError, match="Invalid git address") as raised:
        GitSource(url)
    assert SECRET not in str(raised.value)


@given(st.text(alphabet="ab4/@:#?%-.é\n", max_size=20))
def test_address_is_parsed_or_refused(rest: str) -> None:
    try:
        source = GitSource(f"git+https://{rest}")
    except ConfigError:
        return
    assert GitSource(source.identity).identity == source.identity
    assert not source._address.ref.startswith("-")
    assert not re.search(r"[\s:]", source._address.ref)
    assert ".." not in source._address.folder.split("/")


def test_credentials_are_hidden_in_any_text() -> None:
    for text in (
        f"git+https://{SECRET}@h/x",
        f"see https://u:{SECRET}@h/ and ssh://{SECRET}@h",
        f"https://u:a/{SECRET}@h/x@main",
    ):
        assert SECRET not in hide_user(text)
    for text in ("s3://bucket/a@b", "https://host:8080/a@b", "see https://host/: a@b"):
        assert hide_user(text) == text


@pytest.fixture
def private_server() -> Iterator[tuple[str, list[str | None]]]:
    """Serve on HTTP what no credentials open; return the URL and the Authorization headers."""
    headers: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            headers.append(self.headers["Authorization"])
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="git"')
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- as of the base class
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"127.0.0.1:{server.server_port}/team/docs.git", headers
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("user", ["", f"me:{SECRET}@", f"{SECRET}@"])
def test_private_repository_is_an_error_without_a_prompt_or_the_password(
    private_server: tuple[str, list[str | None]], user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, headers = private_server
    monkeypatch.setenv("SSH_ASKPASS", "/bin/false")
    source = GitSource(f"git+http://{user}{place}")

    with pytest.raises(ConfigError, match=r"No access to http://127\.0\.0\.1") as raised:
        source.prepare()

    shown = f"{raised.value} {raised.value.__cause__} {source.__dict__['_git']!r} {source.identity}"
    assert SECRET not in shown
    expected = base64.b64encode(f"{user.strip('@')}{'' if ':' in user else ':'}".encode())
    assert set(headers) == ({None, f"Basic {expected.decode()}"} if user else {None})
    assert "TOKEN" in raised.value.hint


def test_server_that_never_answers_is_left() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        source = GitSource(f"git+http://127.0.0.1:{server.getsockname()[1]}/x", stall_timeout=0.3)
        with pytest.raises(SourceError, match=r"no progress for 0\.3 s"):
            source.prepare()


def test_close_ends_a_download() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        source = GitSource(f"git+http://127.0.0.1:{server.getsockname()[1]}/x")
        errors: list[KnowledgeError] = []

        def prepare() -> None:
            try:
                source.prepare()
            except KnowledgeError as error:
                errors.append(error)

        thread = threading.Thread(target=prepare)
        thread.start()
        connection, _ = server.accept()
        source.close()
        connection.close()
        thread.join(30)

    assert errors


async def test_cancelled_load_ends_a_download(
    client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[bytes]] = []
    original = git_program.GitProgram._start

    def record(program: git_program.GitProgram, *arguments: str, **options: int) -> object:
        started.append(original(program, *arguments, **options))
        return started[-1]

    monkeypatch.setattr(git_program.GitProgram, "_start", record)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"git+http://127.0.0.1:{server.getsockname()[1]}/x"
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.load, "an-id", address)
            connection, _ = await anyio.to_thread.run_sync(server.accept)
            with connection:
                tasks.cancel_scope.cancel()

    assert started
    assert all(process.returncode is not None for process in started)


def test_ssh_is_used_with_the_user_of_the_address(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.commit({"a.md": "text"})
    script = tmp_path / "ssh"
    script.write_text(
        f'#!/bin/sh\necho "$1" > {tmp_path}/host\nfor last; do :; done\neval "$last"\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("GIT_SSH_COMMAND", str(script))
    monkeypatch.setenv("GIT_SSH_VARIANT", "simple")
    source = GitSource(f"git+ssh://git@host{repository.folder}@main")

    assert set(scan(source)) == {"a.md"}
    assert (tmp_path / "host").read_text() == "git@host\n"
    source.close()


def test_damaged_cache_is_replaced(repository: Repository, tmp_path: Path) -> None:
    repository.commit({"a.md": "text"})
    source = GitSource(repository.url())
    scan(source)
    source.close()
    (clone,) = (tmp_path / "cache/dify-kb/git").glob("*[!k]")
    (clone / "shallow.lock").touch()  # of a killed process
    assert "a.md" in scan(source)
    source.close()
    shutil.rmtree(clone / "objects")

    assert read(source, scan(source)["a.md"]) == b"text"
    source.close()


def test_cache_that_is_locked_or_not_writable_is_not_used(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.commit({"a.md": "text"})
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    one, two = GitSource(repository.url()), GitSource(repository.url())
    assert set(scan(one)) == set(scan(two)) == {"a.md"}
    one.close()
    two.close()
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))

    assert "a.md" in scan(one)
    assert len(list(tmp_path.glob("dify-kb-git-*"))) == 1
    one.close()

    assert not list(tmp_path.glob("dify-kb-git-*"))


def test_many_threads_read_files_of_any_size(repository: Repository) -> None:
    files: dict[str, str | bytes] = {
        f"{number}.md": f"text {number}" * number for number in range(1, 20)
    }
    files |= {f"large{number}.txt": os.urandom(LARGE) for number in range(2)}
    repository.commit(files)
    source = GitSource(repository.url())
    entries, wrong = scan(source), list[str]()

    def check() -> None:
        for name, content in files.items():
            expected = content if isinstance(content, bytes) else content.encode()
            if read(source, entries[name]) != expected:
                wrong.append(name)

    threads = [threading.Thread(target=check) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    processes = source._git._processes

    assert not wrong
    assert len(processes) <= git_program.MAX_IDLE_READERS
    source.close()
    assert not processes


def test_file_that_is_not_read_to_its_end_harms_no_other(repository: Repository) -> None:
    repository.commit({"a.txt": b"x" * LARGE, "b.txt": "b"})
    source = GitSource(repository.url())
    entries = scan(source)

    stream = source.open(entries["a.txt"]).stream
    assert stream.read(10) == b"x" * 10
    stream.close()

    assert read(source, entries["b.txt"]) == b"b"
    with pytest.raises(SourceError, match=r"Cannot read 'c\.txt'"):
        source.open(SourceEntry(key="c.txt", size=1, token="0" * 40))
    source.close()
    with pytest.raises(SourceError, match="not open"):
        source.open(entries["b.txt"])


async def test_file_names_become_documents(client: AsyncClient, repository: Repository) -> None:
    repository.commit({"sub/a.md": "text", ".github/b.md": "hidden", "code.py": "x"})
    dataset = await create_dataset(client)

    report = await client.load(dataset, repository.url(), as_text=["*.py"])

    assert count_outcomes(report) == {"added": 2}
    assert await list_document_names(client, dataset) == ["code.py.txt", "sub__a.md"]


def test_hooks_of_git_do_not_redirect_the_source(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    repository.commit({"a.md": "text"})
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "index"))
    source = GitSource(repository.url())

    assert set(scan(source)) == {"a.md"}
    source.close()
    assert not re.search("other", " ".join(map(str, tmp_path.iterdir())))
