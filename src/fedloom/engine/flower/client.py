"""The client's answers, in the process that has its rows and its base."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from fedloom.engine.flower.calls import ASSIGNMENT, BUSY, CLASSES, DESCRIBE, HELLO, PROTOCOL, SECURE, allowed, hello
from fedloom.engine.flower.frames import framed, lacking, parts_of, reason
from fedloom.engine.flower.wire import Envelope
from fedloom.engine.for_client import experiment_of, with_labels
from fedloom.engine.forming import LackingError
from fedloom.engine.member import Member
from fedloom.errors import FedLoomError
from fedloom.kits.consent import refusals
from fedloom.kits.site import SiteSettings
from fedloom.spec.experiment import Experiment
from fedloom.spec.load import parse

Config = Mapping[str, Any]


def answer_here(asked: Envelope, config: Config) -> Envelope:
    """Answer in this process, which keeps the base for the calls to come. Raises: FedLoomError."""
    return answer(asked, config, member_of(config))


def member_of(config: Config) -> Member:
    """What answers at this site, with the site's own privacy budget."""
    return _member(str(config.get("store", "fedloom-client")), budget_of(config))


def budget_of(config: Config) -> float | None:
    """The epsilon that the site allows; None for no budget."""
    site = _site(config)
    return None if site is None else site.privacy.epsilon


@cache
def _member(store: str, budget: float | None) -> Member:
    return Member(Path(store), budget=budget)


def answer(asked: Envelope, config: Config, member: Member) -> Envelope:
    """One answer. Raises: FedLoomError for a call that cannot be answered, or that this site does not accept."""
    kind = asked.text("kind")
    if kind not in _ANSWERS:
        do = "Install the same version of fedloom on both sides"
        raise FedLoomError("an unknown call", where="kind", expected=", ".join(_ANSWERS), found=repr(kind), do=do)
    return _ANSWERS[kind](asked, config, member)


def _hello(_: Envelope, config: Config, __: Member) -> Envelope:
    return hello(config)


def _classes(asked: Envelope, config: Config, member: Member) -> Envelope:
    found = member.classes(_experiment(asked, config), asked.text("client"))
    return Envelope({"protocol": PROTOCOL, "classes": json.dumps(found)})


def _describe(asked: Envelope, config: Config, member: Member) -> Envelope:
    body = member.describe(_experiment(asked, config), asked.text("client"))
    return Envelope({"protocol": PROTOCOL}, body)


def _assignment(asked: Envelope, config: Config, member: Member) -> Envelope:
    """Answer one assignment after the other; one that cannot be answered does not keep the others back."""
    began = time.monotonic()
    experiment, client = _experiment(asked, config), asked.text("client")
    site = _site(config)
    only_sums = site is not None and site.privacy.only_sums
    answers = [_one(member, experiment, client, part, only_sums) for part in parts_of(asked.body)]
    return Envelope({"protocol": PROTOCOL, BUSY: time.monotonic() - began, **allowed(config)}, framed(answers))


def _secure(asked: Envelope, config: Config, member: Member) -> Envelope:
    """One step of a secure sum, of what this process trained."""
    client = asked.text("client")
    _refuse_another(client, config)
    return Envelope({"protocol": PROTOCOL}, member.masked_answer(client, asked.text("step"), asked.body))


def _one(member: Member, experiment: Experiment, client: str, part: bytes, only_sums: bool) -> bytes:
    try:
        return member.answer(experiment, client, part, only_sums=only_sums)
    except LackingError as error:
        return lacking(str(error))
    except FedLoomError as error:
        return reason(str(error))
    except Exception as error:
        if experiment.privacy.unit == "none":
            raise
        traceback.print_exc()  # here, and not at the server: what failed may say how many rows, or which, were drawn
        return reason(f"client {client!r}: an unexpected {type(error).__name__}; the client's output has the whole")


_ANSWERS: dict[str, Callable[[Envelope, Config, Member], Envelope]] = {
    HELLO: _hello,
    CLASSES: _classes,
    DESCRIBE: _describe,
    ASSIGNMENT: _assignment,
    SECURE: _secure,
}


def _experiment(asked: Envelope, config: Config) -> Experiment:
    """The experiment that was sent, with what this site says in its place. Raises: FedLoomError if it disagrees."""
    client = asked.text("client")
    _refuse_another(client, config)
    sent = parse(asked.text("run"), where="the server's experiment", folder=Path.cwd(), data_at_sites=True)
    if client not in {table.name for table in sent.clients}:
        expected = f"one of {', '.join(table.name for table in sent.clients)}"
        raise FedLoomError("the client is not in the experiment that was sent", expected=expected, found=repr(client))
    labels = _labels(asked)
    site = _site(config)
    _refuse_unwanted(site, sent, labels)
    return with_labels(_at_this_site(sent, client, site, config), labels)


def _site(config: Config) -> SiteSettings | None:
    return SiteSettings.model_validate(config["site"]) if "site" in config else None


def _refuse_another(client: str, config: Config) -> None:
    own = config.get("client")
    if own and own != client:
        where = "a call of the server"
        raise FedLoomError("the call is for another client", where=where, expected=repr(own), found=repr(client))


def _labels(asked: Envelope) -> tuple[str, ...]:
    try:
        return tuple(map(str, json.loads(asked.text("labels"))))
    except (ValueError, TypeError) as error:
        raise FedLoomError("the class names cannot be read", where="a call of the server", found=str(error)) from error


def _refuse_unwanted(site: SiteSettings | None, sent: Experiment, labels: Sequence[str]) -> None:
    """Raises: FedLoomError with every reason why the site does not take part."""
    if site is None:
        return
    classes = labels or sent.model.labels or ()
    # With a noise multiplier the epsilon depends on the rows: the ledger refuses the round that would go too far.
    epsilon = None if sent.privacy.unit == "none" else sent.privacy.epsilon or 0.0
    reasons = refusals(site, model=sent.model.id, method=sent.method.name, classes=classes, epsilon=epsilon)
    if reasons:
        raise FedLoomError(f"this site does not take part: {'; '.join(reasons)}")


def _at_this_site(sent: Experiment, client: str, site: SiteSettings | None, config: Config) -> Experiment:
    """Data, columns and the place of the base are the site's own, whatever was sent."""
    own = {"data": str(config["data"])} if "data" in config else {}
    if site is None:
        return experiment_of(sent, client, **own)
    columns = {} if site.columns is None else {"columns": site.columns}
    experiment = experiment_of(sent, client, **{"data": site.data, **columns, **own})
    if site.model is None:
        return experiment
    return experiment.model_copy(update={"model": experiment.model.model_copy(update={"id": site.model})})
