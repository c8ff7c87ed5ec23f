"""What each client trains on and what it holds out."""

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedloom.data import clients as clients_module
from fedloom.data.clients import Sources, labels, load_client, split
from fedloom.data.examples import Classification, Generation, Message
from fedloom.errors import DataError
from fedloom.spec.experiment import Experiment


def write(path, rows):
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return str(path)


def classified(pairs):
    return [{"text": text, "label": label} for text, label in pairs]


def experiment(clients, task="classification", **tables):
    return Experiment(model={"task": task, **tables.pop("model", {})}, clients=clients, **tables)


@pytest.fixture
def two_sites(tmp_path):
    a = write(tmp_path / "a.jsonl", classified((f"text {number}", "xy"[number % 2]) for number in range(40)))
    b = write(tmp_path / "b.jsonl", classified([(f"word {number}", "z") for number in range(20)] + [("", "z")]))
    return [{"name": "a", "data": a}, {"name": "b", "data": b}]


def chat(prompt, response):
    return Generation((Message("user", prompt), Message("assistant", response)))


@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 2)), min_size=2, max_size=60),
    st.floats(0.01, 0.99),
    st.integers(0, 99),
)
def test_a_split_loses_nothing_and_asks_nothing_twice(asked, share, seed):
    examples = [chat(str(prompt), str(response)) for prompt, response in asked]
    if len(set(examples)) == 1:
        with pytest.raises(DataError, match="all usable rows are the same"):
            split(examples, share, seed, where="client 'a'")
        return
    train, held_out = split(examples, share, seed, where="client 'a'")
    assert train
    assert held_out
    assert Counter(train + held_out) == Counter(examples)
    assert not set(train) & set(held_out)
    prompts = [{example.prompt_messages for example in side} for side in (train, held_out)]
    assert len({prompt for prompt, _ in asked}) == 1 or not prompts[0] & prompts[1]


def test_a_split_holds_out_the_share_asked_for():
    examples = [chat(str(number), "a") for number in range(100)]
    train, held_out = split(examples, 0.2, 5, where="")
    assert (len(train), len(held_out)) == (80, 20)
    assert held_out != split(examples, 0.2, 6, where="")[1]


def test_a_client_is_loaded_alike_alone_and_among_others(two_sites):
    run = experiment(two_sites)
    sources = Sources(run)
    data = sources.client("b")
    assert data == load_client(run, "b")
    assert (len(data.train), len(data.held_out), data.dropped) == (18, 2, 1)
    assert sources.client("b") is data


def test_max_rows_are_drawn_by_seed(two_sites):
    drawn = [set(load_client(experiment(two_sites, seed=seed, data={"max_rows": 10}), "a").train) for seed in (1, 1, 2)]
    assert len(drawn[0]) == 9
    assert drawn[0] == drawn[1] != drawn[2]


def test_labels_are_the_sorted_union_or_those_given(two_sites):
    run = experiment(two_sites)
    assert labels(run, Sources(run)) == ("x", "y", "z")
    given_labels = experiment(two_sites, model={"labels": ("z", "y", "x", "w")})
    assert labels(given_labels, Sources(given_labels)) == ("z", "y", "x", "w")


def test_labels_are_those_of_the_clients_that_take_part(two_sites, tmp_path):
    (tmp_path / "c.jsonl").write_text("no rows")
    third = {"name": "c", "data": str(tmp_path / "c.jsonl")}
    run = experiment([third, *two_sites], rounds={"clients": ("a",)})
    assert labels(run, Sources(run)) == ("x", "y")


def test_a_class_is_one_whether_its_number_has_a_point(tmp_path):
    rows = classified((f"text {number}", number % 2 if number < 10 else float(number % 2)) for number in range(20))
    run = experiment([{"name": "a", "data": write(tmp_path / "a.jsonl", rows)}])
    assert labels(run, Sources(run)) == ("0", "1")


def test_a_label_outside_the_list_is_refused_by_client_and_row(two_sites):
    run = experiment(two_sites, model={"labels": ("x", "z")})
    with pytest.raises(DataError, match=r"client 'a', .*a\.jsonl, row 2: the label 'y'"):
        Sources(run).client("a")


