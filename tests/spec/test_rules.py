"""Rules across fields: each finds its fault, and a sound experiment has none."""

import dataclasses

import pytest

from fedloom.aggregation.method import Law
from fedloom.aggregation.registry import METHODS
from fedloom.spec import rules
from fedloom.spec.experiment import ClientTable, Experiment, MethodTable

COMMON = '[data]\nsource = "hf:x"\n'
CLIENT = '[[clients]]\nname = "a"\n'

FAULTS = {
    "two clients of one name": (
        CLIENT + 'data = "hf:x"\n' + CLIENT + 'data = "hf:x"',
        "line 5: [[clients]] a, name: 'a' is the name of client number 1 already",
    ),
    "rank of a pattern": (
        CLIENT + 'data = "hf:x"\n[clients.rank_pattern]\n"mlp.up" = -1',
        "line 5: [[clients]] a, rank_pattern.mlp.up: expected a rank of at least 1, or 0 for layers that this client "
        "does not train; found -1",
    ),
    "alpha and scaling": (
        "lora.alpha = 8\nlora.scaling = 2.0",
        "line 2: [lora] scaling: cannot be given together with alpha",
    ),
    "partition of nothing": ("[data.partition]", "line 1: [data.partition]: divides a common source"),
    "no data": (CLIENT, "line 1: [[clients]] a, data: has no data"),
    "data twice": (COMMON + CLIENT + 'data = "hf:y"', "line 5: [[clients]] a, data: has data of its own"),
    "no column": (
        COMMON + 'partition.kind = "dirichlet"\n' + CLIENT,
        "line 3: [data.partition] column: missing; the kind dirichlet",
    ),
    "column without use": (
        COMMON + 'partition.column = "x"\n' + CLIENT,
        "line 3: [data.partition] column: is for the kinds",
    ),
    "alpha without use": (
        COMMON + "partition.alpha = 1.0\n" + CLIENT,
        "line 3: [data.partition] alpha: is for the kind",
    ),
    "unknown method": (
        '[method]\nname = "flor"',
        f"line 2: [method] name: there is no method 'flor'; expected one of {', '.join(METHODS)}; did you mean flora?",
    ),
    "canaries of images": (
        'model.task = "image-classification"\nprivacy.canaries = 3',
        "line 2: [privacy] canaries: are texts, and [model] task is image-classification; set it to 0",
    ),
    "unknown setting": ('[method]\nname = "flora"\nx = 1', "line 3: [method] x: unknown setting 'x'"),
    "an optimizer without a global model": (
        '[method]\nname = "fedalt"\n[server]\noptimizer = "adam"',
        "line 4: [server] optimizer: fedalt leaves no global model that it could step; expected none, found adam",
    ),
    "rounded factors of one's own": (
        '[method]\nname = "fedalt"\n[wire]\nup = "int8"',
        "line 4: [wire] up: clients of fedalt go on from their exact factors",
    ),
    "bad setting": (
        '[method]\nname = "loom"\ndirections = "up"',
        "line 3: [method] directions: directions must be one of",
    ),
    "too many needed": (
        "[rounds]\nparticipation = 0.5\nmin_clients = 2",
        "line 3: [rounds] min_clients: expected at most 1, as 2 clients at participation 0.5 give; found 2",
    ),
    "participants": (
        '[rounds]\nclients = ["a", "bb"]\n' + CLIENT + 'data = "hf:x"',
        "line 2: [rounds] clients: there is no client 'bb'",
    ),
    "no participants": (
        "[rounds]\nclients = []\n" + CLIENT + 'data = "hf:x"',
        "line 2: [rounds] clients: expected at least one name",
    ),
    "answers of a classifier": (
        'model.task = "classification"\nevaluation.generate_rows = 4',
        "line 2: [evaluation] generate_rows: is for generation",
    ),
    "question to a classifier": (
        'model.task = "classification"\nevaluation.question = "x"',
        "line 2: [evaluation] question: is for generation",
    ),
    "question to a classifier of images": (
        'model.task = "image-classification"\nevaluation.question = "x"',
        "line 2: [evaluation] question: is for generation, and [model] task is image-classification",
    ),
    "length of images": (
        'model.task = "image-classification"\ntraining.max_tokens = 64',
        "line 2: [training] max_tokens: is for generation and classification, and [model] task is image",
    ),
    "images of a generator": ('data.columns.image = "x"', "line 1: [data.columns] image: is a column for image-class"),
    "text of an image": (
        'model.task = "image-classification"\ndata.columns.text = "x"',
        "line 2: [data.columns] text: is a column for classification, and [model]",
    ),
    "one column as image and label": (
        'model.task = "image-classification"\ndata.columns = {image = "x", label = "x"}',
        "line 2: [data.columns] label: the column 'x' is the image already",
    ),
    "classes of a generator": ('model.labels = ["x", "y"]', "line 1: [model] labels: is for classification"),
    "head of a generator": ("training.head_learning_rate = 1.0", "line 1: [training] head_learning_rate: is for"),
    "optimizer of a generator's head": (
        'training.head_optimizer = "layerwise"',
        "line 1: [training] head_optimizer: is for classification",
    ),
    "columns of the other task": (
        'data.columns.label = "x"',
        "line 1: [data.columns] label: is a column for classification",
    ),
    "columns of a client": (
        CLIENT + 'data = "hf:x"\ncolumns = {text = "t"}',
        "line 4: [[clients]] a, columns.text: is a column for classification",
    ),
    "chat beside prompt": (
        '[data.columns]\nmessages = "m"\nprompt = "p"',
        "line 2: [data.columns] messages: cannot be given together with prompt",
    ),
    "one column as prompt and response": (
        '[data.columns]\nprompt = "p"\nresponse = "p"',
        "line 3: [data.columns] response: the column 'p' is the prompt already",
    ),
    "one column as text and label of a client": (
        'model.task = "classification"\n' + CLIENT + 'data = "hf:x"\ncolumns = {text = "t", label = "t"}',
        "line 5: [[clients]] a, columns.label: the column 't' is the text already",
    ),
    "rate of no optimizer": ("server.learning_rate = 1.0", "line 1: [server] learning_rate: means nothing to the"),
    "squares of momentum": (
        '[server]\noptimizer = "momentum"\nbeta2 = 0.9',
        "line 3: [server] beta2: means nothing to the optimizer momentum",
    ),
    "one class": (
        '[model]\ntask = "classification"\nlabels = ["x"]',
        "line 3: [model] labels: expected at least 2 classes",
    ),
    "a class twice": (
        '[model]\ntask = "classification"\nlabels = ["x", "x"]',
        "line 3: [model] labels: the class 'x' is there",
    ),
    "a batch to plan without a rank to plan": (
        CLIENT + 'data = "hf:x"\nbatch_size = "auto"\n[[clients]]\nname = "b"\ndata = "hf:x"\nrank = "auto"',
        "line 4: [[clients]] a, batch_size: is left to the planner, which plans for clients with rank",
    ),
    "a second worth more than numbers can hold": (
        "planning.second_price = 1e300",
        "line 1: [planning] second_price: expected at most 1000000",
    ),
    "bits to plan without a rank to plan": (
        CLIENT + 'data = "hf:x"\nbits = "auto"',
        "line 4: [[clients]] a, bits: is left to the planner",
    ),
    "no target": ("lora.targets = []", "line 1: [lora] targets: expected auto"),
    "infinite": (
        "training.learning_rate = inf",
        "line 1: [training] learning_rate: expected a finite number, found inf",
    ),
}

