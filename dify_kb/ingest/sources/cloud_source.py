"""Objects of Amazon S3, Google Cloud Storage and Azure Blob Storage, by `obstore`."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import parse_qsl, unquote, urlsplit

import obstore
from attrs import evolve
from obstore import exceptions
from obstore.store import AzureStore, GCSStore, S3Store

from dify_kb.errors import ConfigError, SourceError

from .file_source import FileSource, OpenedEntry, SourceEntry

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime, timedelta

    from obstore import ObjectMeta

PART_SIZE: Final = 256 * 1024
"""Bytes that a stream holds at least before they are read."""

TIMEOUT: Final = "30s"
"""Time for one request; a listing of 1,000 objects takes less than a second."""

_RETRY: Final = {"max_retries": 4}
_STORES: Final[Mapping[str, Any]] = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}
_OPTIONS: Final[Mapping[str, Mapping[str, str]]] = {
    "s3": {"endpoint": "endpoint", "region": "region", "anonymous": "skip_signature"},
    "gs": {"anonymous": "skip_signature"},
    "az": {"endpoint": "endpoint", "account": "account_name", "anonymous": "skip_signature"},
}
"""The options of a URL, and their names in obstore."""

_BUCKET: Final = re.compile(r"[\w$][\w.$-]*(?![^/?#])")
_ENDPOINT: Final = re.compile(r"https?://[^/@\s?#]+(/[^@\s?#]*)?")

_KEYS: Final = ("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_URI")
"""Variables with which obstore finds credentials itself; otherwise boto3 reads profiles."""

_ADVICE: Final[Mapping[str, str]] = {
    "NoSuchBucket|ContainerNotFound|The specified bucket does not exist": "Check the name of the"
    " bucket, and the account or endpoint that it belongs to.",
    "AuthorizationHeaderMalformed|PermanentRedirect|IllegalLocationConstraint|301 Moved": "Pass the"
    " region of the bucket: s3://…?region=eu-central-1, or AWS_REGION.",
    "169.254.169.254|metadata.google.internal|no credentials|NoCredentials|MissingAccount|"
    "Unable to locate|Account must be": "Set the credentials, such as AWS_ACCESS_KEY_ID and"
    " AWS_SECRET_ACCESS_KEY, AWS_PROFILE (with boto3 installed), GOOGLE_APPLICATION_CREDENTIALS or"
    " AZURE_STORAGE_ACCOUNT_NAME with AZURE_STORAGE_ACCOUNT_KEY; or add ?anonymous=true if the"
    " bucket is public.",
    "AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch|ExpiredToken|401 |403 |Permission|"
    "Unauthenticated": "Check the credentials: they need permission to list the bucket and to read"
    " its objects.",
    "error sending request|dns error|timed out|connect": "Check the endpoint and the network.",
}
"""Advice by a pattern of the error's text."""


class CloudSource(FileSource):
    """The objects of a bucket below a prefix.

    Credentials come from the environment, for S3 also from AWS profiles if boto3 is installed.
    Requires `pip install 'dify-kb[cloud]'`. A scan costs one request per 1,000 objects, and reading
    an object one. A key with an empty segment (`a//b`), `.` or `..` as a segment, or a control
    character ends the scan with an error: obstore does not list it.

    Args:
        url: `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`. Options follow
            as in `?endpoint=http://127.0.0.1:9000&region=eu-central-1&anonymous=true`; Azure also
            takes `account=…`.

    Raises:
        ConfigError: the URL is invalid.
    """

    def __init__(self, url: str) -> None:
        scheme, _, rest = url.partition("://")
        self._scheme = scheme.lower()
        if self._scheme not in _STORES or not _BUCKET.match(rest):
            raise ConfigError(
                f"Invalid name of a bucket in an address of {scheme}://.",
                hint="Pass s3://bucket/prefix, gs://bucket/prefix or az://container/prefix;"
                " credentials belong into the environment.",
            )
        parts = urlsplit(url)
        self._bucket, self._prefix = parts.netloc, unquote(parts.path).strip("/")
        self._options = self._parse_options(parts.query)
        self._store = self._open_store()

    @property
    def identity(self) -> str:
        """The URL without credentials; an endpoint or account is part of it."""
        place = self._options.get("endpoint") or self._options.get("account_name")
        suffix = f"?{place}" if place else ""
        return f"{self._scheme}://{self._bucket}/{self._prefix}".rstrip("/") + suffix

    @property
    def label(self) -> str:
        """The last folder of the prefix, or the bucket."""
        return self._prefix.rpartition("/")[2] or self._bucket

    def scan(self) -> Iterator[SourceEntry]:
        """Yield the objects in the order of the bucket, without empty markers of folders.

        Raises:
            SourceError: the bucket cannot be listed.
        """
        try:
            for page in obstore.list(self._store, chunk_size=1000):
                for found in page:
                    if found["size"] or "." in found["path"].rpartition("/")[2]:
                        yield _make_entry(found)
        except exceptions.InvalidPathError as error:
            raise SourceError(
                f"Cannot list {self.identity}: {_summarize(error)}.",
                hint="Rename the object, or pass a prefix that does not contain it.",
            ) from error
        except (exceptions.BaseError, OSError) as error:
            raise self._describe(error, f"Cannot list {self.identity}") from error

    def find(self, key: str) -> SourceEntry | None:
        """Return the object with this key, None if there is none; costs one request.

        Raises:
            SourceError: the bucket cannot be read.
        """
        try:
            return evolve(_make_entry(obstore.head(self._store, key)), key=key)
        except FileNotFoundError:
            return None
        except (exceptions.BaseError, OSError) as error:
            raise self._describe(error, f"Cannot read {self.identity}") from error

    def open(self, entry: SourceEntry) -> OpenedEntry:
        """Open an object as it is now: the response to a request is one version of it.

        Raises:
            SourceError: the object was deleted, or cannot be read.
        """
        try:
            found = obstore.get(self._store, entry.key)
            stream = _ObjectStream(self, entry.key, found)
            return OpenedEntry(stream, _find_token(found.meta), size=found.meta["size"])
        except FileNotFoundError as error:
            raise SourceError(f"The object {entry.key!r} was deleted after the scan.") from error
        except (exceptions.BaseError, OSError) as error:
            raise self._describe(error, f"Cannot read {entry.key!r}") from error

    def _describe(self, error: Exception, what: str) -> SourceError:
        summary = _summarize(error)
        text = f"{type(error).__name__}: {error}"
        hint = next((one for words, one in _ADVICE.items() if re.search(words, text)), "")
        return SourceError(f"{what}: {summary}.", hint=hint)

    def _parse_options(self, query: str) -> dict[str, str]:
        known = _OPTIONS[self._scheme]
        options = dict(parse_qsl(query, keep_blank_values=True))
        for name in options:
            if name not in known:
                raise ConfigError(
                    f"Unknown option {name!r} of a {self._scheme}:// address.",
                    hint=f"Use {', '.join(known)}; credentials belong into the environment.",
                )
        return {known[name]: value for name, value in options.items()}

    def _open_store(self) -> S3Store | GCSStore | AzureStore:
        endpoint = self._options.get("endpoint", os.environ.get("AWS_ENDPOINT_URL", ""))
        options: dict[str, Any] = dict(self._options)
        if endpoint and not _is_endpoint(endpoint):
            raise ConfigError(
                "Invalid endpoint of a bucket.",
                hint="Pass http://host:port or https://host, without credentials.",
            )
        if self._scheme == "s3" and endpoint:
            options["endpoint"] = endpoint
        if self._scheme == "s3" and not any(map(os.environ.get, _KEYS)):
            options |= _read_aws_profile()
        try:
            return cast(
                "S3Store | GCSStore | AzureStore",
                _STORES[self._scheme](
                    self._bucket,
                    prefix=self._prefix or None,
                    client_options={"allow_http": endpoint.startswith("http:"), "timeout": TIMEOUT},
                    retry_config=_RETRY,
                    **options,
                ),
            )
        except (exceptions.BaseError, OSError, ValueError) as error:
            described = self._describe(error, f"Cannot open {self._scheme}://{self._bucket}")
            raise ConfigError(described.summary, hint=described.hint) from error