def test_one_label_is_no_classification(two_sites):
    run = experiment(two_sites[1:])
    with pytest.raises(DataError, match="fewer than two labels"):
        labels(run, Sources(run))


@pytest.fixture
def shared(tmp_path):
    rows = classified((f"text {number}", "abc"[number % 3]) for number in range(60)) + classified([("", "a")])
    return write(tmp_path / "all.jsonl", rows)


def test_a_shared_source_is_read_once_and_divided(shared, monkeypatch):
    reads = []
    read = clients_module.read_rows
    monkeypatch.setattr(
        clients_module, "read_rows", lambda source, client: reads.append(client) or read(source, client=client)
    )
    run = experiment([{"name": name} for name in "pqr"], data={"source": shared, "partition": {"kind": "iid"}})
    sources = Sources(run)
    assert reads == []
    data = [sources.client(name) for name in "pqr"]
    assert len(reads) == 1
    texts = [example.text for item in data for example in (*item.train, *item.held_out)]
    assert len(texts) == len(set(texts)) == 60
    assert sum(item.dropped for item in data) == 1


def test_the_order_of_clients_in_the_file_changes_nothing(shared):
    def of(names):
        run = experiment([{"name": name} for name in names], data={"source": shared})
        return {name: load_client(run, name) for name in names}

    assert of("pqr") == of("rqp")


def test_a_client_with_data_of_its_own_has_no_part_in_the_shared_source(shared, two_sites):
    run = experiment(
        [two_sites[1], {"name": "p"}, {"name": "q"}, {"name": "r"}],
        data={"source": shared, "partition": {"kind": "column", "column": "label"}},
    )
    sources = Sources(run)
    assert {example.label for example in sources.client("b").train} == {"z"}
    assert [{example.label for example in sources.client(name).train} for name in "pqr"] == [{"a"}, {"b"}, {"c"}]


def test_a_row_of_a_shared_source_is_named_by_its_number_there(tmp_path):
    rows = classified((f"text {number}", "ab"[number // 10]) for number in range(20))
    rows[17]["text"] = {"not": "text"}
    run = experiment(
        [{"name": "p"}, {"name": "q"}],
        data={"source": write(tmp_path / "all.jsonl", rows), "partition": {"kind": "column", "column": "label"}},
    )
    with pytest.raises(DataError, match=r"client 'q', .*row 18"):
        Sources(run).client("q")


def test_a_client_without_data_is_refused():
    with pytest.raises(DataError, match="client 'p': no data"):
        load_client(experiment([{"name": "p"}]), "p")


def test_columns_of_a_client_win(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"q": f"question {n}", "a": f"answer {n}"} for n in range(4)])
    own = {"prompt": "q", "response": "a"}
    run = experiment(
        [{"name": "a", "data": path, "columns": own}],
        "generation",
        data={"columns": {"prompt": "no", "response": "no"}},
    )
    assert all(example.response.startswith("answer") for example in load_client(run, "a").train)


REAL = {
    "dolly15k_fed10/local_training_1.json": ("generation", {}, 1493),
    "natural_instructions/task393_plausible_result_generation.json": ("generation", {}, 100),
    "mmlu_1444/mmlu_test_1444.jsonl": ("generation", {}, 1444),
    "e2e_nlg/devset.csv": ("generation", {"prompt": "mr", "response": "ref"}, 4672),
    "banking77/test.csv": ("classification", {}, 3080),
    "sib200/jpn_Jpan_test.tsv": ("classification", {}, 204),
}


@pytest.mark.parametrize("name", REAL)
def test_public_data_sets_load_as_they_are(real_data, name):
    task, columns, rows = REAL[name]
    run = experiment([{"name": "a", "data": str(real_data / name)}], task, data={"columns": columns})
    data = load_client(run, "a")
    assert len(data.train) + len(data.held_out) + data.dropped == rows
    assert data.dropped < 0.02 * rows
    assert all(
        isinstance(example, Classification if task == "classification" else Generation) for example in data.train
    )
