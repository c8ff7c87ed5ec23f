"""A client's half of a secure sum: pure steps from one frozen state to the next. Nothing here sends or waits.

    y_u = x_u + PRG(b_u) + sum_(v > u) PRG(s_uv) - sum_(v < u) PRG(s_uv)   mod 2^64

b_u is a seed of its own, s_uv = HKDF(X25519(s_u, S_v)) a seed that u and v share. Of b_u and of s_u each peer gets a
share. At the end a client reveals, of each peer, one of the two: of a survivor that of b, of others that of s. Which
is fixed by the set of survivors that it signed, and it does so only once `threshold` clients signed the same.
Source: Bonawitz et al., Practical Secure Aggregation for Privacy-Preserving Machine Learning (CCS 2017), figure 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from fedloom.errors import ContributionRefusedError, RunError
from fedloom.privacy.entropy import Bytes
from fedloom.privacy.secagg.keys import (
    KEY_BYTES,
    agreed,
    public_of,
    seal,
    sign,
    signed_by,
    unseal,
    verifying_key,
)
from fedloom.privacy.secagg.masks import Words, add_mask_
from fedloom.privacy.secagg.messages import (
    Advertisement,
    Agreement,
    Commitments,
    Confirmation,
    Dealing,
    Delivery,
    Revelation,
    Roster,
    Survivors,
)
from fedloom.privacy.secagg.shamir import SHARE_BYTES, split
from fedloom.privacy.secagg.terms import (
    Terms,
    commitment,
    commitment_to_seed,
    pair_context,
    seal_context,
    survivors_context,
)

NOBODY: Mapping[str, bytes] = {}


@dataclass(frozen=True)
class Advertised:
    """After step 1. identity, mask_private, seal_private: this client's own, never shown."""

    terms: Terms
    own: Advertisement
    identity: bytes = field(repr=False)
    mask_private: bytes = field(repr=False)
    seal_private: bytes = field(repr=False)

    @property
    def client(self) -> str:
        return self.own.client


@dataclass(frozen=True)
class Shares:
    """What one client holds of one dealer's secrets."""

    mask: bytes = field(repr=False)
    seed: bytes = field(repr=False)


@dataclass(frozen=True)
class Dealt:
    """After step 2. seed: of the own mask.  kept: the own shares of the own secrets."""

    before: Advertised
    roster: Roster
    seed: bytes = field(repr=False)
    kept: Shares

    @cached_property
    def peers(self) -> dict[str, Advertisement]:
        return {one.client: one for one in self.roster.clients if one.client != self.before.client}

    @cached_property
    def roster_digest(self) -> bytes:
        return self.roster.digest(self.before.terms)


@dataclass(frozen=True)
class Masked:
    """After step 3. held: dealer -> its shares, the own ones too."""

    before: Dealt
    held: Mapping[str, Shares]

    @property
    def dealers(self) -> tuple[str, ...]:
        return tuple(sorted(self.held))


@dataclass(frozen=True)
class Confirmed:
    """After step 4: the set of survivors is fixed."""

    before: Masked
    survivors: tuple[str, ...]


def advertise(terms: Terms, client: str, identity: bytes, entropy: Bytes) -> tuple[Advertised, Advertisement]:
    """Step 1: two new key pairs. identity: the private Ed25519 key that this client signs with."""
    if client not in terms.clients:
        raise RunError("the client is not part of this secure sum", where=f"client {client!r}", expected=terms.clients)
    mask_private, seal_private = entropy(KEY_BYTES), entropy(KEY_BYTES)
    unsigned = Advertisement(
        client=client,
        mask_key=public_of(mask_private),
        seal_key=public_of(seal_private),
        identity=verifying_key(identity),
        signature=bytes(64),
    )
    own = unsigned.model_copy(update={"signature": sign(identity, terms.tag, *unsigned.signed)})
    return Advertised(terms, own, identity, mask_private, seal_private), own


