"""Configuration files: all problems at once, each with its line."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedloom.errors import ConfigError
from fedloom.spec.dump import dump
from fedloom.spec.experiment import (
    ClientTable,
    ColumnsTable,
    DataTable,
    EvaluationTable,
    Experiment,
    LoraTable,
    MethodTable,
    ModelTable,
    PartitionTable,
    TrainingTable,
)
from fedloom.spec.load import check, load, parse

CASES = {
    "unknown key": (
        "[training]\nlocal_step = 3",
        "line 2: [training] local_step: unknown key; did you mean local_steps?",
    ),
    "unknown table": ("[trainin]\nrounds = 3", "line 1: trainin: unknown key; did you mean training?"),
    "nothing near": ("zzz = 3", "line 1: zzz: unknown key"),
    "type": ('[training]\nrounds = "3"', 'line 2: [training] rounds: expected a whole number, found "3"'),
    "truth for a number": (
        "[training]\nrounds = true",
        "line 2: [training] rounds: expected a whole number, found true",
    ),
    "share for a number": ("seed = 1.5", "line 1: seed: expected a whole number, found 1.5"),
    "range": ("[training]\nlearning_rate = 0", "line 2: [training] learning_rate: expected a number above 0, found 0"),
    "least": ("[training]\n\n\nrounds = 0", "line 4: [training] rounds: expected at least 1, found 0"),
    "below": ("[data]\nholdout = 1.0", "line 2: [data] holdout: expected a number below 1, found 1.0"),
    "choice": (
        '[model]\ntask = "generatio"',
        "line 2: [model] task: expected 'generation', 'classification' or 'image-classification', "
        'found "generatio"; did you mean generation?',
    ),
    "either of two types": ("lora.targets = 3", "line 1: [lora] targets: expected 'auto' or a list, found 3"),
    "number for a table": ("training = 3", "line 1: [training]: expected a table [training], found 3"),
    "inner table": (
        "[data.columns]\nprompts = 'x'",
        "line 2: [data.columns] prompts: unknown key; did you mean prompt?",
    ),
    "name": (
        'name = "a b"',
        "line 1: name: expected letters, digits, dot, dash and underscore; at most 64, not beginning with a mark, "
        'found "a b"',
    ),
    "after a long value": (
        'seed = -1\nname = """\nx"""\n[training]\nrounds = 0',
        "line 5: [training] rounds: expected at least 1, found 0",
    ),
    "client by name": (
        '[[clients]]\nname = "a"\ndata = "hf:x"\n[[clients]]\nname = "site.b"\ndata = "hf:x"\nrank = 0',
        "line 7: [[clients]] site.b, rank: expected at least 1 or 'auto', found 0",
    ),
    "client by number": ('[[clients]]\ndata = "hf:x"', "line 1: [[clients]] number 1, name: missing"),
    "inside a client": (
        '[[clients]]\nname = "a"\ndata = "hf:x"\n[clients.columns]\nmessage = "x"',
        "line 5: [[clients]] a, columns.message: unknown key; did you mean messages?",
    ),
    "clients in single brackets": (
        '[clients]\nname = "a"',
        "line 1: [[clients]]: expected one [[clients]] table (in double brackets) for each client",
    ),
    "no clients": (
        "seed = 3 # no clients",
        "[[clients]]: expected one [[clients]] table (in double brackets) for each client",
    ),
    "syntax": ("seed = 3\nname = ", "line 2: this is not TOML: Invalid value"),
    "number of many digits": (f"name = 'x'\nseed = {'9' * 5000}", "line 2: a number of more than 4300 digits"),
    "number of many bits": (
        f"seed = 0x{'f' * 5000}",
        "line 1: seed: expected a whole number of at most 64 bits, found",
    ),
    "number just too large": (
        f"lora.scaling = {2**63}",
        "line 1: [lora] scaling: expected a whole number of at most 64 bits, found one of 65",
    ),
    "deep list": (f"seed = {'[' * 5000}", "lists and tables are nested more than 50 levels deep"),
    "deep list that is complete": (f"seed = {'[' * 60 + ']' * 60}", "lists and tables are nested more than 50"),
    "deep key": (f"{'.'.join('a' * 5000)} = 1", "lists and tables are nested more than 50"),
    "deep, but not too deep": (f"seed = {'[' * 40 + ']' * 40}", "line 1: seed: expected a whole number, found [["),
    "syntax at the end": ('seed = 3 # no clients\nname = """', "line 2: this is not TOML"),
}


