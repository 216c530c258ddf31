"""Open a source by its name: a file by its suffix, a folder of files, or a data set of the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from continual.errors import DataError, InputError
from continual.stream.readers import arrow, hub
from continual.stream.readers.base import HUB, Source
from continual.stream.readers.beir import find_beir, open_beir
from continual.stream.readers.content import COMPRESSED, check_content, check_regular
from continual.stream.readers.delimited import DelimitedSource
from continual.stream.readers.dialect import DELIMITERS, Dialect, check_dialect
from continual.stream.readers.folder import FolderSource, check_columns
from continual.stream.readers.ids import IdSource, TextFiles, find_roles
from continual.stream.readers.shapes import is_bare
from continual.stream.readers.text import JsonLinesSource
from continual.stream.readers.texts import IDS, TEXT
from continual.stream.readers.watched import WatchedSource
from continual.stream.schema import EITHER, NAMES, Columns

JSON_LINES = (".jsonl", ".ndjson", ".json")
PARQUET = ".parquet"
READ = f"{PARQUET}, {', '.join(JSON_LINES)}, .csv and .tsv (all but .parquet also with .gz or .zst), and hf:NAME"


def open_source(source: str, dialect: Dialect = Dialect()) -> Source:  # noqa: B008  frozen
    """Open a file by its suffix, a folder of files of one format, or a data set of the Hugging Face Hub.

    Args:
        source: A path that ends in .parquet, .jsonl, .ndjson, .json, .csv or .tsv (all but .parquet also with .gz or
            .zst), a folder of such files, or `hf:NAME[:CONFIG][:SPLIT]`.
        dialect: How text files are written.

    Raises:
        DataError: The source is missing, empty, truncated, or not in the format of its suffix.
        InputError: The dialect is wrong, or about another format.
    """
    dialect = check_dialect(dialect)
    if source.startswith(HUB):
        _check_no_dialect(source, dialect)
        return hub.open_hub(source)
    try:
        if Path(source).is_dir():
            return _open_folder(source, dialect)
    except ValueError:
        pass  # a name with a NUL; opening it gives the message
    return _open_file(source, dialect)


def open_ids(source: str, dialect: Dialect, texts: TextFiles, columns: Columns) -> IdSource:
    """Open a file of ids with the files that hold its texts.

    A CSV or TSV file whose first line has no known name of a column has no header line: if it is a file of texts, or a
    file of rows whose first cells are all numbers.

    Args:
        source: As in `open_source`.
        dialect: How the file of ids is written.
        texts: The files with the texts.
        columns: The columns that the caller asks for, which hold ids.

    Raises:
        DataError: A file cannot be read or lacks a column.
        InputError: The dialect is wrong.
    """
    asked = {name for name in (columns.query, columns.positive, columns.negatives) if name}
    first = _first_cells(source, replace(dialect, header=True))
    bare = is_bare(first) and not (asked & set(first) and dialect.header)
    rows = open_source(source, replace(dialect, header=False) if bare else dialect)
    roles = find_roles(rows, texts, columns, first if bare or not dialect.header else ())
    opened = [None if file is None else _open_texts(str(file)) for file in (texts.corpus, texts.queries)]
    read = ", ".join(f"{role} ids are read from {', '.join(names)}" for role, names in roles.by_id.items())
    note = f"{source} has no header line, so its columns are called 1, 2, ...; {read}." if bare else f"The {read}."
    return IdSource(rows, opened[0], opened[1], roles, [note])


@contextmanager
def naming_header(source: Source) -> Iterator[None]:
    """Add to an error about the columns of a CSV or TSV file that it may have no header line, if it knows no name."""
    try:
        yield
    except DataError as error:
        read = source.source if isinstance(source, WatchedSource) else source
        known = {EITHER, *(name for names in NAMES.values() for name in names)}
        nameless = known.isdisjoint(name.lower() for name in source.columns)
        if nameless and isinstance(read, DelimitedSource) and read.layout.header:
            raise DataError(f"{error} If its first line is a row, use --no-header.") from None
        raise


def _open_texts(file: str) -> Source:
    """Open a file with ids and texts."""
    first = _first_cells(file, Dialect())
    return open_source(file, Dialect(header=not first or any(cell.strip() in (*IDS, *TEXT) for cell in first)))


def _first_cells(source: str, dialect: Dialect) -> list[str]:
    """Return the cells of the first line of a CSV or TSV file that may have a header line; none of another file."""
    if not dialect.header or source.startswith(HUB) or format_of(Path(source)) not in DELIMITERS:
        return []
    opened = open_source(source, replace(dialect, header=False))
    piece = next(iter(opened.read(opened.columns, 1)))
    return [str(values[0]) for values in piece.columns.values()]


def _open_folder(name: str, dialect: Dialect) -> Source:
    """Open a folder in the layout of BEIR, or of files of one format; names like `.git` and `_SUCCESS` don't count."""
    beir = find_beir(Path(name))
    if beir is not None:
        _check_no_dialect(name, dialect)
        return open_beir(name, beir, lambda path: _open_file(str(path), Dialect()))
    hidden = {path for path in Path(name).iterdir() if path.name.startswith((".", "_"))}
    entries = sorted(path for path in Path(name).iterdir() if path not in hidden)
    formats: dict[str, list[Path]] = {}
    for path in entries:
        suffix = format_of(path) if path.is_file() else None
        if suffix is not None:
            formats.setdefault(suffix, []).append(path)
    if len(formats) > 1:
        formats.pop(".json", None)  # it describes the other files
    if not formats:
        raise DataError(f"{name} is a folder without a file to read. Files end in {READ}.")
    if len(formats) > 1:
        raise DataError(
            f"{name} holds files of several formats ({', '.join(sorted(formats))}). Name the files to read."
        )
    ((suffix, files),) = formats.items()
    sources = [_open_file(str(file), dialect) for file in files]
    if suffix not in JSON_LINES:
        check_columns(name, sources)
    # Files such as _SUCCESS and .git are not worth a word; a hidden file of rows may be forgotten.
    unread = [*(path for path in entries if path not in files), *sorted(path for path in hidden if format_of(path))]
    return FolderSource(name, files, sources, [path.name for path in unread])


