"""Where a client's rows come from: a file, a Hugging Face data set, or the docstrings of installed packages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedloom.data.docstrings import docstring_rows
from fedloom.data.files import file_rows
from fedloom.data.hub import hub_rows, is_folder, saved_rows
from fedloom.errors import DataError


def read_rows(source: str, *, client: str) -> list[dict[str, Any]]:
    """All rows of a source, as they are: `docstrings:<package>,..`, `hf:<data set>[:<split>]`, a folder or a file.

    Raises: DataError that names the client, the source and, where there is one, the line.
    """
    kind, _, rest = source.partition(":")
    where = f"client {client!r}, {source}"
    if kind == "docstrings":
        rows = _docstrings(rest, client, where)
    elif kind == "hf":
        rows = hub_rows(rest, where)
    elif is_folder(source):
        rows = saved_rows(Path(source), where)
    else:
        return file_rows(Path(source), where)
    if not rows:
        raise DataError("the source has no rows", where=where, expected="at least two")
    return rows


def source_folder(source: str) -> Path | None:
    """The folder that the paths in a source's rows are relative to; None for a source that lies in no folder."""
    kind, _, rest = source.partition(":")
    if kind == "docstrings" or (kind == "hf" and not is_folder(rest.partition(":")[0])):
        return None
    place = Path(rest.partition(":")[0] if kind == "hf" else source)
    return place if is_folder(str(place)) else place.parent


def _docstrings(packages: str, client: str, where: str) -> list[dict[str, Any]]:
    names = [name.strip() for name in packages.split(",") if name.strip()]
    if not names:
        raise DataError("no package is named", where=where, expected="docstrings:<package>[,<package>]")
    try:
        return docstring_rows(names)
    except DataError as problem:
        raise DataError(problem.what, where=f"client {client!r}, {problem.where}", do=problem.do) from None
