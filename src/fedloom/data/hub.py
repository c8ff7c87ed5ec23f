"""Rows of a Hugging Face data set, by id or from a folder that `datasets` saved. No remote code is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedloom.errors import DataError


def hub_rows(name: str, where: str) -> list[dict[str, Any]]:
    """The rows of `<data set>[:<split>]`; the split is train where none is named. A third part of the id is a subset.

    Raises: DataError where `datasets` is not installed, or cannot find or read the data set.
    """
    identifier, _, split = name.partition(":")
    if is_folder(identifier):
        return saved_rows(Path(identifier), where, split)
    datasets = _datasets(where)
    owner_and_name, subset = _subset(identifier)
    try:
        return _rows(datasets.load_dataset(owner_and_name, subset, split=split or "train"))
    except (OSError, ValueError, RuntimeError, KeyError, datasets.exceptions.DatasetsError) as problem:
        raise _unusable(problem, where) from problem


def saved_rows(folder: Path, where: str, split: str = "") -> list[dict[str, Any]]:
    """The rows of a folder written by `save_to_disk`; of the split train where it has several and none is named.

    Raises: DataError for a folder that `datasets` did not write, or a split that it does not hold.
    """
    datasets = _datasets(where)
    try:
        saved = datasets.load_from_disk(str(folder))
    except (OSError, ValueError, RuntimeError, KeyError, datasets.exceptions.DatasetsError) as problem:
        if any(folder.glob("*.parquet")) or any(folder.glob("*.json*")) or any(folder.glob("*.csv")):
            raise DataError("a folder of files", where=where, do="Name one of the files in it") from problem
        raise _unusable(problem, where) from problem
    if not isinstance(saved, datasets.DatasetDict):
        return _rows(saved)
    chosen = split or (next(iter(saved)) if len(saved) == 1 else "train")
    if chosen not in saved:
        raise DataError("no such split", where=where, expected=" or ".join(saved), found=chosen)
    return _rows(saved[chosen])


def is_folder(text: str) -> bool:
    """Whether there is a folder of this name; not where the system cannot have such a name."""
    try:
        return Path(text).is_dir()
    except (OSError, ValueError):
        return False


def _rows(dataset: Any) -> list[dict[str, Any]]:
    """Rows as plain values; the numbers of a class column become its names."""
    rows = dataset.to_list()
    named = {column: feature for column, feature in dataset.features.items() if hasattr(feature, "int2str")}
    for column, feature in named.items():
        for row in rows:
            if isinstance(row[column], int):
                row[column] = feature.int2str(row[column]) if row[column] >= 0 else None
    return rows


def _subset(identifier: str) -> tuple[str, str | None]:
    parts = identifier.split("/")
    return ("/".join(parts[:2]), "/".join(parts[2:])) if len(parts) > 2 else (identifier, None)


def _unusable(problem: Exception, where: str) -> DataError:
    reason = str(problem).strip().partition("\n")[0] or type(problem).__name__
    return DataError(f"datasets cannot read it: {reason}", where=where, do="Check the name, the split and the network")


def _datasets(where: str) -> Any:
    try:
        import datasets
    except ImportError as problem:
        raise DataError(
            "Hugging Face data sets need datasets", where=where, do="pip install 'fedloom[train]'"
        ) from problem
    return datasets