def _open_file(source: str, dialect: Dialect) -> Source:
    path = Path(source)
    _check_file(source)
    suffix = format_of(path)
    if suffix == PARQUET:
        _check_no_dialect(source, dialect)
        return arrow.ParquetSource(source)
    if suffix is not None:
        check_content(path)
    if suffix in JSON_LINES:
        if dialect.of_cells:
            raise InputError(f"{source} is JSON Lines, but --quote, --delimiter and --no-header are for CSV and TSV.")
        return JsonLinesSource(source, dialect.encoding)
    if suffix is not None:
        return DelimitedSource(source, suffix, dialect)
    raise DataError(f"{source} has a suffix that continual doesn't read. It reads {READ}.")


def format_of(path: Path) -> str | None:
    """Return the suffix that names a file's format, without that of its compression; None if it is not read."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    compressed = len(suffixes) > 1 and suffixes[-1] in COMPRESSED
    suffix = suffixes[-2] if compressed else "".join(suffixes[-1:])
    known = suffix in (*JSON_LINES, *DELIMITERS) or (suffix == PARQUET and not compressed)
    return suffix if known else None


def _check_file(source: str) -> None:
    path = Path(source)
    try:
        check_regular(path)
        size = path.stat().st_size
        with path.open("rb"):
            pass
    except FileNotFoundError:
        raise DataError(f"{source} does not exist. Check the path, or use hf:NAME for a dataset on the Hub.") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{source} cannot be opened: {error}. Check its permissions and the path.") from None
    if size == 0:
        raise DataError(f"{source} is empty (0 bytes). Copy or write it again.")


def _check_no_dialect(source: str, dialect: Dialect) -> None:
    if dialect != Dialect():
        raise InputError(
            f"{source} is no text file, but --quote, --delimiter, --no-header and --encoding say how one is written. "
            "Leave them out."
        )
