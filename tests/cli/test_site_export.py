"""fedloom export at a site: its own model out of its kit, of a run whose server has only parts of it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fedloom.aggregation.registry import METHODS
from fedloom.kits.site import read_site
from fedloom.spec.load import load
from fedloom.store import own_model
from fedloom.store.own_model import FILE, load_own_model, save_own_model
from fedloom.testing.federation import tiny_federation
from fedloom.testing.tiny import tiny_llama
from tests.some import mostly_slow

pytest.importorskip("flwr")
pytest.importorskip("cryptography")

NAMES = ("site-0", "site-1")


def losses(directory: Path) -> tuple[float, float]:
    about = json.loads((directory / "mixing.json").read_text())["about"]
    return about["held_out_loss"], about["merged_held_out_loss"]


def tensors(directory: Path) -> dict[str, torch.Tensor]:
    """All numbers in the files of a directory that was exported."""
    return {
        f"{path.relative_to(directory)} {name}": tensor
        for path in sorted(directory.rglob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }


def deployed(method: str, folder: Path, monkeypatch) -> Path:
    """The folder of a federation with the kits of sites that took part in a run, its base and rows where they were."""
    from flwr.supercore.task_identity import TaskIdentity

    from fedloom.engine.flower.host import FlowerHost, run_with
    from fedloom.kits.provision import provision
    from tests.engine.flower.grid import MemoryGrid, client
    from tests.engine.flower.test_exchange import SOON

    for name in ("run_id", "task_id", "node_id"):
        monkeypatch.setattr(TaskIdentity, f"_{name}", 1)
    pilot = tiny_federation(folder, rounds=2, ranks=(2, 1), method=method)
    provision(load(pilot), folder / "kits")
    nodes = {}
    for number, name in enumerate(NAMES, 1):
        kit = folder / "kits" / "clients" / name
        site = read_site(kit / "site.toml").model_copy(update={"data": str(folder / f"{name}.jsonl")})
        nodes[number] = client(name, kit / "state" / "clients", site=site.model_dump(mode="json"))
    run_with(FlowerHost(MemoryGrid(nodes), load(pilot), lambda _: None, SOON), folder / "served")
    return folder


@pytest.fixture(scope="module")
def federations(tmp_path_factory):
    """federations(method): a folder that tests do not change."""
    made: dict[str, Path] = {}

    def federation(method: str) -> Path:
        if method not in made:
            with pytest.MonkeyPatch.context() as patched:
                made[method] = deployed(method, tmp_path_factory.mktemp(method), patched)
        return made[method]

    return federation


@pytest.fixture
def kit(federations, tmp_path) -> Path:
    """A copy of the kit of site-1 of fedalt."""
    return Path(shutil.copytree(federations("fedalt") / "kits" / "clients" / "site-1", tmp_path / "kit"))


@pytest.mark.parametrize("method", mostly_slow(["fedalt", "fedsa"], "fedalt"))
def test_a_site_takes_home_what_a_run_on_one_machine_would_give_it(method, fedloom, federations, tmp_path):
    folder = federations(method)
    assert fedloom("run", folder / "pilot.toml", "--root", tmp_path / "runs").code == 0
    there = fedloom("export", tmp_path / "runs" / "tiny", "--client", "site-1", "--to", tmp_path / "run")
    here = fedloom("export", folder / "kits" / "clients" / "site-1", "--to", tmp_path / "site")
    assert there.code == 0, there.err
    assert here.code == 0, here.err
    assert "of client site-1 of round 2 of tiny, as it was measured last, to" in here.out
    assert here.out.splitlines()[1:] == there.out.splitlines()[1:], "with what merging costs on the site's rows"
    assert ("closest static mixture" in here.out) == (method == "fedalt")
    one, other = tensors(tmp_path / "run"), tensors(tmp_path / "site")
    assert one.keys() == other.keys()
    assert any(tensor.any() for name, tensor in one.items() if "lora_B" in name)
    assert all(torch.equal(one[name], other[name]) for name in one)
    if method == "fedalt":
        assert losses(tmp_path / "run") == losses(tmp_path / "site")
        assert {path.name for path in (tmp_path / "site").iterdir()} >= {"individual", "rest_of_world", "merged"}


def test_the_directory_of_what_the_site_keeps_will_do(fedloom, kit, tmp_path):
    state = Path(shutil.move(kit / "state", tmp_path / "elsewhere"))
    gone = fedloom("export", kit, "--to", tmp_path / "home")
    assert gone.code == 2
    assert "name that directory in place of KIT" in gone.err
    assert fedloom("export", state, "--to", tmp_path / "home").code == 0
    assert (tmp_path / "home" / "mixing.json").is_file()
    shutil.copytree(state / "clients" / "site-1", state / "clients" / "other")
    several = fedloom("export", state, "--to", tmp_path / "again")
    assert several.code == 2
    assert "several clients keep their models here (found other, site-1)" in several.err
    assert fedloom("export", state, "--client", "site-1", "--to", tmp_path / "again").code == 0


def test_merged_it_is_a_whole_model(fedloom, federations, tmp_path):
    for method in ("fedalt", "fedsa"):
        kit = federations(method) / "kits" / "clients" / "site-0"
        outcome = fedloom("export", kit, "--to", tmp_path / method, "--merge")
        assert outcome.code == 0, outcome.err
        assert "merged model of client site-0" in outcome.out
        assert (tmp_path / method / "config.json").is_file()


def test_without_a_place_it_is_written_into_the_kit(fedloom, kit):
    assert fedloom("export", kit).code == 0
    assert (kit / "export" / "mixing.json").is_file()
    again = fedloom("export", kit)
    assert again.code == 2
    assert "something here already" in again.err


def test_an_expired_kit_has_its_model_all_the_same(fedloom, kit, tmp_path):
    lines = (kit / "kit.toml").read_text().splitlines()
    old = ["expires = 2001-01-01T00:00:00+00:00" if line.startswith("expires") else line for line in lines]
    (kit / "kit.toml").write_text("\n".join(old) + "\n")
    assert fedloom("join", kit, "--dry-run").code == 2
    assert fedloom("export", kit, "--to", tmp_path / "home").code == 0


def test_rows_that_are_not_here_cost_only_what_is_made_of_them(fedloom, kit, tmp_path):
    kept = load_own_model(kit / "state" / "clients" / "site-1")
    facts = {**kept.facts, "rows": {"site-1": "those of the run were others"}}
    save_own_model(kit / "state" / "clients" / "site-1", replace(kept, facts=facts))
    outcome = fedloom("export", kit, "--to", tmp_path / "home")
    assert outcome.code == 0, outcome.err
    assert "the rows of site-1 are not those that the run was started with" in outcome.out
    assert not (tmp_path / "home" / "merged").exists()
    assert (tmp_path / "home" / "mixer.safetensors").is_file()


def test_the_base_is_where_site_toml_says(fedloom, federations, kit, tmp_path):
    moved = shutil.copytree(federations("fedalt") / "model", tmp_path / "moved")
    kept = load_own_model(kit / "state" / "clients" / "site-1")
    gone = kept.experiment.model_copy(
        update={"model": kept.experiment.model.model_copy(update={"id": str(tmp_path / "gone")})}
    )
    save_own_model(kit / "state" / "clients" / "site-1", replace(kept, experiment=gone))
    assert fedloom("export", kit, "--to", tmp_path / "home").code == 2
    _point_at(kit, moved)
    outcome = fedloom("export", kit, "--to", tmp_path / "home")
    assert outcome.code == 0, outcome.err
    assert str(moved) in (tmp_path / "home" / "README.md").read_text()


def test_a_base_with_other_weights_is_refused(fedloom, kit, tmp_path):
    _point_at(kit, tiny_llama(tmp_path / "other", seed=5))
    outcome = fedloom("export", kit, "--to", tmp_path / "home")
    assert outcome.code == 2
    assert "the base model has other weights than the one of this run" in outcome.err
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("whole", [True, False], ids=["never joined", "not measured"])
def test_before_it_is_measured_there_is_no_model(whole, fedloom, kit, tmp_path):
    shutil.rmtree(kit / "state") if whole else (kit / "state" / "clients" / "site-1" / FILE).unlink()
    outcome = fedloom("export", kit, "--to", tmp_path / "home")
    assert outcome.code == 2
    assert "no model of site-1 here: the run has not measured this client yet" in outcome.err
    assert all(name in outcome.err for name, method in METHODS.items() if method.personal)
    assert "loom)" not in outcome.err
    assert not (tmp_path / "home").exists()


def test_a_damaged_file_and_one_of_another_version_are_named(fedloom, kit, tmp_path, monkeypatch):
    path = kit / "state" / "clients" / "site-1" / FILE
    kept, data = load_own_model(path.parent), bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    damaged = fedloom("export", kit, "--to", tmp_path / "home")
    assert damaged.code == 2
    assert f"{path}: this client's model is damaged" in damaged.err
    monkeypatch.setattr(own_model, "VERSION", 9)
    save_own_model(path.parent, kept)
    monkeypatch.undo()
    later = fedloom("export", kit, "--to", tmp_path / "home")
    assert later.code == 2
    assert "another version" in later.err
    assert "own_model 9" in later.err


def test_what_a_kit_cannot_be_asked_for(fedloom, federations, kit, tmp_path):
    for options, said in (
        (["--round", 1], "a site keeps its model as the run measured it last"),
        (["--client", "site-0"], "this kit is another client's (expected 'site-0', found 'site-1')"),
    ):
        outcome = fedloom("export", kit, "--to", tmp_path / "home", *options)
        assert outcome.code == 2
        assert said in outcome.err
    server = fedloom("export", federations("fedalt") / "kits" / "server", "--to", tmp_path / "home")
    assert server.code == 2
    assert "this is the kit of a server" in server.err


def _point_at(kit: Path, model: Path) -> None:
    text = (kit / "site.toml").read_text()
    (kit / "site.toml").write_text(f"model = {json.dumps(str(model))}\n" + text)


def test_a_site_explains_its_own_model_as_the_run_would(fedloom, federations, kit, tmp_path):
    folder = federations("fedalt")
    assert fedloom("run", folder / "pilot.toml", "--root", tmp_path / "runs").code == 0
    ask = ("--input", "oak and wool")
    there = fedloom("explain", tmp_path / "runs" / "tiny", "--client", "site-1", *ask)
    here = fedloom("explain", kit, *ask)
    assert there.code == 0, there.err
    assert here.code == 0, here.err
    assert here.out.splitlines()[:-2] == there.out.splitlines()[:-2], "all but where the picture is"
    assert (kit / "explain" / "site-1.html").is_file()
    refused = fedloom("explain", kit, *ask, "--round", 1)
    assert refused.code == 2
    assert "Leave out --round" in refused.err
