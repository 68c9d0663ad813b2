"""Files of git repositories, read with the program `git` from a shallow clone."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote, urlsplit

from attrs import field, frozen

from dify_kb.argument_checks import check_constructor
from dify_kb.arguments import Duration, parse_duration
from dify_kb.errors import ConfigError, SourceError

from .file_source import FileSource, OpenedEntry, SourceEntry, hide_user
from .git_program import CREDENTIALS_HINT, GitError, GitProgram

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

STALL_TIMEOUT: Final = 300.0
"""Seconds without output after which git is ended. It reports its progress every second."""

_TIP: Final = "refs/dify-kb/tip"
_POINTER: Final = b"version https://git-lfs.github.com/spec/"
_POINTER_SIZES: Final = range(120, 201)
"""Sizes of Git LFS pointers, in bytes; only such files are read by a scan."""

_MODES: Final = {
    b"120000": "symbolic link",
    b"160000": "submodule: load its repository as a source of its own",
}
_LISTED_NAMES: Final = 5

_REF: Final = re.compile(r"(?![-/.])(?!.*(?:\.\.|@\{|//))[^\x00-\x20\x7f~^:?*\[\\]+")
_LOCAL_PACK: Final = "git -c pack.window=0 -c pack.compression=1 upload-pack"
"""Packs a repository on this machine: deltas would cost more than they save. They took 37 of 40 s
for 10,000 files of 18 KB that were not packed yet."""

_COMMIT: Final = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")

_ACCESS_HINT: Final = f"Check the address. If the repository is private: {CREDENTIALS_HINT}"
_NO_ACCESS: Final = (
    r"Authentication failed|could not read (Username|Password)|terminal prompts disabled"
    r"|Permission denied|returned error: 40[13]|Host key verification failed"
)
_SHA256: Final = r"server sha256|couldn't find remote ref [0-9a-f]{64}$"
_NOT_FOUND: Final = r"not found|does not exist|does not appear to be a git repository|No such file"
"""Patterns of git's error messages."""


@frozen
class _GitAddress:
    """A repository, and the branch, tag or commit and the folder to load."""

    url: str
    ref: str
    folder: str
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)

    @classmethod
    def parse(cls, url: str) -> _GitAddress:
        try:
            parts = urlsplit(url.removeprefix("git+"))
            parts.port  # noqa: B018 -- checks it: a password with a / would be one
        except ValueError:
            raise _invalid_address(url) from None
        path, at, ref = parts.path.rpartition("@")
        path, ref = (path, unquote(ref)) if at else (parts.path, "")
        user, _, host = parts.netloc.rpartition("@")
        name, _, password = user.partition(":")
        folder = unquote(parts.fragment).removeprefix("subdirectory=").strip("/")
        is_local = parts.scheme == "file"
        if (
            parts.scheme not in {"https", "http", "ssh", "file"}
            or (host.startswith("-") or not host) != is_local
            or not path.strip("/")
            or parts.query
            or (at and not _REF.fullmatch(ref))
            or {"..", "."}.intersection(folder.split("/"))
            or "\0" in folder
        ):
            raise _invalid_address(url)
        if parts.scheme == "ssh":
            host = f"{name}@{host}" if name else host
            name = password = ""
        return cls(f"{parts.scheme}://{host}{path}", ref, folder, unquote(name), unquote(password))

    def __str__(self) -> str:
        ref = f"@{_quote(self.ref)}" if self.ref else ""
        folder = f"#{_quote(self.folder)}" if self.folder else ""
        return f"git+{self.url}{ref}{folder}"


