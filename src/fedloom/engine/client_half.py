"""All that happens at a client between the bytes of an assignment and the bytes of its answer, on any transport."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fedloom.data.batches import AnyBatch, evaluation_batches, sampled_batches, training_batches
from fedloom.data.examples import Generation
from fedloom.engine.choosing import choose
from fedloom.engine.events import Observer, silent
from fedloom.engine.forming import confirmed, with_trunk
from fedloom.engine.keeping import begun, keep_model, leaving, store_of
from fedloom.engine.privacy_extra import privacy_part
from fedloom.engine.releasing import (
    answered,
    begun_privately,
    identified,
    ledger_of,
    refuse_without_noise,
    released,
    resent,
)
from fedloom.engine.sites import Site, Sites, lasting_facts
from fedloom.errors import FedLoomError
from fedloom.evaluation.scores import answer_scores
from fedloom.planning.importance import scaled
from fedloom.privacy.entropy import Entropy
from fedloom.rounds.contribute import prepared
from fedloom.rounds.messages import WORK_UNITS, Assignment, Contribution
from fedloom.rounds.personal import own_tensors
from fedloom.rounds.wire import assignment_from_bytes, contribution_from_bytes, contribution_to_bytes
from fedloom.spec.experiment import Experiment
from fedloom.training.base_model import BaseModel
from fedloom.training.local import Trained, load_assignment, train_loaded, work_of
from fedloom.training.measure import answer, held_out_loss
from fedloom.training.peak import can_measure, measured_peak
from fedloom.training.private import train_privately


@dataclass(frozen=True)
class ClientHalf:
    """What answers assignments for the clients whose rows are in `sites`.

    max_new_tokens: of an answer that is written.  tokens_per_batch: size of an evaluation batch.
    store: where each client has a directory of its own for what it keeps; None: for methods whose clients keep nothing.
    budget: epsilon that this site allows over everything in its ledger; None: what the run promises.
    sums: client -> the secure sum that it takes part in, of `masked_half`.
    only_sums: whether what is trained may leave only as part of such a sum.
    experiment: as its only client knows it, whose whole model is put away each time that it is measured (`keep_model`);
        None: it is not, as where the run's directory has all its parts.
    alone: whether the process has nothing else to do than to answer for one client: then what it takes of the memory is
        what that client takes, and is measured.
    """

    sites: Sites
    observe: Observer = silent
    max_new_tokens: int = 48
    tokens_per_batch: int = 1024
    store: Path | None = None
    budget: float | None = None
    sums: dict[str, Any] = field(default_factory=dict)
    only_sums: bool = False
    experiment: Experiment | None = None
    alone: bool = False

    def answer(self, data: bytes) -> bytes:
        """The answer to one assignment. Raises: FedLoomError for bytes that are none, or work that cannot be done."""
        return self.answer_loaded(*self._loaded(data))

    def loaded(self, data: bytes) -> Assignment:
        """The assignment as it arrives, without its trunk: its start is in the layers, and nowhere else."""
        return self._loaded(data)[0]

    def _loaded(self, data: bytes) -> tuple[Assignment, Mapping[str, float]]:
        """The same, and metrics of its loading."""
        received = assignment_from_bytes(data)
        if received.client not in self.sites.by_client:
            raise FedLoomError(
                "the assignment is for another client",
                expected=f"one of {sorted(self.sites.by_client)}",
                found=repr(received.client),
            )
        refuse_without_noise(received, self.budget)
        received = identified(received, self._identity(received.client), self.sites.site(received.client).digest)
        if answered(received, ledger_of(self.store, received)) is not None:
            return received.without_trunk(), {}
        run = None if self.experiment is None else self.experiment.name
        begins = with_trunk(begun(received, store_of(self.store, received), run), self.store)
        base = self.sites.base_of(received.client)
        begins = choose(base, begins, self._batches(begins))
        load_assignment(base, begins)
        return begins.without_trunk(), self._kept(begins)

    def _kept(self, begins: Assignment) -> Mapping[str, float]:
        if self.experiment is None:
            return {}
        facts, store = lasting_facts(self.sites), store_of(self.store, begins)
        return keep_model(begins, store, self.experiment, facts, self.observe)

    def answer_loaded(self, assignment: Assignment, loading: Mapping[str, float] = MappingProxyType({})) -> bytes:
        """Train or measure what was loaded last, up to the bytes that leave. loading: metrics to add."""
        site = self.sites.site(assignment.client)
        if assignment.kind == "evaluate":
            measured = confirmed(assignment, self._evaluate(site, assignment), self.store)
            return contribution_to_bytes(replace(measured, metrics={**measured.metrics, **loading}), {})
        self._require_sum(assignment)
        if assignment.promise is None:
            return self._sent(assignment, self._leaving(site, assignment, self._train(assignment)))
        released = self._release(site, assignment)
        if assignment.masking is None:
            return released
        return self._sent(
            assignment, contribution_from_bytes(released, start=assignment.start.trainable, head=assignment.head)
        )

    def _identity(self, client: str) -> str:
        """Of the base as this client trains on it: other bits give other answers."""
        base = self.sites.base_of(client)
        return base.digest if base.bits == "none" else f"{base.digest} in {base.bits} bits"

    def masked_answer(self, client: str, step: str, body: bytes) -> bytes:
        """The answer to one step of a secure sum. Raises: FedLoomError."""
        return privacy_part("masked_half").masked_answer(self.sums, client, step, body, self.store)

    def _require_sum(self, assignment: Assignment) -> None:
        if self.only_sums and assignment.masking is None:
            raise FedLoomError(
                "this site sends what it trained only as part of a secure sum",
                where=f"client {assignment.client!r}",
                found="an assignment without one",
                do="Set [secure_aggregation] enabled = true, or only_sums = false in [privacy] of site.toml",
            )

    def _sent(self, assignment: Assignment, sent: Contribution) -> bytes:
        if assignment.masking is not None:
            sent = privacy_part("masked_half").masked(self.sums, assignment, sent, self.store)
        return contribution_to_bytes(confirmed(assignment, sent, self.store), assignment.sends, asked=assignment)

    def _release(self, site: Site, assignment: Assignment) -> bytes:
        """What a private training releases, once it is in the ledger; to the same question, the same bytes."""
        ledger = ledger_of(self.store, assignment)
        assert ledger is not None, "as there is a promise"
        again = answered(assignment, ledger)
        if again is not None:
            return resent(assignment, ledger, again, len(site.train), self.budget)
        private = begun_privately(assignment, ledger, len(site.train), self.budget)
        base, work = self.sites.base_of(assignment.client), work_of(assignment)
        entropy = Entropy()
        samples = (entropy.sample(private.mechanism.rows, private.mechanism.sampling_rate) for _ in range(work.steps))
        steps = sampled_batches(site.train, samples, work.batch_size, base.pad_id, base.task)
        trained = train_privately(base, assignment, steps, private.mechanism, entropy, self.observe)
        leaves = replace(self._leaving(site, assignment, trained, private.facts), ledger=private.ledger.head)
        sent = confirmed(assignment, leaves, self.store)
        return released(assignment, private, contribution_to_bytes(sent, assignment.sends, asked=assignment))

    def _train(self, assignment: Assignment) -> Trained:
        base = self.sites.base_of(assignment.client)
        if not (self.alone and can_measure(base.device)):
            return train_loaded(base, assignment, self._batches(assignment), self.observe)
        with measured_peak(base.device) as peak:
            trained = train_loaded(base, assignment, self._batches(assignment), self.observe)
        return replace(trained, metrics={**trained.metrics, "memory_bytes": float(peak.bytes)})

    def _batches(self, assignment: Assignment) -> Iterator[AnyBatch]:
        """Of the round, the same each time that they are asked for."""
        base, site, work = (
            self.sites.base_of(assignment.client),
            self.sites.site(assignment.client),
            work_of(assignment),
        )
        yield from training_batches(
            site.train,
            work.batch_size,
            work.steps * work.accumulation,
            seed=assignment.seed,
            pad_id=base.pad_id,
            task=base.task,
        )

    def _leaving(
        self, site: Site, assignment: Assignment, trained: Trained, facts: Mapping[str, float] | None = None
    ) -> Contribution:
        """What is sent, after what stays was put away. facts: metrics besides those of the training."""
        contribution = self._contribution(site, assignment, trained)
        contribution = replace(contribution, metrics={**contribution.metrics, **(facts or {})})
        # What had nothing to do in this round stays as it was.
        own = own_tensors({**assignment.start.mixers, **trained.mixers}, {**assignment.memory, **trained.memory})
        return leaving(assignment, contribution, store_of(self.store, assignment), own)

    def _contribution(self, site: Site, assignment: Assignment, trained: Trained) -> Contribution:
        return Contribution(
            round=assignment.round,
            client=assignment.client,
            examples=len(site.train),
            metrics={**trained.metrics, **_speeds(trained.metrics)},
            adapter=prepared(assignment, trained.adapter),
            head=trained.head,
            importance=scaled(trained.importance, work_of(assignment).importance or 0.0),
        )

    def _evaluate(self, site: Site, assignment: Assignment) -> Contribution:
        base = self.sites.base_of(assignment.client)
        batches = evaluation_batches(site.held_out, self.tokens_per_batch, pad_id=base.pad_id, task=base.task)
        metrics: Mapping[str, float] = {"rows": float(len(site.held_out)), **held_out_loss(base, batches)}
        if assignment.generate_rows and base.task == "generation":
            metrics = {**metrics, **self._generation_scores(site, base, assignment.generate_rows)}
        return replace(_empty(assignment), examples=len(site.held_out), metrics=metrics)

    def _generation_scores(self, site: Site, base: BaseModel, rows: int) -> dict[str, float]:
        examples = [example for example in site.questions[:rows] if isinstance(example, Generation)]
        prompts = [example.prompt_messages for example in examples]
        answers = answer(base, prompts, self.max_new_tokens, self.sites.max_tokens)
        return answer_scores(answers, [example.response for example in examples])


def _speeds(metrics: Mapping[str, float]) -> dict[str, float]:
    return {f"{unit}_per_second": metrics[unit] / metrics["seconds"] for unit in WORK_UNITS if unit in metrics}


def _empty(assignment: Assignment) -> Contribution:
    return Contribution(round=assignment.round, client=assignment.client, examples=0, metrics={})
