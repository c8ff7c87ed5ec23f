"""The clients of the local engine: the base they share in this process, and the rows that each one keeps."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from fedloom import rng
from fedloom.aggregation.world import Start
from fedloom.data.batches import Row
from fedloom.data.clients import Sources, labels
from fedloom.data.examples import Example, Message
from fedloom.data.pixels import encode_images
from fedloom.data.tokens import encode_all
from fedloom.engine.base import ClientRows, Federation
from fedloom.engine.events import Observer, Stage, silent
from fedloom.errors import DataError, WrongBaseError
from fedloom.rounds.description import Description
from fedloom.rounds.world import world_of
from fedloom.spec.experiment import Bits, Experiment
from fedloom.training.base_model import BaseModel, load_base
from fedloom.training.local import load_head
from fedloom.training.lora_layer import load_start
from fedloom.training.measure import answer
from fedloom.training.quantize import NAMES as QUANTISED_AS

MOST_BITS: tuple[Bits, ...] = ("none", 8, 4)
TWO_CLASSES = ("0", "1")  # where nobody named them: how many there are matters little to what a classifier costs
REPORTED_PACKAGES = ("fedloom", "torch", "transformers", "peft")


@dataclass(frozen=True)
class Site:
    """One client's rows, encoded; `questions` are the held-out rows that may be answered, as text (generation).

    digest: of all its examples and of which of them are held out.
    canaries: made-up rows for an audit, encoded; included: whether each is trained on, as one of the last of `train`.
    """

    train: Sequence[Row]
    held_out: Sequence[Row]
    questions: Sequence[Example]
    dropped: int
    digest: str
    canaries: Sequence[Row] = ()
    included: tuple[bool, ...] = ()

    @property
    def own(self) -> Sequence[Row]:
        """Those of `train` that are the client's own rows."""
        return self.train[: len(self.train) - sum(self.included)] if any(self.included) else self.train


@dataclass(frozen=True)
class Sites:
    """All clients of one process. The base is loaded once for each number of bits that clients have, and never written.

    base: of the clients with the most bits, and for what is the federation's own.
    fewer: bits -> the same base in them.  bits: client -> those of its base, where they are fewer.
    max_tokens: longest example, and longest prompt of an answer.
    head: as it was loaded; the base's own is the one that was trained last, perhaps in another run.
    """

    base: BaseModel
    labels: tuple[str, ...]
    max_tokens: int
    by_client: Mapping[str, Site] = field(default_factory=dict)
    head: Mapping[str, Tensor] = field(default_factory=dict)
    fewer: Mapping[Bits, BaseModel] = field(default_factory=dict)
    bits: Mapping[str, Bits] = field(default_factory=dict)

    def base_of(self, client: str) -> BaseModel:
        """The base that a client trains on."""
        return self.fewer[self.bits[client]] if client in self.bits else self.base

    def site(self, client: str) -> Site:
        return self.by_client[client]

    def federation(self) -> Federation:
        """What the server may know: shapes, digests and counts."""
        rows = {
            name: ClientRows(len(site.train), len(site.held_out), site.dropped) for name, site in self.by_client.items()
        }
        return Federation(
            base=self.base.identity,
            base_digest=self.base.digest,
            dtype=str(self.base.dtype).removeprefix("torch."),
            modules=self.base.modules,
            head=self.head,
            rows=rows,
            labels=self.labels,
            targets_rule=self.base.targets_rule,
            versions=versions(),
        )

    def description(self, client: str) -> Description:
        """What one client says of itself."""
        site, known = self.by_client[client], self.federation()
        return Description(
            client=client,
            base=known.base,
            base_digest=known.base_digest,
            dtype=known.dtype,
            modules=known.modules,
            labels=self.labels,
            targets_rule=known.targets_rule,
            train=len(site.train),
            held_out=len(site.held_out),
            dropped=site.dropped,
            rows_digest=site.digest,
            versions=known.versions,
            head=self.head,
        )

    def ask(self, start: Start, question: str, max_new_tokens: int) -> str:
        """One question to a model; to the base if the start is empty."""
        load_start(self.base, start, {})
        return answer(self.base, [[Message("user", question)]], max_new_tokens, self.max_tokens)[0]


def versions() -> dict[str, str]:
    """Of Python and of the packages that make the numbers."""
    return {"python": platform.python_version(), **{name: version(name) for name in REPORTED_PACKAGES}}


def load_sites(experiment: Experiment, observe: Observer = silent, base: BaseModel | None = None) -> Sites:
    """Read every client's rows, load the base, encode.

    base: one that was loaded before for the same model, layers, classes and length of text.
    Raises: DataError, ModelError, ConfigError naming client, file and row, before anything is trained.
    """
    names = sorted(client.name for client in experiment.expected)
    sources = Sources(experiment)
    for name in names:
        observe(Stage(f"reading the rows of {name}"))
        planted = sources.client(name).canaries
        if planted:
            observe(Stage(f"{len(planted)} canaries are planted at {name}, for fedloom audit-privacy"))
    classes = labels(experiment, sources) if experiment.model.classifies else ()
    bits = {name: experiment.bits_of(name) for name in names}
    most, *others = sorted(set(bits.values()), key=MOST_BITS.index)
    if base is None or base.bits != most:
        base = _loaded(experiment, classes, most, observe)
    world_of(experiment, base.modules)
    fewer = {few: _loaded(experiment, classes, few, observe) for few in others}
    for other in fewer.values():
        load_head(other, base.head_tensors())  # a new head is drawn each time that one is loaded
    observe(Stage("encoding the rows"))
    by_client = {name: _site(experiment, sources, base, classes, name) for name in names}
    lower = {name: few for name, few in bits.items() if few in fewer}
    return Sites(base, classes, experiment.training.max_tokens, by_client, base.head_tensors(), fewer, lower)


