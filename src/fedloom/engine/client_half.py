"""All that happens at a client between the bytes of an assignment and the bytes of its answer, on any transport."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fedloom.data.batches import evaluation_batches, training_batches
from fedloom.data.examples import Generation
from fedloom.engine.events import Observer, silent
from fedloom.engine.keeping import begun, leaving, store_of
from fedloom.engine.privacy_extra import privacy_part
from fedloom.engine.sites import Site, Sites
from fedloom.errors import FedLoomError
from fedloom.evaluation.scores import answer_scores
from fedloom.rounds.contribute import prepared
from fedloom.rounds.messages import WORK_UNITS, Assignment, Contribution
from fedloom.rounds.wire import assignment_from_bytes, contribution_to_bytes
from fedloom.training.local import load_assignment, train_loaded
from fedloom.training.measure import answer, held_out_loss


@dataclass(frozen=True)
class ClientHalf:
    """What answers assignments for the clients whose rows are in `sites`.

    max_new_tokens: of an answer that is written.  tokens_per_batch: size of an evaluation batch.
    store: where each client has a directory of its own for what it keeps; None: for methods whose clients keep nothing.
    sums: client -> the secure sum that it takes part in, of `masked_half`.
    only_sums: whether what is trained may leave only as part of such a sum.
    """

    sites: Sites
    observe: Observer = silent
    max_new_tokens: int = 48
    tokens_per_batch: int = 1024
    store: Path | None = None
    sums: dict[str, Any] = field(default_factory=dict)
    only_sums: bool = False

    def answer(self, data: bytes) -> bytes:
        """The answer to one assignment. Raises: FedLoomError for bytes that are none, or work that cannot be done."""
        return self.answer_loaded(self.loaded(data))

    def loaded(self, data: bytes) -> Assignment:
        """The assignment as it arrives, without its trunk: its start is in the layers, and nowhere else."""
        received = assignment_from_bytes(data)
        if received.client not in self.sites.by_client:
            raise FedLoomError(
                "the assignment is for another client",
                expected=f"one of {sorted(self.sites.by_client)}",
                found=repr(received.client),
            )
        begins = begun(received, store_of(self.store, received))
        load_assignment(self.sites.base, begins)
        return begins.without_trunk()

    def answer_loaded(self, assignment: Assignment) -> bytes:
        """Train or measure what was loaded last, up to the bytes that leave."""
        site = self.sites.site(assignment.client)
        if assignment.kind == "evaluate":
            return contribution_to_bytes(self._evaluate(site, assignment), {})
        if self.only_sums and assignment.masking is None:
            raise FedLoomError(
                "this site sends what it trained only as part of a secure sum",
                where=f"client {assignment.client!r}",
                found="an assignment without one",
                do="Set [secure_aggregation] enabled = true, or only_sums = false in [privacy] of site.toml",
            )
        sent = leaving(assignment, self._train(site, assignment), store_of(self.store, assignment))
        if assignment.masking is not None:
            sent = privacy_part("masked_half").masked(self.sums, assignment, sent, self.store)
        return contribution_to_bytes(sent, assignment.sends, asked=assignment)

    def masked_answer(self, client: str, step: str, body: bytes) -> bytes:
        """The answer to one step of a secure sum. Raises: FedLoomError."""
        return privacy_part("masked_half").masked_answer(self.sums, client, step, body, self.store)

    def _train(self, site: Site, assignment: Assignment) -> Contribution:
        base, work = self.sites.base, assignment.work
        if work is None:
            raise FedLoomError("a training assignment came without its work", where=f"client {assignment.client!r}")
        batches = training_batches(
            site.train,
            work.batch_size,
            work.steps * work.accumulation,
            seed=assignment.seed,
            pad_id=base.pad_id,
            task=base.task,
        )
        trained = train_loaded(base, assignment, batches, self.observe)
        return Contribution(
            round=assignment.round,
            client=assignment.client,
            examples=len(site.train),
            metrics={**trained.metrics, **_speeds(trained.metrics)},
            adapter=prepared(assignment, trained.adapter),
            head=trained.head,
        )

    def _evaluate(self, site: Site, assignment: Assignment) -> Contribution:
        base = self.sites.base
        batches = evaluation_batches(site.held_out, self.tokens_per_batch, pad_id=base.pad_id, task=base.task)
        metrics: Mapping[str, float] = {"rows": float(len(site.held_out)), **held_out_loss(base, batches)}
        if assignment.generate_rows and base.task == "generation":
            metrics = {**metrics, **self._generation_scores(site, assignment.generate_rows)}
        return replace(_empty(assignment), examples=len(site.held_out), metrics=metrics)

    def _generation_scores(self, site: Site, rows: int) -> dict[str, float]:
        examples = [example for example in site.questions[:rows] if isinstance(example, Generation)]
        prompts = [example.prompt_messages for example in examples]
        answers = answer(self.sites.base, prompts, self.max_new_tokens, self.sites.max_tokens)
        return answer_scores(answers, [example.response for example in examples])


def _speeds(metrics: Mapping[str, float]) -> dict[str, float]:
    return {f"{unit}_per_second": metrics[unit] / metrics["seconds"] for unit in WORK_UNITS if unit in metrics}


def _empty(assignment: Assignment) -> Contribution:
    return Contribution(round=assignment.round, client=assignment.client, examples=0, metrics={})
