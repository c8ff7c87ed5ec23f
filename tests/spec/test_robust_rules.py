"""[gate] and [robust]: what cannot go together is found before anything runs, and defaults stay out of the way."""

import pytest

from fedloom.aggregation.registry import METHODS
from fedloom.spec.dump import dump
from fedloom.spec.experiment import ClientTable, EvaluationTable, PrivacyTable, SecureAggregationTable
from fedloom.spec.gate_table import GateTable
from fedloom.spec.load import parse
from fedloom.spec.robust_rules import least_clients
from fedloom.spec.robust_table import RobustTable
from fedloom.spec.rules import problems_of
from fedloom.testing.engine import pretend_experiment


def experiment_of(method="fedit", clients=5, rank=2, **tables):
    made = tuple(ClientTable(name=f"c{number}", rank=rank, data="none.jsonl") for number in range(clients))
    update = {"clients": made, "robust": RobustTable(enabled=True), **tables}
    return pretend_experiment(method).model_copy(update=update)


def found(experiment):
    return [(".".join(map(str, problem.path)), problem.message) for problem in problems_of(experiment)]


@pytest.mark.parametrize("method", METHODS)
def test_methods_with_models_of_their_own_are_refused(method):
    problems = found(experiment_of(method))
    if METHODS[method].personal:
        [(path, message)] = problems
        assert path == "robust.enabled"
        assert f"clients of {method} have models of their own" in message
        assert "loom" in message
        assert "fedsa" not in message.split("among")[1]
    else:
        assert not problems


SECURE = SecureAggregationTable(enabled=True)
WHOLE = PrivacyTable(unit="client", epsilon=8.0, delta=1e-5)
FAULTS = [
    ({"secure_aggregation": SECURE}, "robust.enabled", "which [secure_aggregation] hides"),
    ({"privacy": WHOLE}, "robust.enabled", "which clips each client already"),
    (
        {"robust": RobustTable(enabled=True, rule="krum", max_bad=2)},
        "robust.max_bad",
        "at least 7 clients; a round has 5",
    ),
    ({"robust": RobustTable(enabled=True, rule="trimmed-mean", max_bad=3)}, "robust.max_bad", "at least 7 clients"),
    (
        {"robust": RobustTable(enabled=True, rule="trimmed-mean"), "method": "loom"},
        "robust.rule",
        "average factors (fedit",
    ),
    ({"robust": RobustTable(enabled=True, rule="trimmed-mean"), "rank": "auto"}, "robust.rule", "of one rank"),
    (
        {"robust": RobustTable(enabled=True, rule="geometric-median"), "method": "hetlora"},
        "robust.rule",
        "by its own rule",
    ),
    ({"robust": RobustTable(rule="krum")}, "robust.rule", "is for enabled = true"),
    ({"robust": RobustTable(enabled=True, max_bad=1)}, "robust.max_bad", "for rules that ask for it"),
    (
        {"robust": RobustTable(enabled=True, rule="trimmed-mean", max_norm_ratio=3.0)},
        "robust.max_norm_ratio",
        "by itself",
    ),
    (
        {"robust": RobustTable(enabled=True, rule="trimmed-mean", drop_norm_ratio=9.0)},
        "robust.drop_norm_ratio",
        "by itself",
    ),
    ({"robust": RobustTable(enabled=True, drop_norm_ratio=0.5)}, "robust.drop_norm_ratio", "expected 1 or more, or 0"),
    ({"gate": GateTable(on_reject="stop")}, "gate.on_reject", "is for enabled = true"),
    ({"gate": GateTable(enabled=True), "evaluation": EvaluationTable(every=2)}, "evaluation.every", "every round"),
]


@pytest.mark.parametrize(("changes", "path", "message"), FAULTS)
def test_contradictions_are_named(changes, path, message):
    problems = found(experiment_of(**changes))
    assert any(where == path and message in what for where, what in problems), problems


def test_a_gate_goes_with_secure_sums_and_with_models_of_their_own():
    for method in ("fedit", "fedalt"):
        experiment = experiment_of(method, robust=RobustTable(), gate=GateTable(enabled=True))
        assert not found(experiment)
    rounds = pretend_experiment(rounds={"max_update_norm": 1.0}).rounds
    assert not found(
        experiment_of(robust=RobustTable(), gate=GateTable(enabled=True), secure_aggregation=SECURE, rounds=rounds)
    )


def test_what_a_run_wrote_is_read_again_and_older_files_have_neither_table(tmp_path):
    def read(text):
        return parse(text, where="x", folder=tmp_path, data_at_sites=True)

    experiment = experiment_of(gate=GateTable(enabled=True, max_client_loss=5.0, on_reject="stop"))
    again = read(dump(experiment))
    assert (again.gate, again.robust) == (experiment.gate, experiment.robust)
    new = ("[gate]\nenabled = false\n", "[robust]\nenabled = false\n")
    text = dump(pretend_experiment())
    assert all(table in text for table in new)
    old = read(text.replace(new[0], "").replace(new[1], ""))
    assert (old.gate, old.robust) == (GateTable(), RobustTable())


def test_how_many_clients_a_rule_needs():
    rules = ("none", "geometric-median", "cosine", "trimmed-mean", "krum", "multi-krum")
    assert [least_clients(rule, 2) for rule in rules] == [1, 1, 5, 5, 7, 7]