@pytest.mark.parametrize(("text", "expected"), CASES.values(), ids=CASES)
def test_a_problem_says_line_table_and_key(problems, text, expected):
    assert any(line.startswith(expected) for line in problems(text)), problems(text)


def test_all_problems_are_listed_at_once_in_the_order_of_their_lines(problems):
    found = problems(
        "seed = -1\n[training]\nrounds = 0\nx = 1\n[lora]\nalpha = 8\nscaling = 1\n[method]\nname = 'flor'"
    )
    assert [line.split(":")[0] for line in found] == [f"line {number}" for number in (1, 3, 4, 7, 9)]


def test_what_follows_from_an_unread_part_is_not_said_again(problems):
    """Nothing about missing data where data is there, but not a text."""
    found = problems(
        '[rounds]\nclients = ["b"]\n[[clients]]\nname = "a"\ndata = 3\n[[clients]]\nnam = "b"\ndata = "hf:x"'
    )
    assert [line.partition(", ")[2] for line in found] == [
        "data: expected a text in quotes, found 3",
        "name: missing",
        "nam: unknown key; did you mean name?",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "No such file"), (b"name = '\xff'", "expected UTF-8 text, found the byte 0xff at position 8")],
)
def test_a_file_that_cannot_be_read_is_a_config_error(tmp_path, content, message):
    path = tmp_path / "pilot.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as error:
        load(path)
    assert str(path) in str(error.value)


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path):
    (tmp_path / "pilot.toml").write_text('seed = 3\nclients = [{name = "a", data = "hf:x"}]', encoding="utf-8-sig")
    assert load(tmp_path / "pilot.toml").seed == 3


def test_paths_are_relative_to_the_file(tmp_path, monkeypatch):
    (tmp_path / "base").mkdir()
    for name in ("a.jsonl", "elsewhere.jsonl"):
        (tmp_path / name).write_text("{}")
    text = '[model]\nid = "base"\n' + "".join(
        f'[[clients]]\nname = "c{index}"\ndata = "{data}"\n'
        for index, data in enumerate(
            ["a.jsonl", str(tmp_path / "elsewhere.jsonl"), "hf:org/set:train", "docstrings:json"]
        )
    )
    (tmp_path / "pilot.toml").write_text(text)
    monkeypatch.chdir("/")
    experiment = load(tmp_path / "pilot.toml")
    assert experiment.model.id == str(tmp_path / "base")
    assert [client.data for client in experiment.clients] == [
        str(tmp_path / "a.jsonl"), str(tmp_path / "elsewhere.jsonl"), "hf:org/set:train", "docstrings:json",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            'data.source = "gone.jsonl"\nclients = [{name = "a"}]',
            "line 1: [data] source: there is no file {}/gone.jsonl",
        ),
        (
            '[[clients]]\nname="a"\ndata="../gone.csv"',
            "line 3: [[clients]] a, data: there is no file {parent}/gone.csv",
        ),
        ('[[clients]]\nname="a"\ndata="docstring:torch"', "did you mean docstrings:?"),
        *(
            (text.replace("NAME", name), f"{place}: expected a name that can be looked for, found {start}")
            for text, place in (
                ('[[clients]]\nname="a"\ndata="NAME.jsonl"', "line 3: [[clients]] a, data"),
                ('data.source = "NAME"\nclients = [{name = "a"}]', "line 1: [data] source"),
                ('model.id = "NAME"', "line 1: [model] id"),
                ('model.id = "./NAME"', "line 1: [model] id"),
                ('model.id = "~nobody-of-this-name/NAME"', "line 1: [model] id"),
            )
            for name, start in (("x" * 300, "'"), (r"a\u0000b", "'"))
        ),
        ('model.id = "./gone"', "line 1: [model] id: there is no folder {}/gone with a model"),
    ],
)
def test_files_that_are_not_there_are_named(problems, tmp_path, text, expected):
    wanted = expected.format(tmp_path, parent=tmp_path.parent)
    assert [line for line in problems(text) if wanted in line], problems(text)


def test_a_run_can_be_read_when_its_data_are_gone(tmp_path):
    text = '[[clients]]\nname = "a"\ndata = "gone.jsonl"'
    assert parse(text, where="x", folder=tmp_path, files_must_exist=False).client("a").data == str(
        tmp_path / "gone.jsonl"
    )


