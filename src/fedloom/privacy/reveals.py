"""What each message of a run tells, and to whom: said before anything runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Disclosure:
    """to: "the server" or "other clients".  what: of a client's data they learn.  how: exactly, or how covered."""

    to: str
    what: str
    how: str


def disclosures(*, noise: bool, classifies: bool, names_classes: bool, keeps: bool) -> list[Disclosure]:
    """noise: whether clients train with DP-SGD.  names_classes: whether the configuration lists the classes.

    keeps: whether the method leaves a factor with its client.
    """
    return list(_disclosures(noise, classifies and not names_classes, keeps))


def _disclosures(noise: bool, sends_classes: bool, keeps: bool) -> Iterator[Disclosure]:
    server = "the server"
    yield Disclosure(server, "how many rows a client has, held out and dropped", "exactly")
    yield Disclosure(server, "a digest of all rows", "exactly: who guesses every row can confirm the guess")
    if sends_classes:
        yield Disclosure(server, "which classes a client has (list them in model.labels to send none)", "exactly")
    factors = "the factors trained in a round" + (", without those that stay" if keeps else "")
    if noise:
        yield Disclosure(server, factors, "under the noise of [privacy]: epsilon bounds what one row can change")
        yield Disclosure(server, "seconds of training", "exactly")
    else:
        yield Disclosure(server, factors, "exactly: parts of the rows can be reconstructed from them")
        yield Disclosure(server, "training loss, gradient norms, numbers of tokens, seconds", "exactly")
    yield Disclosure(server, "mean loss and scores on held-out rows, after each round", "exactly, not covered by noise")
    yield Disclosure("other clients", "what the server makes of all contributions of a round", "as much as is in it")
