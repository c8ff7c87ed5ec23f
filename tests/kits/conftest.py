"""Kits that were made once, in copies that a test may spoil."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fedloom.kits.provision import provision
from fedloom.spec.load import parse

PILOT = """
name = "pilot"

[model]
id = "org/base"

[method]
name = "fedsa"

[[clients]]
name = "hospital-north"
data = "/secret/folder/north.jsonl"
rank = 8

[[clients]]
name = "clinic.east"
rank = 2
columns = {prompt = "frage"}

[[clients]]
name = "lab_9"
data = "hf:org/rows"
rank = 4
"""


def experiment_of(text: str = PILOT, more: str = ""):
    return parse(text + more, where="pilot.toml", folder=Path("/"), data_at_sites=True)


@pytest.fixture(name="experiment_of")
def experiment_of_a_text():
    return experiment_of


@pytest.fixture
def pilot() -> str:
    return PILOT


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Path:
    """Never to be changed: `kits` is a copy."""
    out = tmp_path_factory.mktemp("made") / "kits"
    provision(experiment_of(), out, "fedloom.example.org:8443", days=30)
    return out


@pytest.fixture(scope="session")
def others(tmp_path_factory) -> Path:
    """Another federation's kits, of the same names."""
    out = tmp_path_factory.mktemp("others") / "kits"
    provision(experiment_of(), out, "fedloom.example.org:8443", days=30)
    return out


@pytest.fixture
def kits(made, tmp_path) -> Path:
    return shutil.copytree(made, tmp_path / "kits")


@pytest.fixture
def server(kits) -> Path:
    return kits / "server"


@pytest.fixture
def client(kits) -> Path:
    return kits / "clients" / "hospital-north"
