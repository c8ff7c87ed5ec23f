"""From the files of probes to a planned configuration that runs."""

import json
from dataclasses import replace

import pytest

import fedloom
from fedloom.engine.planned import (
    base_for_planning,
    head_bytes,
    known_of,
    planned_ahead,
    planner_of,
    probes_in,
    quantile,
    with_importance,
    write_planned,
)
from fedloom.engine.planner import from_text
from fedloom.engine.planning import work_of
from fedloom.errors import ConfigError, PlanError
from fedloom.planning.plan import from_json
from fedloom.planning.probe_file import Bucket
from fedloom.rounds.world import world_of
from fedloom.spec.load import load
from fedloom.store.planned import FACT
from fedloom.store.run_directory import RunDirectory
from fedloom.testing.federation import tiny_federation
from fedloom.testing.probes import pretended_probe, write_probes
from tests.some import mostly_slow

PLANNING = '\n[planning]\ndeadline = "{deadline}"\nranks = [1, 2, 4]\n'


@pytest.fixture
def pilot(tmp_path):
    """The file of a federation that leaves all to the planner; a probe of each client, of which the last is slow."""

    def make(deadline="1 min", task="generation"):
        path = tiny_federation(tmp_path, ranks=(1, 1, 1), rounds=2, task=task)
        text = path.read_text().replace("rank = 1\n", 'rank = "auto"\nbatch_size = "auto"\nbits = "auto"\n')
        path.write_text(text + PLANNING.format(deadline=deadline))
        base = base_for_planning(load(path))
        probes = [pretended_probe(base, f"site-{number}", slower=slower) for number, slower in enumerate((1, 2, 50))]
        return path, write_probes(tmp_path / "probes", probes)

    return make


def test_a_run_elsewhere_takes_along_what_it_was_planned_from(pilot):
    path, folder = pilot()
    experiment = load(path)
    assert planned_ahead(experiment) == (experiment, None)  # nobody probed: refused where the run begins
    probed = experiment.model_copy(update={"planning": experiment.planning.model_copy(update={"probes": str(folder)})})
    planned, kept = planned_ahead(probed)
    assert planned.is_planned
    assert kept.planner.left == {f"site-{number}": ("rank", "batch_size", "bits") for number in range(3)}
    assert planned == kept.planner.applied(probed, kept.plan)
    assert planned_ahead(planned) == (planned, None)


@pytest.mark.parametrize("task", mostly_slow(["generation", "classification"], "classification"))
def test_the_plan_runs(pilot, tmp_path, task):
    path, folder = pilot(task=task)
    experiment = load(path)
    planner = planner_of(experiment, folder)
    plan = planner.plan(experiment)
    write_planned(tmp_path / "planned.toml", planner.applied(experiment, plan))
    planned = load(tmp_path / "planned.toml")
    assert planned.is_planned
    result = fedloom.run(planned, root=tmp_path / "runs")
    lines = [json.loads(line) for line in (result.directory / "journal.jsonl").read_text().splitlines()]
    assert {line["client"] for line in lines if line["kind"] == "contribution"} == {"site-0", "site-1", "site-2"}
    started = next(line for line in lines if line["kind"] == "run_started")["clients"]
    for one in plan.clients:
        assert started[one.client]["modules"] == len(one.ranks)
        assert started[one.client]["rank"] == max(rank for _, rank in one.ranks)


def within(experiment, **limits):
    return experiment.model_copy(update={"planning": experiment.planning.model_copy(update=limits)})


def test_a_slow_machine_is_given_less_so_that_all_keep_the_deadline(pilot):
    path, folder = pilot()
    experiment = load(path)
    planner = planner_of(experiment, folder)
    deadline = 0.85 * planner.plan(experiment).round_seconds
    plan = planner.plan(within(experiment, deadline=deadline))
    assert plan.round_seconds <= deadline
    covered = {one.client: one.covered for one in plan.clients}
    assert covered["site-2"] < covered["site-0"]
    assert plan.straggler.client == "site-2"


def test_where_memory_is_scarce_bits_rows_or_ranks_are_fewer(pilot):
    path, folder = pilot()
    experiment = load(path)
    planner = planner_of(experiment, folder)
    plenty = planner.plan(experiment).of("site-0")
    scarce = planner.plan(within(experiment, memory=0.8 * plenty.memory_bytes)).of("site-0")
    assert scarce.memory_bytes <= 0.8 * plenty.memory_bytes
    assert (scarce.bits, scarce.batch, scarce.covered) < (plenty.bits, plenty.batch, plenty.covered)


def test_what_a_probe_says_of_rows():
    assert quantile((Bucket(up_to=16, rows=90), Bucket(up_to=64, rows=10)), 0.9) == 16
    assert quantile((Bucket(up_to=16, rows=89), Bucket(up_to=64, rows=11)), 0.9) == 64
    assert quantile((), 0.9) == 1


def test_rows_are_no_longer_than_they_are_cut(pilot):
    path, folder = pilot()
    experiment = load(path)
    probe = probes_in(folder)[0]
    assert known_of(experiment, probe).tokens == 64
    short = experiment.model_copy(update={"training": experiment.training.model_copy(update={"max_tokens": 24})})
    assert (known_of(short, probe).tokens, known_of(short, probe).labels) == (24, 16)