def deal(
    state: Advertised, roster: Roster, entropy: Bytes, known: Mapping[str, bytes] = NOBODY
) -> tuple[Dealt, Dealing]:
    """Step 2: shares of both secrets for everybody in the roster.

    known: client -> the identity that it must have; those who are not in it may have any.
    Raises: ContributionRefusedError naming a peer whose keys are not its own; RunError for a roster without this
        client, or with fewer than the threshold.
    """
    terms, client, seed = state.terms, state.client, entropy(KEY_BYTES)
    check_roster(terms, roster, known)
    if state.own not in roster.clients:
        raise RunError("the roster has other keys of this client than it sent", where=f"client {client!r}")
    holders = [one.client for one in roster.clients]
    points = [terms.point(holder) for holder in holders]
    masks = split(state.mask_private, points, terms.threshold, entropy)
    seeds = split(seed, points, terms.threshold, entropy)
    shares = {holder: Shares(masks[at], seeds[at]) for holder, at in zip(holders, points, strict=True)}
    dealt = Dealt(state, roster, seed, shares[client])
    dealing = Dealing(
        client=client,
        sealed={holder: _sealed(dealt, holder, shares[holder]) for holder in dealt.peers},
        commitments={holder: commitments_to(terms, client, holder, shares[holder]) for holder in holders},
        seed=commitment_to_seed(terms, client, seed),
    )
    return dealt, dealing


def mask(state: Dealt, delivery: Delivery, words: Words) -> tuple[Masked, Words]:
    """Step 3: the words under the own mask and those shared with everybody who dealt.

    Raises: ContributionRefusedError naming a peer whose shares are wrong, of another sum, or were changed on their way;
        RunError for fewer dealers than the threshold, or another number of words.
    """
    terms, client = state.before.terms, state.before.client
    if len(words) != terms.length:
        where = f"client {client!r}"
        raise RunError("another number of words than was agreed", where=where, expected=terms.length, found=len(words))
    strangers = set(delivery.sealed) - set(state.peers)
    if strangers:
        raise RunError("shares of somebody who is not in the roster", where=f"client {client!r}", found=strangers)
    held = {dealer: _opened(state, dealer, delivery) for dealer in sorted(delivery.sealed)} | {client: state.kept}
    terms.require(len(held), f"client {client!r}, shares")
    masked = words.copy()
    add_mask_(masked, state.seed, +1)
    for peer in held:
        if peer != client:
            add_mask_(
                masked, pair_seed(terms, state.before.mask_private, client, state.peers[peer]), sign_of(client, peer)
            )
    return Masked(state, held), masked


def confirm(state: Masked, told: Survivors) -> tuple[Confirmed, Confirmation]:
    """Step 4: sign who survived. Raises: RunError for a set that cannot be, or is below the threshold."""
    dealt, client = state.before, state.before.before.client
    terms, survivors = dealt.before.terms, told.clients
    fits = list(survivors) == sorted(set(survivors)) and client in survivors and set(survivors) <= set(state.held)
    if not fits:
        expected = f"this client and others of {', '.join(state.dealers)}, in sorted order"
        raise RunError("not a set of survivors", where=f"client {client!r}", expected=expected, found=survivors)
    terms.require(len(survivors), f"client {client!r}, survivors")
    context = survivors_context(terms, dealt.roster_digest, state.dealers, survivors)
    signature = sign(dealt.before.identity, *context)
    return Confirmed(state, survivors), Confirmation(client=client, signature=signature)


def reveal(state: Confirmed, agreement: Agreement) -> Revelation:
    """Step 5: one share for each dealer, once enough others signed the same survivors. The state is used up.

    Raises: ContributionRefusedError naming a peer that signed something else; RunError below the threshold.
    """
    dealt = state.before.before
    terms, client = dealt.before.terms, dealt.before.client
    context = survivors_context(terms, dealt.roster_digest, state.before.dealers, state.survivors)
    identities = {one.client: one.identity for one in dealt.roster.clients}
    for peer, signature in sorted(agreement.signatures.items()):
        if peer not in state.survivors or not signed_by(identities[peer], signature, *context):
            raise ContributionRefusedError(
                peer,
                "it did not sign the survivors that this client was told of, so that nothing is revealed",
                expected=", ".join(state.survivors),
            )
    terms.require(len(agreement.signatures), f"client {client!r}, signatures")
    held, survivors = state.before.held, set(state.survivors)
    return Revelation(
        client=client,
        seeds={dealer: shares.seed for dealer, shares in held.items() if dealer in survivors},
        masks={dealer: shares.mask for dealer, shares in held.items() if dealer not in survivors},
    )