SOUND = {
    "defaults": "",
    "alpha": "lora.alpha = 8",
    "momentum": '[server]\noptimizer = "momentum"\nlearning_rate = 0.5\nbeta1 = 0.5',
    "adam": '[server]\noptimizer = "adam"\nbeta1 = 0.5\nbeta2 = 0.9\nepsilon = 0.1',
    "more patience than rounds": "training.patience = 99",
    "all of the clients": "[rounds]\nmin_clients = 2",
    "no answers of a classifier": 'model.task = "classification"\nevaluation.generate_rows = 0',
    "classes of images": 'model = {task = "image-classification", labels = ["x", "y"]}\ndata.columns.image = "i"',
    "dirichlet": COMMON + 'partition = {kind = "dirichlet", column = "x", alpha = 1.0}\n' + CLIENT,
}


@pytest.mark.parametrize(("text", "expected"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_found_where_it_is(problems, text, expected):
    found = problems(text)
    assert len(found) == 1, found
    assert found[0].startswith(expected), found[0]


@pytest.mark.parametrize("text", SOUND.values(), ids=SOUND)
def test_what_is_sound_is_accepted(problems, text):
    assert problems(text) == []


def test_every_rule_is_in_the_table():
    written = [
        value
        for name, value in vars(rules).items()
        if callable(value) and getattr(value, "__module__", "") == rules.__name__ and not name.startswith("_")
    ]
    assert set(rules.RULES) == set(written) - {rules.problems_of}


@pytest.mark.parametrize("accepts", [True, False])
def test_unequal_ranks_go_by_the_declared_law(monkeypatch, accepts):
    """The same method, with the law and without: its name plays no part."""
    laws = METHODS["flora"].laws | {Law.UNEQUAL_RANKS} if accepts else METHODS["flora"].laws - {Law.UNEQUAL_RANKS}
    monkeypatch.setattr(rules, "METHODS", {**METHODS, "flora": dataclasses.replace(METHODS["flora"], laws=laws)})
    clients = (ClientTable(name="a", data="hf:x", rank=8), ClientTable(name="b", data="hf:x", rank=4))
    unequal = Experiment(method=MethodTable(name="flora"), clients=clients)
    found = rules.ranks_the_method_accepts(unequal)
    assert bool(found) is not accepts
    if not accepts:
        assert "found a 8, b 4" in found[0].message
        assert "loom" in found[0].message
    assert rules.ranks_the_method_accepts(Experiment(method=MethodTable(name="flora"), clients=clients[:1])) == []