def test_a_probe_of_another_base_is_refused(pilot, tmp_path):
    path, folder = pilot()
    (folder / "site-1.json").write_text((folder / "site-1.json").read_text().replace('"digest":"', '"digest":"0'))
    with pytest.raises(PlanError, match=r"probe of 'site-1'.*measured another base"):
        planner_of(load(path), folder)


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda folder: (folder / "site-0.json").unlink(), "client 'site-0': its machine is not known"),
        (lambda folder: (folder / "site-0.json").write_text("{}"), "site-0.json"),
        (lambda folder: (folder / "site-0.json").write_bytes(b"\xff"), "the probe cannot be read"),
        (
            lambda folder: (folder / "copy.json").write_text((folder / "site-0.json").read_text()),
            "two probes of client 'site-0'.*copy.json and site-0.json",
        ),
        (lambda folder: [file.unlink() for file in folder.iterdir()], "there are no probes"),
    ],
    ids=["missing", "empty", "bytes", "twice", "none"],
)
def test_what_is_wrong_with_the_files_is_said(pilot, spoil, named):
    path, folder = pilot()
    spoil(folder)
    with pytest.raises((PlanError, ConfigError), match=named):
        planner_of(load(path), folder).plan(load(path))


def test_a_folder_of_probes_is_relative_to_the_configuration(pilot, tmp_path, monkeypatch):
    path, folder = pilot()
    path.write_text(path.read_text().replace("[planning]", f'[planning]\nprobes = "{folder.name}"'))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert set(planner_of(load(path), None).known) == {"site-0", "site-1", "site-2"}


def test_without_a_folder_it_says_how_to_name_one(pilot):
    path, _ = pilot()
    with pytest.raises(ConfigError, match=r"expected \[planning\] probes, or --probes DIR"):
        planner_of(load(path), None)


def test_a_configuration_that_is_not_planned_does_not_run(pilot):
    path, _ = pilot()
    with pytest.raises(ConfigError, match=r'is "auto": it is not planned yet.*fedloom plan CONFIG --out'):
        world_of(load(path), {"layers.0.q_proj": (8, 8)})


def test_a_run_of_probes_plans_itself_and_keeps_what_it_was_planned_from(pilot):
    path, folder = pilot()
    experiment = within(load(path), probes=str(folder))
    result = fedloom.run(experiment, root=path.parent / "runs")
    directory = RunDirectory.open(result.directory)
    planner = from_text(directory.facts[FACT])
    assert planner.left["site-1"] == ("rank", "batch_size", "bits")
    plan = from_json(directory.plan.read_text())
    assert directory.experiment() == planner.applied(experiment, plan)
    assert fedloom.resume(result.directory).digest == result.digest


def test_layers_count_as_a_run_measured_them(pilot, tmp_path):
    path, folder = pilot()
    measuring = tiny_federation(tmp_path / "measuring", name="measuring", ranks=(2,), rounds=1)
    measuring.write_text(measuring.read_text().replace("[training]", "[training]\nimportance = true"))
    measuring.write_text(measuring.read_text().replace('id = "model"', f'id = "{path.parent / "model"}"'))
    run = fedloom.run(load(measuring), root=tmp_path / "runs").directory
    planner = planner_of(load(path), folder)
    counted = with_importance(planner, run)
    assert set(counted.importance) == {module.name for module in planner.architecture.modules}
    assert len(set(counted.importance.values())) > 1
    plain = fedloom.run(within_training(load(measuring), importance=False), root=tmp_path / "plain").directory
    with pytest.raises(PlanError, match="the run measured no importance"):
        with_importance(planner, plain)


def within_training(experiment, **changes):
    return experiment.model_copy(update={"training": experiment.training.model_copy(update=changes)})


def test_bits_that_a_machine_cannot_load_are_not_planned_and_none_is_an_error(pilot):
    path, folder = pilot()
    experiment = load(path)
    planner = planner_of(experiment, folder)
    heavy = {name: replace(one, loading={32: 5e8, 8: 4e8, 4: 1e5}) for name, one in planner.known.items()}
    plan = replace(planner, known=heavy).plan(within(experiment, memory=3e8))
    assert {one.bits for one in plan.clients} == {4}
    with pytest.raises(ConfigError, match=r"client 'site-0': loading the base takes 0 MB.*found 0 MB"):
        replace(planner, known=heavy).plan(within(experiment, memory=9e4))


def test_what_travels_counts_a_head_with_the_classes_that_the_rows_have(tmp_path):
    """Without its rows, planning would know of two classes; these have six."""
    path = tiny_federation(tmp_path, task="classification", ranks=(1, 1))
    for place in range(2):
        rows = [json.dumps({"text": f"row {row}", "label": f"class {row % 6}"}) for row in range(12)]
        (tmp_path / f"site-{place}.jsonl").write_text("\n".join(rows) + "\n")
    experiment = load(path)
    hidden = base_for_planning(experiment).model.config.hidden_size
    assert head_bytes(experiment) == 4 * 6 * (hidden + 1)


def test_a_model_that_writes_texts_sends_no_head(tmp_path):
    assert head_bytes(load(tiny_federation(tmp_path))) == 0


def test_a_method_that_borrows_is_planned_with_its_second_branch(pilot):
    path, folder = pilot()
    text = path.read_text().replace('"loom"', '"fedalt"')
    assert "fedalt" in text
    (path.parent / "other.toml").write_text(text)
    (alone, beside) = (load(path), load(path.parent / "other.toml"))
    one = probes_in(folder)[0]
    assert not work_of(alone, known_of(alone, one)).borrows
    assert work_of(beside, known_of(beside, one)).borrows
