"""What the commands say of a method that gives each client its own model."""

import pytest
import torch
from safetensors.torch import load_file

from fedloom.testing.federation import tiny_federation


@pytest.fixture(scope="module")
def pilot_of_fedsa(tmp_path_factory):
    return tiny_federation(tmp_path_factory.mktemp("fedsa"), rounds=1, ranks=(2, 1), method="fedsa")


@pytest.fixture
def run(fedloom, pilot_of_fedsa):
    root = pilot_of_fedsa.parent / "runs"
    if not root.exists():
        outcome = fedloom("run", pilot_of_fedsa, "--root", root)
        assert outcome.code == 0, outcome.err
        (root / "printed.txt").write_text(outcome.out)
    return root / "tiny"


def test_run_names_a_place_for_each_client(run):
    printed = " ".join((run.parent / "printed.txt").read_text().split())
    assert "adapter/CLIENT one for each client, there is no global model: site-0, site-1" in printed
    assert "each client is measured with its own model, as fedsa makes no global one" in printed
    assert sorted(path.name for path in (run / "adapter").iterdir()) == ["site-0", "site-1"]


@pytest.mark.parametrize(("options", "file"), [([], "adapter_config.json"), (["--merge"], "config.json")])
def test_export_writes_the_model_of_the_client_that_is_named(options, file, fedloom, run, tmp_path):
    outcome = fedloom("export", run, "--client", "site-1", "--to", tmp_path / "out", *options)
    assert outcome.code == 0, outcome.err
    assert "of client site-1" in outcome.out
    assert (tmp_path / "out" / file).is_file()
    if not options:
        theirs, own = (
            load_file(path / "adapter_model.safetensors") for path in (tmp_path / "out", run / "adapter/site-1")
        )
        assert theirs.keys() == own.keys()
        assert all(torch.equal(theirs[key], own[key]) for key in own)
        assert any(own[key].any() for key in own if "lora_B" in key)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "each client has its own (expected a client: site-0, site-1"),
        (["--client", "x"], "'x' has no model of its own"),
    ],
)
def test_export_wants_a_client_that_has_a_model(options, said, fedloom, run, tmp_path):
    outcome = fedloom("export", run, "--to", tmp_path / "out", *options)
    assert outcome.code == 2
    assert said in outcome.err
    assert not (tmp_path / "out").exists()


def test_export_of_one_model_for_all_takes_no_client(fedloom, pilot, tmp_path):
    assert fedloom("run", pilot, "--root", tmp_path / "runs").code == 0
    finished = tmp_path / "runs" / "tiny"
    outcome = fedloom("export", finished, "--client", "site-0", "--to", tmp_path / "out")
    assert outcome.code == 2
    assert "loom gives all clients one model" in outcome.err


def test_evaluate_says_whose_models_these_are(fedloom, run):
    outcome = fedloom("evaluate", run, "--generate", 0)
    assert outcome.code == 0, outcome.err
    assert "each client is measured with its own model" in " ".join(outcome.out.split())


def test_a_client_that_lost_what_it_kept_is_an_error_that_names_its_file(fedloom, run, tmp_path):
    (run / "clients" / "site-0").rename(tmp_path / "away")
    try:
        outcome = fedloom("export", run, "--client", "site-0", "--to", tmp_path / "out")
    finally:
        (tmp_path / "away").rename(run / "clients" / "site-0")
    assert outcome.code == 2
    assert "clients/site-0/0001.safetensors" in outcome.err


def test_evaluate_per_client_prints_each_model_for_each_client(fedloom, run):
    outcome = fedloom("evaluate", run, "--per-client", "--against", "loom")
    assert outcome.code == 0, outcome.err
    assert "alone" in outcome.out
    assert "fedsa is better than the model of loom for" in " ".join(outcome.out.split())
    refused = fedloom("evaluate", run, "--per-client", "--against", "fedsa")
    assert refused.code == 2
    assert "fedsa is the run's own method" in refused.err
