"""fedloom provision: the table, the next commands, and exit code 2 with nothing written for bad input."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

from fedloom.cli import provision as command_module
from fedloom.kits.provision import DEFAULT_DAYS, DEFAULT_SERVER
from fedloom.kits.read_client import read_client_kit
from fedloom.kits.read_server import read_server_kit

PILOT = """
name = "wards"

[[clients]]
name = "north"
data = "nobody-has-this-file-here.jsonl"
rank = 8

[[clients]]
name = "south"
rank = 4
"""


@pytest.fixture
def wards(tmp_path):
    """pilot.toml, of which no data is on the operator's machine."""
    (tmp_path / "pilot.toml").write_text(PILOT)
    return tmp_path / "pilot.toml"


def test_the_table_and_the_next_commands(fedloom, wards, tmp_path):
    done = fedloom("provision", wards, "--out", tmp_path / "k", "--server", "a.example.org:9000", "--days", 2)
    assert done.code == 0, done.err
    server = read_server_kit(tmp_path / "k" / "server")
    assert str(server.address) == "a.example.org:9000"
    assert (server.expires - server.created).days == 2
    joined = "".join(line.strip(" │┃") for line in done.out.splitlines())
    unbroken = "".join(done.out.split()).replace("│", "")
    for name, rank in (("north", "8"), ("south", "4")):
        kit = read_client_kit(tmp_path / "k" / "clients" / name)
        assert name in joined
        assert rank in joined
        assert f"{kit.expires:%Y-%m-%d}" in joined
        assert f"fedloom join {kit.path} --data our.jsonl" in done.out
        # folded over lines of a narrow terminal, but whole
        assert all(part in unbroken for part in (kit.fingerprint[:20], kit.fingerprint[-6:]))
    assert f"fedloom serve {server.path}" in done.out


def test_defaults(fedloom, wards, monkeypatch):
    monkeypatch.chdir(wards.parent)
    assert fedloom("provision", "pilot.toml").code == 0
    kit = read_server_kit(wards.parent / "kits" / "server")
    assert str(kit.address) == DEFAULT_SERVER
    assert (kit.expires - kit.created).days == DEFAULT_DAYS
    assert inspect.signature(command_module.command).parameters["days"].default == DEFAULT_DAYS


def test_a_common_source_is_left_out_and_said_so(fedloom, wards, tmp_path):
    wards.write_text('[data]\nsource = "hf:x"\n[[clients]]\nname = "a"\n')
    done = fedloom("provision", wards, "--out", tmp_path / "k")
    assert "[data] source is not in the kits" in done.out
    assert read_server_kit(tmp_path / "k" / "server").experiment.data.source is None


def test_adding_a_client(fedloom, wards, tmp_path):
    fedloom("provision", wards, "--out", tmp_path / "k", "--server", "a.example.org:9000")
    wards.write_text(PILOT + '[[clients]]\nname = "west"\n')
    done = fedloom("provision", wards, "--out", tmp_path / "k", "--add")
    assert done.code == 0, done.err
    assert "west" in done.out
    assert "north" not in done.out
    assert set(read_server_kit(tmp_path / "k" / "server").clients) == {"north", "south", "west"}


BAD = {
    "no such file": ("", (), "cannot be read"),
    "unknown key": ("seeds = 1\n" + PILOT, (), "line 1: seeds: unknown key; did you mean seed"),
    "unequal ranks for fedit": ('method.name = "fedit"\n' + PILOT, (), "fedit needs clients of one rank"),
    "no port": (PILOT, ("--server", "a.example.org"), "this is no address of a server"),
    "every address": (PILOT, ("--server", "0.0.0.0:8000"), "no site can connect"),
    "no days": (PILOT, ("--days", "0"), "expected 1 to 3650, found 0"),
    "add to nothing": (PILOT, ("--add",), "there is no such folder"),
}


@pytest.mark.parametrize(("text", "options", "match"), BAD.values(), ids=BAD)
def test_bad_input_ends_with_2_and_writes_nothing(fedloom, wards, tmp_path, text, options, match):
    wards.write_text(text) if text else wards.unlink()
    done = fedloom("provision", wards, "--out", tmp_path / "k", *options)
    assert done.code == 2
    assert match in done.err
    assert not (tmp_path / "k").exists()


def test_a_folder_with_something_in_it_stays_as_it_is(fedloom, wards):
    done = fedloom("provision", wards, "--out", wards.parent)
    assert done.code == 2
    assert "there is something in this folder already" in done.err
    assert [path.name for path in wards.parent.iterdir()] == ["pilot.toml"]


def test_without_cryptography_the_error_says_what_to_install(wards):
    code = (
        "import sys; sys.modules['cryptography'] = None\n"
        f"sys.argv = ['fedloom', 'provision', {str(wards)!r}, '--out', {str(wards.parent / 'k')!r}]\n"
        "from fedloom.cli.main import main; main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pip install 'fedloom[flower]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_kits_need_neither_flower_nor_the_training_side(wards):
    code = (
        "import sys\n"
        "for name in ('flwr', 'transformers', 'peft', 'datasets', 'ray'): sys.modules[name] = None\n"
        f"sys.argv = ['fedloom', 'provision', {str(wards)!r}, '--out', {str(wards.parent / 'k')!r}]\n"
        "from fedloom.cli.main import main; main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (wards.parent / "k" / "server" / "kit.toml").is_file()
