"""site.toml: what the kit proposes, what a site can set, and every mistake in it."""

from __future__ import annotations

import tomllib

import pytest

from fedloom.errors import ConfigError
from fedloom.kits.consent import refusals
from fedloom.kits.provision import provision
from fedloom.kits.site import AcceptTable, PrivacyTable, SiteSettings, read_site
from fedloom.kits.site_template import site_template
from fedloom.spec.experiment import ColumnsTable

ACCEPT = '[accept]\nmodels = ["org/base"]\nmethods = ["loom", "fedsa"]\n'


@pytest.fixture
def site(tmp_path):
    """site(text) -> settings of a file with this text."""

    def read(text):
        (tmp_path / "site.toml").write_text(text)
        return read_site(tmp_path / "site.toml")

    return read


@pytest.fixture
def problems(site):
    def problems_of(text):
        with pytest.raises(ConfigError) as caught:
            site(text)
        return caught.value.problems

    return problems_of


def test_the_kit_accepts_the_pilot_and_nothing_else(made):
    settings = read_site(made / "clients" / "hospital-north" / "site.toml")
    assert settings == SiteSettings(accept=AcceptTable(models=("org/base",), methods=("fedsa",)))
    east = read_site(made / "clients" / "clinic.east" / "site.toml")
    assert east.columns == ColumnsTable(prompt="frage")


def test_classes_of_the_pilot_are_proposed(tmp_path, experiment_of):
    text = '[model]\nid = "x"\ntask = "classification"\nlabels = ["no", "yes"]\n[[clients]]\nname = "a"\n'
    provision(experiment_of(text), tmp_path / "kits")
    assert read_site(tmp_path / "kits" / "clients" / "a" / "site.toml").accept.classes == ("no", "yes")


def test_every_key_is_shown_with_a_comment_and_can_be_used_as_shown():
    accept = AcceptTable(models=("m",), methods=("loom",))
    text = site_template(SiteSettings(accept=accept), "generation", None)
    shown = tomllib.loads("\n".join(line.removeprefix("#") for line in text.splitlines() if not line.startswith("# ")))
    assert set(shown) == set(SiteSettings.model_fields)
    assert set(shown["accept"]) == set(AcceptTable.model_fields)
    assert set(shown["privacy"]) == set(PrivacyTable.model_fields)
    assert set(shown["columns"]) == {"prompt", "context", "response", "messages"}
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if " = " in line and not line.startswith("# "):
            assert lines[number - 1].startswith("# "), line


def test_settings_survive_the_template(tmp_path):
    settings = SiteSettings(
        data="hf:x",
        memory_limit="512 MiB",
        accept=AcceptTable(models=('a"b',), methods=("fedsa",), classes=("no", "yes")),
        privacy=PrivacyTable(epsilon=3.5, keep_private=True),
        columns=ColumnsTable(text="words"),
    )
    (tmp_path / "site.toml").write_text(site_template(settings, "classification", None))
    assert read_site(tmp_path / "site.toml") == settings


def test_paths_are_relative_to_the_file(site, tmp_path):
    settings = site('data = "rows/our.jsonl"\nmodel = "base"\n' + ACCEPT)
    assert settings.data == str(tmp_path / "rows" / "our.jsonl")
    assert settings.model == str(tmp_path / "base")
    assert site('data = "docstrings:json"\n' + ACCEPT).data == "docstrings:json"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("6 GB", 6 * 10**9), ("1.5gib", 3 * 2**29), ("300MB", 3 * 10**8), ("1024 B", 1024), ("2 TB", 2 * 10**12)],
)
def test_memory(site, text, expected):
    assert site(f'memory_limit = "{text}"\n{ACCEPT}').memory_limit_bytes == expected
    assert site(ACCEPT).memory_limit_bytes is None


@pytest.mark.parametrize("text", ["6", "GB", "6 GBit", "-1 GB", "0 GB", "6 TiB of it", "1e3 GB"])
def test_no_amount_of_memory(problems, text):
    assert problems(f'memory_limit = "{text}"\n{ACCEPT}') == [
        f"line 1: memory_limit: expected an amount of memory with its unit, such as 6 GB, found '{text}'"
    ]


def test_all_mistakes_are_told_at_once(problems):
    lines = problems('dat = "x"\nmemory_limit = 6\n[accept]\nmodels = []\nmethds = ["loom"]\n[privacy]\nepsilon = 0\n')
    assert lines == [
        "line 2: memory_limit: expected a text in quotes, found 6",
        "line 4: [accept] models: expected a list of at least 1, found []",
        "line 3: [accept] methods: missing",
        "line 5: [accept] methds: unknown key; did you mean methods?",
        "line 7: [privacy] epsilon: expected a number above 0, found 0",
        "line 1: dat: unknown key; did you mean data?",
    ]


def test_nothing_accepted_is_a_mistake_not_everything(problems):
    assert problems('data = "x"\n') == ["accept: missing"]


def test_unknown_methods_and_endless_budgets(problems):
    lines = problems('[accept]\nmodels = ["m"]\nmethods = ["lom"]\n[privacy]\nepsilon = inf\n')
    assert lines[0].startswith("line 3: [accept] methods: there is no method 'lom'; expected some of")
    assert lines[0].endswith("did you mean loom?")
    assert lines[1] == "line 5: [privacy] epsilon: expected a finite number, found inf"


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match=r"site.toml: 1 problem\n.*cannot be read"):
        read_site(tmp_path / "site.toml")


def test_what_is_accepted_meets_no_refusal(site):
    assert refusals(site(ACCEPT), model="org/base", method="loom", classes=("any",)) == []


def test_every_reason_is_given(site):
    settings = site(ACCEPT + 'classes = ["no"]\n[privacy]\nkeep_private = true\n')
    reasons = refusals(settings, model="org/other", method="flora", classes=("no", "yes"))
    words = (
        "'org/other' is not in accept.models",
        "'flora' is not in accept.methods",
        "'yes' are not",
        "'flora' sends",
    )
    assert len(reasons) == 4
    assert all(word in reason for word, reason in zip(words, reasons, strict=True))


def test_private_factors_stay(site):
    settings = site(ACCEPT + "[privacy]\nkeep_private = true\n")
    assert refusals(settings, model="org/base", method="fedsa") == []
    assert len(refusals(settings, model="org/base", method="loom")) == 1


@pytest.mark.parametrize(
    ("epsilon", "reason"), [(None, "adds no noise"), (3.1, "spends epsilon 3.1"), (float("nan"), "spends"), (3.0, None)]
)
def test_a_budget_holds(site, epsilon, reason):
    settings = site(ACCEPT + "[privacy]\nepsilon = 3\n")
    reasons = refusals(settings, model="org/base", method="loom", epsilon=epsilon)
    assert (reasons == []) if reason is None else (len(reasons) == 1 and reason in reasons[0])