@check_constructor
class GitSource(FileSource):
    """The files of a branch, tag or commit of a git repository.

    Only the current version of the files is downloaded, into `~/.cache/dify-kb/git`
    (`XDG_CACHE_HOME`), or into a temporary folder if that is not writable or in use; later runs
    download only what changed. Files are compared by their blob id: no file is read to find out
    whether it changed, also in a new clone. Submodules, symbolic links and pointers of Git LFS are
    skipped. Requires the program `git`, 2.29 or newer.

    Args:
        url: `git+https://host/path.git@branch#folder`, also `git+ssh://` and `git+file:///`.
            Branch, tag or 40-digit commit, and folder, are optional. Credentials may be part of the
            URL; otherwise git's own configuration applies. git never prompts.
        stall_timeout: time without progress after which a download fails, in seconds or as `"5m"`.

    Raises:
        ConfigError: the URL or the time is invalid.
    """

    def __init__(self, url: str, *, stall_timeout: Duration = STALL_TIMEOUT) -> None:
        self._address = _GitAddress.parse(url)
        address = self._address
        stall_seconds = parse_duration(stall_timeout, "stall_timeout")
        self._git = GitProgram(address.url, address.user, address.password, stall_seconds)
        self._lock = threading.Lock()
        self._tree = ""

    @property
    def identity(self) -> str:
        """The URL with the name of the branch or tag, but without credentials."""
        return str(self._address)

    @property
    def label(self) -> str:
        """The last part of the folder, or the name of the repository."""
        address = self._address
        return (address.folder or unquote(address.url).removesuffix(".git")).rpartition("/")[2]

    def prepare(self) -> None:
        """Fetch the current commit, unless this was done before.

        Raises:
            ConfigError: git is not installed; the repository, branch or folder does not exist.
            SourceError: the download failed.
        """
        with self._lock:
            if not self._tree:
                try:
                    self._tree = self._open()
                except BaseException:
                    self._release()
                    raise

    def scan(self) -> Iterator[SourceEntry]:
        """Yield the files in the order of git.

        Raises:
            SourceError: git failed.
        """
        rest = b""
        try:
            for block in self._git.stream("ls-tree", "-r", "-z", "-l", self._require_tree()):
                *lines, rest = (rest + block).split(b"\0")
                yield from map(self._make_entry, lines)
        except GitError as error:
            raise self._describe(error) from error

    def open(self, entry: SourceEntry) -> OpenedEntry:
        """Open a file by its token, which is its blob id.

        Raises:
            SourceError: the file cannot be read.
        """
        self._require_tree()
        return self._git.open_blob(entry.key, entry.token or "")

    def close(self) -> None:
        """End the processes, and delete a temporary clone."""
        self._git.end_all()
        with self._lock:
            self._tree = ""
            self._release()
            self._git.allow()

    def _require_tree(self) -> str:
        if not self._tree:
            raise SourceError(f"{self.identity} is not open.", hint="Call prepare() first.")
        return self._tree

    def _open(self) -> str:
        """Open a clone, and return the id of the tree to load."""
        if shutil.which("git") is None:
            raise ConfigError(
                f"Cannot load {self.identity}: the program git is not installed.",
                hint="Install git, or load a folder with the files.",
            )
        try:
            clone, is_new = self._open_clone()
            try:
                return self._fetch()
            except GitError as error:
                is_sha256 = re.search(_SHA256, str(error)) is not None
                cause = None if is_sha256 else self._find_cause(error)
                if cause or (is_new and not is_sha256):
                    raise (cause or self._describe(error)) from error
            # The cached one is damaged, or has ids of another algorithm.
            self._create_clone(clone, "sha256" if is_sha256 else "sha1")
            return self._fetch()
        except GitError as error:
            raise self._describe(error) from error

    def _open_clone(self) -> tuple[Path, bool]:
        """Open the cached clone, or create one; return its folder and whether it is new."""
        cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        name = hashlib.sha256(self.identity.encode(errors="surrogatepass")).hexdigest()[:16]
        folder, lock = Path(tempfile.gettempdir()), None
        try:
            folder = Path(cache).expanduser() / "dify-kb" / "git"
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = _try_lock(folder / f"{name}.lock")
        except (OSError, RuntimeError):  # not writable, or no home
            pass
        self._git.lock = lock
        clone = folder / name if lock else Path(tempfile.mkdtemp(prefix="dify-kb-git-"))
        self._git.folder = clone
        if lock and (clone / "HEAD").is_file():
            for left in clone.rglob("*.lock"):  # by a killed process
                left.unlink(missing_ok=True)
            return clone, False
        self._create_clone(clone)
        return clone, True

    def _create_clone(self, folder: Path, algorithm: str = "sha1") -> None:
        shutil.rmtree(folder, ignore_errors=True)
        options = ("--quiet", "--bare", "--template=", f"--object-format={algorithm}")
        self._git.run("init", *options, os.fspath(folder))

    def _release(self) -> None:
        """Unlock a cached clone; delete a temporary one."""
        if self._git.lock is not None:
            os.close(self._git.lock)
        elif self._git.folder is not None:
            shutil.rmtree(self._git.folder, ignore_errors=True)
        self._git.folder = self._git.lock = None

    def _fetch(self) -> str:
        """Fetch the commit, and return the id of the tree to load."""
        address = self._address
        partial = ("--filter=blob:none",) if address.folder else ()
        local = (f"--upload-pack={_LOCAL_PACK}",) if address.url.startswith("file:") else ()
        options = ("fetch", "--progress", "--no-tags", "--no-write-fetch-head", *local, *partial)
        self._git.run(*options, "--depth=1", "origin", f"+{address.ref or 'HEAD'}:{_TIP}")
        if not address.folder:
            return self._git.run("rev-parse", f"{_TIP}^{{tree}}")
        tree = self._find_folder()
        found = self._git.run("rev-list", "--objects", "--missing=print", tree).split("\n")
        if missing := [line[1:] for line in found if line.startswith("?")]:
            # As git fetches the blobs that it misses, but all at once.
            algorithm = ("-c", "fetch.negotiationAlgorithm=noop")
            self._git.run(*algorithm, *options, "--stdin", "origin", stdin="\n".join(missing))
        return tree

    def _find_folder(self) -> str:
        name = f"{_TIP}:{self._address.folder}"
        with contextlib.suppress(GitError):
            if self._git.run("cat-file", "-t", name) == "tree":
                return self._git.run("rev-parse", name)
        names = self._git.run("ls-tree", "-d", "-z", "--name-only", _TIP).split("\0")
        raise ConfigError(
            f"No folder {self._address.folder!r} in {self.identity.partition('#')[0]}",
            hint=f"Folders there: {_list_names(names)}.",
        )

    def _find_cause(self, error: GitError) -> ConfigError | SourceError | None:
        """Return the error to raise for a failed fetch; None if the repository can be read."""
        try:
            lines = self._git.run("ls-remote", "--heads", "--tags", "--refs", "origin").splitlines()
        except GitError as failed:
            return self._describe(failed)
        refs = [line.partition("\t")[2] for line in lines]
        if not refs:
            return ConfigError(
                f"The repository {self._address.url} is empty.", hint="Push a commit first."
            )
        ref, known = self._address.ref or "HEAD", {name.split("/", 2)[2]: name for name in refs}
        is_known = ref in known or f"refs/{ref}" in refs or ref in refs
        if is_known or not re.search(r"remote ref|not our ref|unadvertised", str(error)):
            return None
        kind = "commit" if _COMMIT.fullmatch(ref) else "branch, tag or commit"
        return ConfigError(
            f"No {kind} {ref!r} in {self._address.url}",
            hint=f"Pass a branch or tag ({_list_names(list(known))}), or all digits of a commit.",
        )

    def _describe(self, error: GitError) -> ConfigError | SourceError:
        """Return the error for a failure of git that concerns the repository."""
        output, url = str(error), self._address.url
        lines = [line.strip() for line in output.splitlines() if line.strip()]
        told = [line for line in lines if line.startswith(("fatal:", "error:"))]
        line = (told or lines or ["git failed"])[0].removeprefix("fatal: ").removeprefix("error: ")
        if re.search(_NO_ACCESS, output):
            return ConfigError(f"No access to {url}: {line}", hint=_ACCESS_HINT)
        if re.search(_NOT_FOUND, output):
            return ConfigError(f"No repository at {url}: {line}", hint=_ACCESS_HINT)
        return SourceError(f"Cannot read {url}: {line}", hint="Check the address and the network.")

    def _make_entry(self, line: bytes) -> SourceEntry:
        about, _, name = line.partition(b"\t")
        mode, _kind, identifier, length = about.split()
        size = int(length) if length.isdigit() else None
        key, blob = name.decode("utf-8", "surrogateescape"), identifier.decode()
        refused = _MODES.get(mode)
        if refused is None and size in _POINTER_SIZES:
            opened = self._git.open_blob(key, blob)
            if opened.stream.read(len(_POINTER)) == _POINTER:
                refused = "pointer of Git LFS: the repository does not contain the file"
        return SourceEntry(key=key, size=size, token=blob, refused=refused)


def _invalid_address(url: str) -> ConfigError:
    return ConfigError(
        f"Invalid git address: {hide_user(url)!r}.",
        hint="Pass git+https://host/path.git@branch#folder; branch and folder are optional, and an"
        " @ in the path is written %40.",
    )


def _try_lock(path: Path) -> int | None:
    """Lock a file until its descriptor is closed; return None if it is locked.

    The processes of git inherit the descriptor, and hold the lock if this process is killed.
    """
    import fcntl

    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _quote(name: str) -> str:
    """Quote the characters that separate the parts of an address."""
    return re.sub(r"[%@#\s]", lambda found: quote(found[0]), name)


def _list_names(names: Sequence[str]) -> str:
    found = [name for name in names if name]
    more = ", …" if len(found) > _LISTED_NAMES else ""
    return ", ".join(found[:_LISTED_NAMES]) + more if found else "none"
