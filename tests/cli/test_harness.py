"""fedloom evaluate --harness: lm-eval sees the plain base and the base with the delta, and both stand in one table."""

import json
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM

from fedloom import load_personal
from fedloom.engine.run import run
from fedloom.spec.load import load
from fedloom.testing.federation import tiny_federation

TASK = """task: capitals
dataset_path: json
dataset_kwargs:
  data_files: {{test: {file}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: choices
doc_to_target: answer
metric_list: [{{metric: acc}}]
"""


@pytest.fixture(scope="module")
def finished(federation, tmp_path_factory):
    return run(load(federation / "pilot.toml"), root=tmp_path_factory.mktemp("runs")).directory


@pytest.fixture
def fake(monkeypatch):
    """An lm-eval that knows one task, and keeps the models that it was given."""
    seen = []

    def measured(model, tasks, limit, **_):
        seen.append(model)
        return {"results": {tasks[0]: {"alias": "x", "acc,none": 0.25 * len(seen), "acc_stderr,none": 0.5}}}

    modules = {name: ModuleType(name) for name in ("lm_eval", "lm_eval.models", "lm_eval.tasks")}
    modules["lm_eval.models.huggingface"] = ModuleType("lm_eval.models.huggingface")
    modules["lm_eval"].simple_evaluate = measured
    modules["lm_eval"].models, modules["lm_eval"].tasks = modules["lm_eval.models"], modules["lm_eval.tasks"]
    modules["lm_eval.models"].huggingface = modules["lm_eval.models.huggingface"]
    modules["lm_eval.models.huggingface"].HFLM = lambda pretrained, **_: pretrained
    modules["lm_eval.tasks"].TaskManager = lambda **_: SimpleNamespace(all_tasks=["capitals"])
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return seen


def test_base_and_tuned_stand_side_by_side(fedloom, finished, federation, fake):
    outcome = fedloom("evaluate", finished, "--harness", "capitals", "--limit", 3)
    assert outcome.code == 0, outcome.err
    assert all(said in outcome.out for said in ("0.2500", "0.5000", "+0.2500", "first 3 rows"))
    model = load(federation / "pilot.toml").model.id
    plain = dict(AutoModelForCausalLM.from_pretrained(model).named_parameters())
    base, tuned = (dict(one.named_parameters()) for one in fake)
    changed = {name for name in plain if not torch.equal(tuned[name], plain[name])}
    assert all(torch.equal(base[name], plain[name]) for name in plain)
    assert changed
    assert all("proj" in name for name in changed)


def test_a_clients_own_model_is_measured_with_its_mixer(fedloom, fake, monkeypatch, tmp_path):
    text, answers = torch.tensor([[5, 6, 7, 8]]), []

    def answered(model, tasks, **_):
        answers.append(model(input_ids=text).logits.detach())
        return {"results": {tasks[0]: {"acc,none": 0.5}}}

    monkeypatch.setattr(sys.modules["lm_eval"], "simple_evaluate", answered)
    pilot = tiny_federation(tmp_path, rounds=2, ranks=(2, 1), method="fedalt")
    pilot.write_text(pilot.read_text().replace('name = "fedalt"', 'name = "fedalt"\nmixer_rate = 20.0'))
    mixed = run(load(pilot), root=tmp_path / "runs").directory
    assert fedloom("evaluate", mixed, "--harness", "capitals", "--client", "site-1").code == 0
    assert fedloom("export", mixed, "--client", "site-1", "--to", tmp_path / "home").code == 0
    plain = AutoModelForCausalLM.from_pretrained(load(pilot).model.id)
    torch.testing.assert_close(answers[0], plain(input_ids=text).logits)
    torch.testing.assert_close(answers[1], load_personal(plain, tmp_path / "home")(input_ids=text).logits)
    static = AutoModelForCausalLM.from_pretrained(tmp_path / "home" / "merged")(input_ids=text).logits
    assert (answers[1] - static).abs().max() > 1e-4, "the closest static mixture answers otherwise"


def test_a_task_that_nobody_knows_is_named(fedloom, finished, fake):
    outcome = fedloom("evaluate", finished, "--harness", "capitals,rivers")
    assert outcome.code == 2
    assert "rivers" in outcome.err
    assert fake == []


def test_without_lm_eval_the_extra_is_named(fedloom, finished, monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    outcome = fedloom("evaluate", finished, "--harness", "capitals")
    assert outcome.code == 2
    assert "fedloom[harness]" in outcome.err


def test_its_options_alone_are_refused(fedloom, finished):
    outcome = fedloom("evaluate", finished, "--limit", 3)
    assert outcome.code == 2
    assert "--harness" in outcome.err


def test_lm_eval_itself_on_a_local_task(fedloom, finished, tmp_path):
    pytest.importorskip("lm_eval.models.huggingface")
    rows = [{"question": f"{n}?", "choices": ["yes", "no"], "answer": n % 2} for n in range(6)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "capitals.yaml").write_text(TASK.format(file=tmp_path / "rows.jsonl"))
    outcome = fedloom("evaluate", finished, "--harness", "capitals", "--tasks-dir", tmp_path)
    assert outcome.code == 0, outcome.err
    assert "capitals" in outcome.out
    assert "acc" in outcome.out
