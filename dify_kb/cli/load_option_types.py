"""The options that `dify-kb load`, `sync` and `diff` have in common, and their values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer
from attrs import frozen

from dify_kb.arguments import MIB, parse_duration, parse_optional_duration, parse_size
from dify_kb.errors import ConfigError

from . import option_types
from .option_types import OnError, Technique

if TYPE_CHECKING:
    from dify_kb.ingest import ScanRules

SourcesArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="PATH",
        help="Folders and files to load, archives (.zip, .tar, .tar.gz, …), or URLs of git"
        " repositories (git+https://host/repository.git@branch#folder) and buckets (s3://, gs://,"
        " az://).",
        show_default=False,
        parser=option_types.parse_source,
    ),
]
CreateOption = Annotated[
    bool, typer.Option("--create", help="Create the dataset if it does not exist.")
]
TechniqueOption = Annotated[
    Technique | None,
    typer.Option(
        "--technique",
        help="Indexing technique for --create; default: high_quality if the server has an"
        " embedding model, else economy.",
    ),
]
IncludeOption = Annotated[
    list[str] | None,
    typer.Option("--include", metavar="GLOB", help="Load only matching files; repeatable."),
]
ExcludeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--exclude",
        metavar="GLOB",
        help="Leave out matching files, in addition to those of .difyignore files; repeatable.",
    ),
]
GitignoreOption = Annotated[
    bool, typer.Option("--gitignore", help="Leave out what .gitignore files ignore, too.")
]
AsTextOption = Annotated[
    list[str] | None,
    typer.Option(
        "--as-text",
        metavar="GLOB",
        help="Send matching files with .txt appended to their name, for types that the server"
        " does not accept; repeatable.",
    ),
]
UrlsFromOption = Annotated[
    str | None,
    typer.Option(
        "--urls-from",
        metavar="FILE|-",
        help="Load the URLs listed in FILE, one per line, optionally as KEY<tab>URL.",
    ),
]
MetadataFromOption = Annotated[
    list[str] | None,
    typer.Option(
        "--metadata-from",
        metavar="SOURCE",
        help="Set metadata from each file: auto (path, folder, stem, extension), path:PATTERN"
        " such as path:'{team}/{year:number}/**', front-matter, sidecar (NAME.metadata.json),"
        " table:FILE (.csv, .jsonl) or mtime; repeatable, later sources win, --metadata last.",
    ),
]
KeepFrontMatterOption = Annotated[
    bool,
    typer.Option(
        "--keep-front-matter",
        help="Leave the header in the documents with --metadata-from front-matter.",
    ),
]
ChecksumOption = Annotated[
    bool,
    typer.Option("--checksum", help="Detect changed files by content; default: by size and time."),
]
ModeOption = Annotated[
    option_types.ChunkingMode | None,
    typer.Option(
        "--mode",
        help="Chunking mode; default: custom with a chunking option below, else that"
        " of the dataset.",
    ),
]
ChunkSizeOption = Annotated[
    int | None,
    typer.Option(
        "--chunk-size",
        metavar="N",
        min=option_types.MIN_CHUNK_SIZE,
        max=option_types.MAX_CHUNK_SIZE,
        help="Maximum chunk size in characters; default: 500.",
    ),
]
ChunkOverlapOption = Annotated[
    int | None,
    typer.Option(
        "--chunk-overlap",
        metavar="N",
        min=0,
        help="Overlap between chunks in characters; default: a tenth of the chunk size, 50 at"
        " most.",
    ),
]
SeparatorOption = Annotated[
    str | None,
    typer.Option(
        "--separator",
        metavar="TEXT",
        help="Text that separates chunks; \\n is a newline, \\t a tab; default: \\n.",
    ),
]
ConcurrencyOption = Annotated[
    str | None,
    typer.Option(
        "--concurrency",
        metavar="N|LOW-HIGH",
        help="Concurrent uploads, fixed or within a range; default: tuned automatically.",
    ),
]
RateOption = Annotated[
    str | None,
    typer.Option(
        "--rate",
        metavar="N/UNIT",
        help="Maximum upload rate: 100/min, 5/s, 1000/h; default: no limit.",
    ),
]
MaxUnindexedOption = Annotated[
    int,
    typer.Option(
        "--max-unindexed",
        metavar="N",
        min=1,
        help="Maximum number of accepted documents not indexed yet.",
    ),
]
StallAfterOption = Annotated[
    str,
    typer.Option(
        "--stall-after",
        metavar="DURATION",
        help="Time without indexing progress (90s, 30m, 2h, or seconds) after which a document"
        " counts as stalled.",
    ),
]
DeadlineOption = Annotated[
    str | None,
    typer.Option(
        "--deadline",
        metavar="DURATION",
        help="Stop the load after this time (90s, 30m, 2h, or seconds); default: never.",
    ),
]
MaxFailuresOption = Annotated[
    int | None,
    typer.Option(
        "--max-failures",
        metavar="N",
        min=0,
        help="Stop the load if more files fail; default: no limit.",
    ),
]
ErrorsOption = Annotated[
    OnError,
    typer.Option(
        "--errors", help="collect: continue after failed files. stop: stop at the first one."
    ),
]
MaxFileSizeOption = Annotated[
    str,
    typer.Option(
        "--max-file-size", metavar="SIZE", help="Maximum file size: 15 (MiB), 15MB, 500kB."
    ),
]
JournalOption = Annotated[
    Path | None,
    typer.Option(
        "--journal",
        metavar="FILE",
        help="Journal of the load; default: one per dataset and PATH in ~/.local/state/dify-kb.",
        parser=option_types.parse_path,
    ),
]
RetryFailedOption = Annotated[
    bool,
    typer.Option("--retry-failed", help="Retry files that failed or stalled in an earlier run."),
]
LogFileOption = Annotated[
    Path | None,
    typer.Option(
        "--log-file",
        metavar="FILE",
        help="Append each result and each failed request to FILE as JSON Lines.",
        parser=option_types.parse_path,
    ),
]


@frozen(kw_only=True)
class SharedLoadOptions:
    """The validated values of these options: as arguments of `load` and `sync`, and the rules."""

    arguments: Mapping[str, Any]
    rules: ScanRules

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """Parse the values of a command by the names of its parameters.

        Raises:
            ConfigError: a value is invalid.
        """
        from dify_kb.ingest import ScanRules
        from dify_kb.ingest.metadata.collect_metadata import MetadataCollector
        from dify_kb.ingest.pacing.rate_limit import Rate

        rule = option_types.parse_process_rule(
            values["mode"], values["chunk_size"], values["chunk_overlap"], values["separator"]
        )
        sources = values["metadata_from"] or ()
        metadata = [
            *option_types.parse_metadata_sources(sources, values["keep_front_matter"]),
            option_types.parse_pairs("--metadata", values["metadata"] or ()),
        ]
        MetadataCollector.create(metadata)  # before a dataset is created for it
        rules = ScanRules(
            include=values["include"] or ("*",),
            exclude=values["exclude"] or (),
            as_text=values["as_text"] or (),
            gitignore=values["gitignore"],
            sidecars="sidecar" in sources,
            max_file_size=parse_size(values["max_file_size"], "--max-file-size", default_unit=MIB),
        )
        arguments: dict[str, Any] = {
            "include": rules.include,
            "exclude": rules.exclude,
            "as_text": rules.as_text,
            "gitignore": rules.gitignore,
            "max_file_size": rules.max_file_size,
            "process_rule": rule,
            "metadata": metadata,
            **{name: values[name] for name in ("checksum", "journal", "retry_failed")},
        }
        if "concurrency" in values:  # not of `diff`, which sends nothing
            if values["rate"] is not None:
                Rate.parse(values["rate"])
            concurrency = values["concurrency"]
            if concurrency is not None:
                concurrency = option_types.parse_range("--concurrency", concurrency)
            arguments |= {
                "concurrency": concurrency,
                "rate": values["rate"],
                "max_unindexed": values["max_unindexed"],
                "stall_after": parse_duration(values["stall_after"], "--stall-after"),
                "deadline": parse_optional_duration(values["deadline"], "--deadline"),
                # errors="stop" would raise, which leaves no report to print.
                "max_failures": 0 if values["errors"] == "stop" else values["max_failures"],
            }
        journal: Path | None = values["journal"]
        if journal is not None and not journal.parent.is_dir():
            raise ConfigError(
                f"Not a directory: {journal.parent} (--journal).",
                hint="Create it, or correct the path: with a new journal every file is compared"
                " anew.",
            )
        return cls(arguments=arguments, rules=rules)
