"""Where the source of an installed package lies. Files are found by name and spec; nothing is imported or run."""

from __future__ import annotations

import difflib
import importlib.metadata
import importlib.util
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from fedloom.errors import DataError

STANDARD_LIBRARY = "stdlib"
SKIPPED = {"test", "tests", "conftest", "setup", "idlelib", "lib2to3", "turtledemo"}


def is_public(name: str) -> bool:
    return not name.startswith("_")


def roots(package: str) -> list[tuple[Path, str]]:
    """The source files or folders of a package, each with its dotted name.

    Raises: DataError, with the nearest names, for one that is not installed or has no Python source.
    """
    if package == STANDARD_LIBRARY:
        names = sorted(name for name in sys.stdlib_module_names if is_public(name) and name not in SKIPPED)
        return [(path, name) for name in names for path in _source_of(_standard_library(), name)]
    top, *parts = package.split(".")
    places = _top_level(top)
    if not places:
        raise _unknown(package, top, [STANDARD_LIBRARY, *sys.stdlib_module_names, *_installed_names()])
    for part in parts:
        inside = [found for place in places if place.is_dir() for found in _source_of(place, part)]
        if not inside:
            raise _unknown(package, part, [name for place in places for name in _children(place)])
        places = inside
    return [(place, package) for place in places]


def public_modules(root: Path, name: str) -> Iterator[tuple[Path, str]]:
    """Every public module at and below a root with its dotted name, in the order of the names, without tests."""
    if root.is_file():
        yield root, name
        return
    if (root / "__init__.py").is_file():
        yield root / "__init__.py", name
    for path in sorted(root.iterdir()):
        usable = path.stem.isidentifier() and is_public(path.name) and path.stem not in SKIPPED
        if not usable or path.name.startswith("test_") or path.stem.endswith("_test"):
            continue
        if path.is_dir():
            yield from public_modules(path, f"{name}.{path.name}")
        elif path.suffix == ".py":
            yield path, f"{name}.{path.stem}"


def module_file(root: Path, name: str, module: str) -> Path | None:
    """The file of a dotted module at or below a root that is called `name`; None if there is none."""
    if root.is_file() or not f"{module}.".startswith(f"{name}."):
        return root if module == name else None
    inside = root.joinpath(*module.removeprefix(name).strip(".").split("."))
    candidates = (inside.with_suffix(".py"), inside / "__init__.py")
    return next((path for path in candidates if path.is_file()), None)


def _top_level(name: str) -> list[Path]:
    """Where a top-level package lies; finding its spec does not execute it. Empty if there is none."""
    if name in sys.stdlib_module_names:
        return _source_of(_standard_library(), name)
    try:
        spec = importlib.util.find_spec(name) if name.isidentifier() else None
    except ValueError:  # a module without a spec, such as __main__
        spec = None
    if spec is None:
        return []
    if spec.submodule_search_locations is not None:
        return [Path(place) for place in spec.submodule_search_locations]
    return [Path(spec.origin)] if spec.origin is not None and spec.origin.endswith(".py") else []


def _standard_library() -> Path:
    return Path(sysconfig.get_path("stdlib"))


def _source_of(folder: Path, name: str) -> list[Path]:
    """A package folder or a module file of this name."""
    if (folder / name).is_dir():
        return [folder / name]
    return [folder / f"{name}.py"] if (folder / f"{name}.py").is_file() else []


def _children(place: Path) -> list[str]:
    if not place.is_dir():
        return []
    return [path.stem for path in place.iterdir() if path.suffix == ".py" or path.is_dir()]


def _installed_names() -> list[str]:
    return list(importlib.metadata.packages_distributions())


def _unknown(package: str, part: str, names: list[str]) -> DataError:
    nearest = difflib.get_close_matches(part, sorted(filter(is_public, names)), n=3)
    compiled = part == package and part in names
    what = "has no Python source to read docstrings from" if compiled else f"no package or module {part!r} is installed"
    nearest = [name for name in nearest if name != part]
    return DataError(
        what,
        where=f"docstrings:{package}",
        do=f"Did you mean {' or '.join(nearest)}?" if nearest else "Install it, or name another package",
    )
