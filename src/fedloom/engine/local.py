"""The embedded engine: all clients in this process, one copy of the base, adapters swapped in and out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from fedloom.data.batches import evaluation_batches, training_batches
from fedloom.data.examples import Generation
from fedloom.engine.base import Federation, Reply
from fedloom.engine.events import ClientBegins, Observer, silent
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
from fedloom.training.local import load_head, train
from fedloom.training.lora_layer import load_start
from fedloom.training.measure import answer, held_out_loss
from fedloom.training.memory import release


@dataclass(frozen=True)
class LocalEngine:
    """Exchanges assignments with clients in this process, through the same bytes as any other transport.

    tokens_per_batch: size of an evaluation batch.
    """

    sites: Sites
    observe: Observer = silent
    max_new_tokens: int = 48
    tokens_per_batch: int = 1024

    def describe(self) -> Federation:
        return self.sites.federation()

    def exchange(self, assignments: Iterable[Assignment]) -> Iterator[Reply | Dropout]:
        for assignment in assignments:
            yield self._answer(assignment)

    def _answer(self, assignment: Assignment) -> Reply | Dropout:
        self.observe(ClientBegins(assignment.client, assignment.kind, assignment.round))
        down = assignment_to_bytes(assignment)
        size = len(down)
        received = assignment_from_bytes(down)
        del down  # a trunk may be large, and training needs the memory
        try:
            up = self._at_the_client(received)
        except FedLoomError as error:
            return Dropout(assignment.round, assignment.client, str(error))
        finally:
            release()
        contribution = contribution_from_bytes(up, start=assignment.start.trainable)
        return Reply(assignment, contribution, bytes_down=size, bytes_up=len(up))

    def _at_the_client(self, assignment: Assignment) -> bytes:
        """All that happens at a site, from the assignment that arrived as bytes to the bytes that leave."""
        site = self.sites.site(assignment.client)
        answered = self._train(site, assignment) if assignment.kind == "train" else self._evaluate(site, assignment)
        return contribution_to_bytes(answered, assignment.trains)

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
        trained = train(base, assignment, batches, self.observe)
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
        load_start(base, assignment.start, {})
        load_head(base, assignment.head)
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
