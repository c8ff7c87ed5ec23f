"""The server's half of a secure sum: what it forwards, what it adds up, and how the masks come off.

It sees public keys, sealed shares, and vectors that look like noise. A client that is at fault counts as one that
dropped out, and is named in `faults`. Below the threshold every step raises RunError, and nothing was revealed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from fedloom.errors import ContributionRefusedError
from fedloom.privacy.secagg.client import check_advertisement, check_roster, pair_seed, sign_of
from fedloom.privacy.secagg.keys import public_of, signed_by
from fedloom.privacy.secagg.masks import Words, add_mask_
from fedloom.privacy.secagg.messages import (
    Advertisement,
    Agreement,
    Confirmation,
    Dealing,
    Delivery,
    Revelation,
    Roster,
    Survivors,
)
from fedloom.privacy.secagg.shamir import combine, weights_at_zero
from fedloom.privacy.secagg.terms import Terms, commitment, commitment_to_seed, survivors_context

Faults = tuple[ContributionRefusedError, ...]
T = TypeVar("T")


@dataclass(frozen=True)
class Opened:
    """After step 1. faults: of this step and those before, here and below."""

    terms: Terms
    roster: Roster
    faults: Faults = ()

    @property
    def clients(self) -> tuple[str, ...]:
        return tuple(one.client for one in self.roster.clients)


@dataclass(frozen=True)
class Shared:
    """After step 2: who dealt shares."""

    opened: Opened
    dealings: Mapping[str, Dealing]
    faults: Faults = ()

    @property
    def clients(self) -> tuple[str, ...]:
        return tuple(sorted(self.dealings))

    def delivery(self, client: str) -> Delivery:
        """What the others sealed for one of them."""
        others = [dealing for dealer, dealing in self.dealings.items() if dealer != client]
        return Delivery(
            sealed={dealing.client: dealing.sealed[client] for dealing in others},
            commitments={dealing.client: dealing.commitments[client] for dealing in others},
        )


@dataclass(frozen=True)
class Summed:
    """After step 3: the sum of the survivors, still masked."""

    shared: Shared
    words: Words = field(repr=False)
    clients: tuple[str, ...]
    faults: Faults = ()

    @property
    def survivors(self) -> Survivors:
        return Survivors(clients=self.clients)


@dataclass(frozen=True)
class Agreed:
    """After step 4: who signed the set of survivors."""

    summed: Summed
    agreement: Agreement
    faults: Faults = ()

    @property
    def clients(self) -> tuple[str, ...]:
        return tuple(sorted(self.agreement.signatures))


@dataclass(frozen=True)
class Unmasked:
    """The sum, of whom it is, who was lost on the way, and who was at fault."""

    words: Words = field(repr=False)
    clients: tuple[str, ...]
    lost: tuple[str, ...]
    faults: Faults = ()


def open_round(terms: Terms, advertisements: Mapping[str, Advertisement]) -> Opened:
    """Step 1: the roster of those whose keys are their own."""

    def check(client: str, one: Advertisement) -> None:
        if one.client != client:
            raise ContributionRefusedError(client, "its keys say that they are another's", found=repr(one.client))
        check_advertisement(terms, one)

    good, faults = _sorted_out(advertisements, check)
    terms.require(len(good), "keys", _told(faults))
    roster = Roster(clients=tuple(good.values()))
    check_roster(terms, roster)
    return Opened(terms, roster, faults)


def share(opened: Opened, dealings: Mapping[str, Dealing]) -> Shared:
    """Step 2: dealings that have something for everybody."""
    everybody = set(opened.clients)

    def check(client: str, one: Dealing) -> None:
        right = one.client == client and client in everybody
        if not (right and set(one.sealed) == everybody - {client} and set(one.commitments) == everybody):
            raise ContributionRefusedError(client, "it dealt shares to others than the roster", expected=everybody)

    good, faults = _sorted_out(dealings, check)
    opened.terms.require(len(good), "shares", _told(faults))
    return Shared(opened, good, (*opened.faults, *faults))


def add_up(shared: Shared, masked: Iterable[tuple[str, Words]]) -> Summed:
    """Step 3: the sum of what arrives, one vector at a time."""
    terms, total, arrived = shared.opened.terms, np.zeros(shared.opened.terms.length, dtype=np.uint64), []
    faults: list[ContributionRefusedError] = []
    for client, words in masked:
        if client not in shared.dealings or client in arrived or len(words) != terms.length:
            what = "its masked numbers cannot be used: it dealt no shares, sent them twice, or too many"
            faults.append(
                ContributionRefusedError(client, what, expected=f"{terms.length} words", found=f"{len(words)} words")
            )
            continue
        total += words
        arrived.append(client)
    terms.require(len(arrived), "masked numbers", _told(faults))
    return Summed(shared, total, tuple(sorted(arrived)), (*shared.faults, *faults))


def agree(summed: Summed, confirmations: Mapping[str, Confirmation]) -> Agreed:
    """Step 4: signatures of the same set of survivors."""
    opened = summed.shared.opened
    context = survivors_context(opened.terms, opened.roster.digest(opened.terms), summed.shared.clients, summed.clients)
    identities = {one.client: one.identity for one in opened.roster.clients}

    def check(client: str, one: Confirmation) -> None:
        right = client in summed.clients and one.client == client
        if not right or not signed_by(identities[client], one.signature, *context):
            raise ContributionRefusedError(client, "it did not sign the survivors of this secure sum")

    good, faults = _sorted_out(confirmations, check)
    opened.terms.require(len(good), "signatures", _told(faults))
    signatures = {client: one.signature for client, one in good.items()}
    return Agreed(summed, Agreement(signatures=signatures), (*summed.faults, *faults))


def unmask(agreed: Agreed, revelations: Mapping[str, Revelation]) -> Unmasked:
    """Step 5: take the masks off.

    Raises: RunError below the threshold; ContributionRefusedError naming a client whose shares do not give what it
        committed to: the sum cannot be known then, and nothing was revealed but seeds.
    """
    summed = agreed.summed
    shared, survivors = summed.shared, summed.clients
    terms = shared.opened.terms
    lost = tuple(client for client in shared.clients if client not in survivors)
    good, faults = _sorted_out(revelations, lambda client, one: _check_revelation(agreed, lost, client, one))
    faults = (*agreed.faults, *faults)
    terms.require(len(good), "revealed shares", _told(faults))
    holders = sorted(good)[: terms.threshold]
    weights = weights_at_zero(terms.point(holder) for holder in holders)

    def secret(kind: str, dealer: str) -> bytes | None:
        return combine({terms.point(holder): getattr(good[holder], kind)[dealer] for holder in holders}, weights)

    words = summed.words.copy()
    for client in survivors:
        add_mask_(words, _seed(shared, client, secret("seeds", client)), -1)
    for client in lost:
        _take_off_pairs_(words, shared, client, survivors, secret("masks", client))
    return Unmasked(words, survivors, lost, faults)


def _check_revelation(agreed: Agreed, lost: tuple[str, ...], client: str, one: Revelation) -> None:
    """Raises: ContributionRefusedError for a wrong share, or one too many or too few."""
    shared, survivors = agreed.summed.shared, agreed.summed.clients
    terms = shared.opened.terms
    if client not in survivors or one.client != client:
        raise ContributionRefusedError(client, "it reveals shares, and is no survivor of this secure sum")
    if set(one.seeds) != set(survivors) or set(one.masks) != set(lost):
        raise ContributionRefusedError(client, "it reveals shares of others than those asked for")
    for kind, revealed in ((b"seed", one.seeds), (b"mask", one.masks)):
        for dealer, found in revealed.items():
            promised = getattr(shared.dealings[dealer].commitments[client], f"{kind.decode()}_share")
            if commitment(terms, kind, dealer, client, found) != promised:
                raise ContributionRefusedError(client, f"its share of a secret of {dealer!r} is not the one dealt")


def _seed(shared: Shared, client: str, found: bytes | None) -> bytes:
    if found is None or commitment_to_seed(shared.opened.terms, client, found) != shared.dealings[client].seed:
        raise ContributionRefusedError(client, "the shares that it dealt do not give the seed that it committed to")
    return found


def _take_off_pairs_(words: Words, shared: Shared, client: str, survivors: tuple[str, ...], key: bytes | None) -> None:
    """Remove what the survivors' words have of the masks that they share with one who was lost."""
    public = {one.client: one for one in shared.opened.roster.clients}
    if key is None or public_of(key) != public[client].mask_key:
        raise ContributionRefusedError(client, "the shares that it dealt do not give its mask key")
    for survivor in survivors:
        seed = pair_seed(shared.opened.terms, key, client, public[survivor])
        add_mask_(words, seed, -sign_of(survivor, client))


def _sorted_out(found: Mapping[str, T], check: Callable[[str, T], None]) -> tuple[dict[str, T], Faults]:
    """Those that pass, in sorted order, and why the others do not."""
    good: dict[str, T] = {}
    faults: list[ContributionRefusedError] = []
    for client in sorted(found):
        try:
            check(client, found[client])
            good[client] = found[client]
        except ContributionRefusedError as error:
            faults.append(error)
    return good, tuple(faults)


def _told(faults: Iterable[ContributionRefusedError]) -> str:
    return "; ".join(map(str, faults))
