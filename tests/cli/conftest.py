"""The command line in this process, and a tiny federation that has been run once."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from fedloom.cli.main import main
from fedloom.testing.federation import tiny_federation


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


@pytest.fixture
def fedloom(capsys, monkeypatch):
    """fedloom("run", "pilot.toml") -> exit code and what was printed."""

    def call(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["fedloom", *map(str, arguments)])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 0
        printed = capsys.readouterr()
        return Outcome(code, printed.out, printed.err)

    return call


@pytest.fixture(scope="session")
def federation(tmp_path_factory) -> Path:
    """A folder with a model, rows and pilot.toml; tests work on copies of it."""
    folder = tmp_path_factory.mktemp("federation")
    tiny_federation(folder, rounds=2)
    return folder


@pytest.fixture(scope="session")
def gallery(tmp_path_factory) -> Path:
    """The same for a model of images."""
    folder = tmp_path_factory.mktemp("gallery")
    tiny_federation(folder, rounds=2, task="image-classification")
    return folder


@pytest.fixture
def images(gallery, tmp_path) -> Path:
    """pilot.toml of a federation of images, in a folder of this test's own."""
    shutil.copytree(gallery, tmp_path / "site", dirs_exist_ok=True)
    return tmp_path / "site" / "pilot.toml"


@pytest.fixture
def pilot(federation, tmp_path) -> Path:
    """pilot.toml in a folder of this test's own."""
    shutil.copytree(federation, tmp_path / "site", dirs_exist_ok=True)
    return tmp_path / "site" / "pilot.toml"