def test_data_at_sites_need_not_be_named_nor_be_there(tmp_path):
    text = '[[clients]]\nname = "a"\n[[clients]]\nname = "b"\ndata = "gone.jsonl"\nrank = 2\n'
    (tmp_path / "pilot.toml").write_text(text)
    experiment = load(tmp_path / "pilot.toml", data_at_sites=True)
    assert [client.data for client in experiment.clients] == [None, str(tmp_path / "gone.jsonl")]
    with pytest.raises(ConfigError, match=r"2 problems(.|\n)*a, data: has no data(.|\n)*there is no file"):
        load(tmp_path / "pilot.toml")


def test_data_at_sites_excuses_nothing_else(tmp_path):
    text = '[method]\nname = "fedit"\n[[clients]]\nname = "a"\n[[clients]]\nname = "b"\nrank = 2\n'
    with pytest.raises(ConfigError, match=r"1 problem\n.*fedit needs clients of one rank"):
        parse(text, where="x", folder=tmp_path, data_at_sites=True)


def test_an_experiment_from_python_is_held_to_the_rules():
    clients = (ClientTable(name="a", data="hf:x"), ClientTable(name="a", data="/gone/x.csv"))
    with pytest.raises(ConfigError) as error:
        check(Experiment(clients=clients))
    assert [line.split(",")[1].split(":")[0].strip() for line in error.value.problems] == ["name", "data"]
    check(Experiment(clients=clients[:1]))


TEXTS = st.text(max_size=8).filter(lambda text: "\x00" not in text)
NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,9}", fullmatch=True)
POSITIVE = st.floats(min_value=1e-12, max_value=1e12)


def distinct(by_role):
    return len(set(by_role.values())) == len(by_role)


@st.composite
def experiments(draw):
    """Valid experiments of all kinds, in which the keys that mean nothing are left at their defaults."""
    task = draw(st.sampled_from(["generation", "classification", "image-classification"]))
    columns = {"generation": ("prompt", "context", "response"), "classification": ("text", "label")}
    columns = columns.get(task, ("image", "label"))
    some_columns = st.dictionaries(st.sampled_from(columns), TEXTS).filter(distinct).map(lambda by: ColumnsTable(**by))
    source = draw(st.none() | st.just("hf:all"))
    kind = draw(st.sampled_from(["iid", "dirichlet", "column"])) if source else "iid"
    partition = PartitionTable(kind=kind, column=None if kind == "iid" else draw(TEXTS))
    clients = st.builds(
        ClientTable,
        name=NAMES,
        data=st.none() if source else TEXTS.map(lambda text: f"docstrings:{text}"),
        rank=st.integers(1, 99),
        rank_pattern=st.dictionaries(TEXTS, st.integers(1, 9), max_size=2),
        columns=st.none() | some_columns,
    )
    scaling = st.fixed_dictionaries({"scaling": POSITIVE}) | st.fixed_dictionaries({"alpha": POSITIVE})
    labels = st.none() | st.lists(TEXTS, min_size=2, max_size=4, unique=True).map(tuple)
    targets = st.just("auto") | st.lists(TEXTS.filter(bool), min_size=1, max_size=3).map(tuple)
    return Experiment(
        name=draw(NAMES),
        seed=draw(st.integers(0, 2**63 - 1)),
        model=ModelTable(id="org/model", task=task, **({} if task == "generation" else {"labels": draw(labels)})),
        lora=LoraTable(targets=draw(targets), **draw(scaling)),
        method=MethodTable(name="loom", pool=draw(st.sampled_from([1.0, 1.5, 4.0]))),
        training=TrainingTable(learning_rate=draw(POSITIVE), patience=draw(st.none() | st.integers(1, 99))),
        data=DataTable(source=source, columns=draw(some_columns), partition=partition),
        evaluation=EvaluationTable(question=draw(st.none() | TEXTS)) if task == "generation" else EvaluationTable(),
        clients=tuple(draw(st.lists(clients, min_size=1, max_size=3, unique_by=lambda client: client.name))),
    )


@settings(max_examples=60, deadline=None)
@given(experiments())
def test_what_is_dumped_is_parsed_again(experiment):
    assert parse(dump(experiment), where="dump", folder=Path("/")) == experiment


def test_a_dump_writes_the_defaults_down():
    assert "local_steps = 10\n" in dump(Experiment(clients=(ClientTable(name="a", data="hf:x"),)))


def test_a_path_may_be_a_string(tmp_path):
    path = tmp_path / "pilot.toml"
    path.write_text('[[clients]]\nname = "a"\ndata = "docstrings:json"\n')
    assert load(str(path)) == load(path)