class _ObjectStream:
    """The content of an object, read in parts."""

    def __init__(self, source: CloudSource, key: str, found: obstore.GetResult) -> None:
        self._source = source
        self._key = key
        self._parts: Iterator[Any] = iter(found.stream(min_chunk_size=PART_SIZE))
        self._rest = b""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes; empty at the end."""
        if not self._rest:
            try:
                self._rest = bytes(next(self._parts, b""))
            except (exceptions.BaseError, OSError) as error:
                raise self._source._describe(  # noqa: SLF001 -- ours
                    error, f"Cannot read {self._key!r}"
                ) from error
        data, self._rest = self._rest[:size], self._rest[size:]
        return data

    def close(self) -> None:
        """Release the stream."""
        self._parts = iter(())
        self._rest = b""


def _is_endpoint(endpoint: str) -> bool:
    """Return whether obstore accepts an endpoint: it panics at invalid ones."""
    try:
        return _ENDPOINT.fullmatch(endpoint) is not None and urlsplit(endpoint).port != 0
    except ValueError:
        return False


def _read_aws_profile() -> dict[str, Any]:
    """Return the credentials of the AWS profile, if boto3 is installed and finds one."""
    try:
        import boto3  # type: ignore[import-untyped] # has no types
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError:
        return {}
    session = boto3.Session()
    if session.get_credentials() is None:
        return {}
    region = {"region": session.region_name} if session.region_name else {}
    return {"credential_provider": Boto3CredentialProvider(session), **region}


def _make_entry(found: ObjectMeta) -> SourceEntry:
    return SourceEntry(
        key=found["path"],
        size=found["size"],
        token=_find_token(found),
        mtime_ns=_nanoseconds(found["last_modified"]),
    )


def _find_token(found: ObjectMeta) -> str | None:
    """Return the ETag, which S3 sends in listings, too; the version only in responses."""
    return found["e_tag"] or found["version"]


def _summarize(error: Exception) -> str:
    """Return the first line of an error, or the code and message of the server's XML."""
    text = str(error).partition("\n\nDebug source")[0].partition(" - Server returned")
    code = re.search(r"<Code>([^<]+)</Code>\s*<Message>([^<]*)</Message>", str(error))
    if code:
        return f"{code[1]} ({code[2].rstrip('.')})"
    tail = text[2].split("\n")[0].removeprefix(" non-2xx status code: ")
    summary = tail or text[0].split("\n")[0]
    summary = re.sub(r"^.*Error performing \w+ (https?://[^/ ]+)\S* in .* - ", r"\1: ", summary)
    return re.sub(r"^Generic \w+ error: ", "", summary).rstrip(". ")


def _nanoseconds(modified: datetime) -> int:
    since: timedelta = modified - type(modified).fromtimestamp(0, modified.tzinfo)
    return int(since.total_seconds() * 1e9)