def check_roster(terms: Terms, roster: Roster, known: Mapping[str, bytes] = NOBODY) -> None:
    """Raises: ContributionRefusedError naming a client whose keys are not its own; RunError for another set."""
    names = [one.client for one in roster.clients]
    if names != sorted(set(names)) or not set(names) <= set(terms.clients):
        raise RunError("the roster has others than the terms", expected=terms.clients, found=names)
    terms.require(len(names), "roster")
    for one in roster.clients:
        check_advertisement(terms, one, known)
    for kind in ("mask_key", "seal_key", "identity"):
        if len({getattr(one, kind) for one in roster.clients}) != len(names):
            raise RunError("two clients of the roster have one key", where=kind, expected="a key for each")


def check_advertisement(terms: Terms, one: Advertisement, known: Mapping[str, bytes] = NOBODY) -> None:
    """Raises: ContributionRefusedError naming the client."""
    expected = known.get(one.client, one.identity)
    if one.identity != expected:
        raise ContributionRefusedError(
            one.client,
            "it has another identity than before",
            expected=expected.hex(),
            found=one.identity.hex(),
            do="Ask that site for its key; if it is the one found, take the old one out of peers.json",
        )
    if not signed_by(one.identity, one.signature, terms.tag, *one.signed):
        raise ContributionRefusedError(one.client, "its keys are not signed for this secure sum")


def pair_seed(terms: Terms, private: bytes, own: str, peer: Advertisement) -> bytes:
    """Of the mask that a client shares with a peer. Raises: ContributionRefusedError naming a peer with a bad key."""
    seed = agreed(private, peer.mask_key, *pair_context(terms, own, peer.client))
    if seed is None:
        raise ContributionRefusedError(peer.client, "its mask key is none that keys can be agreed with")
    return seed


def sign_of(own: str, peer: str) -> int:
    """Of their common mask in the words of `own`: one adds what the other subtracts."""
    return 1 if own < peer else -1


def commitments_to(terms: Terms, dealer: str, holder: str, shares: Shares) -> Commitments:
    return Commitments(
        mask_share=commitment(terms, b"mask", dealer, holder, shares.mask),
        seed_share=commitment(terms, b"seed", dealer, holder, shares.seed),
    )


def _sealed(dealt: Dealt, holder: str, shares: Shares) -> bytes:
    context = seal_context(dealt.before.terms, dealt.roster_digest, dealt.before.client, holder)
    return seal(_seal_key(dealt, holder, context), shares.mask + shares.seed, *context)


def _seal_key(dealt: Dealt, peer: str, context: tuple[bytes, ...]) -> bytes:
    key = agreed(dealt.before.seal_private, dealt.peers[peer].seal_key, *context)
    if key is None:
        raise ContributionRefusedError(peer, "its seal key is none that keys can be agreed with")
    return key


def _opened(dealt: Dealt, dealer: str, delivery: Delivery) -> Shares:
    terms, client = dealt.before.terms, dealt.before.client
    context = seal_context(terms, dealt.roster_digest, dealer, client)
    plain = unseal(_seal_key(dealt, dealer, context), delivery.sealed[dealer], *context)
    if plain is None:
        raise ContributionRefusedError(dealer, "its shares are of another secure sum, or were changed on their way")
    shares = Shares(plain[:SHARE_BYTES], plain[SHARE_BYTES:])
    if delivery.commitments.get(dealer) != commitments_to(terms, dealer, client, shares):
        raise ContributionRefusedError(dealer, "its shares are not those that it committed to")
    return shares
