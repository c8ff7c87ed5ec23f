"""Imports point downwards only, and the server half needs no transformers: read from the syntax trees."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import fedloom.errors

SOURCE = Path(fedloom.errors.__file__).parent
LEVELS = {
    "errors": 0, "rng": 0, "environment": 0,
    "adapters": 1,
    "aggregation": 2, "privacy": 2, "planning": 2,
    "spec": 3,
    "data": 4, "rounds": 4,
    "training": 5, "store": 5,
    "evaluation": 6, "export": 6, "report": 6,
    "engine": 7, "kits": 7, "dashboard": 7,
    "cli": 8, "testing": 8,
    "": 9, "__main__": 9,
}  # fmt: skip
FILES = sorted(SOURCE.rglob("*.py"))
TRAINING_SIDE = {"data", "training"}
MAY_IMPORT_TRAINING_SIDE = {"engine", "export", "training", "data", "testing"}


def part_of(path: Path) -> str:
    relative = path.relative_to(SOURCE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem.replace("__init__", "")


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            # `from fedloom import rng` imports the module fedloom.rng.
            found |= {f"fedloom.{alias.name}" for alias in node.names} if node.module == "fedloom" else {node.module}
    return found


def parts_imported(path: Path) -> set[str]:
    return {name.split(".")[1] for name in imports_of(path) if name.startswith("fedloom.")}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_downwards(path):
    own = LEVELS[part_of(path)]
    upwards = {part for part in parts_imported(path) if LEVELS[part] > own}
    assert not upwards, f"{path.name} (level {own}) imports {sorted(upwards)}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_only_the_client_side_reads_data_and_trains(path):
    if part_of(path) not in MAY_IMPORT_TRAINING_SIDE:
        assert not parts_imported(path) & TRAINING_SIDE


@pytest.mark.parametrize("library", ["transformers", "peft"])
def test_only_training_imports_transformers_and_peft(library):
    users = {part_of(path) for path in FILES if any(name.split(".")[0] == library for name in imports_of(path))}
    assert users <= {"training", "testing"}


def test_there_is_a_level_for_every_part():
    assert {part_of(path) for path in FILES} <= set(LEVELS)


def test_the_check_sees_an_upward_import(tmp_path):
    file = tmp_path / "wrong.py"
    file.write_text("from fedloom.engine.drive import drive\nfrom fedloom import rng\n")
    assert parts_imported(file) == {"engine", "rng"}


def test_the_server_half_runs_without_transformers():
    code = (
        "import sys\n"
        "for name in ('transformers', 'peft', 'datasets', 'plotly'): sys.modules[name] = None\n"
        "import fedloom, fedloom.rounds.step, fedloom.rounds.assign, fedloom.rounds.wire, fedloom.engine.drive\n"
        "import fedloom.store.run_directory\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
