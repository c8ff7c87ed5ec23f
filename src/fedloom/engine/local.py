"""The embedded engine: all clients in this process, one copy of the base, adapters swapped in and out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from fedloom.data.batches import evaluation_batches, training_batches
from fedloom.data.examples import Generation
from fedloom.engine.base import Federation, Reply
from fedloom.engine.events import ClientBegins, Observer, silent
from fedloom.engine.keeping import begun, put_away, store_of
from fedloom.engine.sites import Site, Sites
from fedloom.errors import FedLoomError
from fedloom.evaluation.scores import answer_scores
from fedloom.rounds.contribute import prepared
from fedloom.rounds.messages import WORK_UNITS, Assignment, Contribution, Dropout
from fedloom.rounds.wire import (
    assignment_from_bytes,
    assignment_to_bytes,
    contribution_from_bytes,
    contribution_to_bytes,
)
from fedloom.training.local import load_assignment, train_loaded
from fedloom.training.measure import answer, held_out_loss
from fedloom.training.memory import release


@dataclass(frozen=True)
class LocalEngine:
    """Exchanges assignments with clients in this process, through the same bytes as any other transport.

    tokens_per_batch: size of an evaluation batch.  store: where each client has a directory of its own for what it
        keeps; None: for methods whose clients keep nothing.
    """

    sites: Sites
    observe: Observer = silent
    max_new_tokens: int = 48
    tokens_per_batch: int = 1024
    store: Path | None = None

    def describe(self) -> Federation:
        return self.sites.federation()

    def exchange(self, assignments: Iterable[Assignment]) -> Iterator[Reply | Dropout]:
        waiting = iter(assignments)
        while (answer := self._next(waiting)) is not None:
            yield answer

    def _next(self, waiting: Iterator[Assignment]) -> Reply | Dropout | None:
        """The answer to the next assignment, None behind the last. While a client works, its trunk is in its layers and
        nowhere else: nobody here keeps the assignment as it came, as a trunk may be as large as the layers.
        """
        assignment = next(waiting, None)
        if assignment is None:
            return None
        self.observe(ClientBegins(assignment.client, assignment.kind, assignment.round))
        try:
            received, size = self._delivered(assignment)
            assignment = assignment.without_trunk()
            up = self._at_the_client(received)
        except FedLoomError as error:
            return Dropout(assignment.round, assignment.client, str(error))
        finally:
            release()
        contribution = contribution_from_bytes(up, start=assignment.start.trainable)
        return Reply(assignment, contribution, bytes_down=size, bytes_up=len(up))

    def _delivered(self, assignment: Assignment) -> tuple[Assignment, int]:
        """The assignment as it arrives at the client, its start in the layers, and how many bytes it was."""
        sent = assignment_to_bytes(assignment)
        received = begun(assignment_from_bytes(sent), store_of(self.store, assignment))
        load_assignment(self.sites.base, received)
        return received.without_trunk(), len(sent)

    def _at_the_client(self, assignment: Assignment) -> bytes:
        """All that happens at a site after its start was loaded, up to the bytes that leave."""
        site = self.sites.site(assignment.client)
        if assignment.kind == "evaluate":
            return contribution_to_bytes(self._evaluate(site, assignment), {})
        answered = self._train(site, assignment)
        put_away(assignment, answered.adapter, store_of(self.store, assignment))
        return contribution_to_bytes(answered, assignment.sends)

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