def _loaded(experiment: Experiment, classes: Sequence[str], bits: Bits, observe: Observer) -> BaseModel:
    quantised = "" if bits == "none" else f" in {bits} bits ({QUANTISED_AS[bits]})"
    observe(Stage(f"loading {experiment.model.id}{quantised}"))
    return load_base(experiment.model, experiment.lora, tuple(classes) or None, longest_text(experiment), bits)


def longest_text(experiment: Experiment) -> int | None:
    """The most tokens that the model is given at once: an example, or a prompt with its answer where one is written.

    None for a model of images.
    """
    if experiment.model.task == "image-classification":
        return None
    evaluation = experiment.evaluation
    answers = experiment.model.task == "generation" and (evaluation.generate_rows > 0 or evaluation.question)
    return experiment.training.max_tokens + (evaluation.max_new_tokens if answers else 0)


def site_of_run(
    experiment: Experiment, base: BaseModel, facts: Mapping[str, Any], client: str, *, where: object
) -> Site:
    """One client's rows of a run that is there. facts: of the run, as of `lasting_facts`.

    Raises: DataError if they are not here, or not those that the run was started with.
    """
    site = _site(experiment, Sources(experiment), base, facts["labels"], client)
    if site.digest != facts["rows"].get(client):
        raise DataError(
            f"the rows of {client} are not those that the run was started with",
            where=where,
            do="Put them back as they were",
        )
    return site


def _site(experiment: Experiment, sources: Sources, base: BaseModel, classes: Sequence[str], name: str) -> Site:
    rows = sources.client(name)
    numbers = {label: number for number, label in enumerate(classes)}
    drawn = _drawn(rows.held_out, experiment.evaluation.max_rows, rng.child(experiment.seed, "held out", name))

    def encoded(examples: Sequence[Example]) -> Sequence[Row]:
        if base.reader is not None:
            return encode_images(examples, base.reader, numbers)
        return encode_all(examples, base.tokenizer, experiment.training.max_tokens, numbers or None, client=name)

    questions = [] if base.classifies else drawn[: experiment.evaluation.generate_rows]
    canaries = encoded([canary.example for canary in rows.canaries]) if rows.canaries else ()
    if len(canaries) != len(rows.canaries):
        raise DataError(
            "canaries do not fit into max_tokens",
            where=f"client {name!r}",
            do=f"Raise max_tokens above {experiment.training.max_tokens}, or set [privacy] canaries = 0",
        )
    included = tuple(canary.included for canary in rows.canaries)
    return Site(encoded(rows.train), encoded(drawn), questions, rows.dropped, rows.digest(), canaries, included)


def _drawn(examples: Sequence[Example], count: int, seed: int) -> list[Example]:
    order = torch.randperm(len(examples), generator=torch.Generator().manual_seed(seed)).tolist()
    return [examples[index] for index in order[:count]]


def lasting_facts(sites: Sites) -> dict[str, Any]:
    """What must be the same whenever a run goes on: base, class names, every client's rows."""
    rows = {name: site.digest for name, site in sites.by_client.items()}
    return {"base_digest": sites.base.digest, "labels": list(sites.labels), "rows": rows}


def refuse_changed(sites: Sites, facts: Mapping[str, Any], *, where: object) -> None:
    """Raises: WrongBaseError, or DataError naming the clients whose rows or classes are not those of the run."""
    refuse_other_base(sites.base.digest, facts["base_digest"], where=where)
    now = lasting_facts(sites)
    changed = [name for name, digest in facts["rows"].items() if now["rows"].get(name) != digest]
    if changed:
        raise DataError(
            f"the rows of {', '.join(changed)} are not those that the run was started with",
            where=where,
            do="Put them back as they were, or start a new run; otherwise rows that were held out may be trained on",
        )
    if now["labels"] != facts["labels"]:
        raise DataError(
            "the classes are not those of the run", where=where, expected=facts["labels"], found=now["labels"]
        )


def base_of_run(experiment: Experiment, facts: Mapping[str, Any], *, where: object) -> BaseModel:
    """The base that a run was trained on. facts: of the run, as of `lasting_facts`.

    Raises: ModelError if it is not here; WrongBaseError if its weights are others.
    """
    base = load_base(experiment.model, experiment.lora, tuple(facts["labels"]) or None, longest_text(experiment))
    refuse_other_base(base.digest, facts["base_digest"], where=where)
    return base


def refuse_other_base(found: str, expected: str, *, where: object) -> None:
    """Raises: WrongBaseError if the digests differ."""
    if found != expected:
        raise WrongBaseError(
            "the base model has other weights than the one of this run",
            where=where,
            expected=f"digest {expected[:12]}",
            found=f"digest {found[:12]}",
            do="Put the base model back that the run was started with",
        )
