"""The model of a run in EleutherAI's lm-eval: the same tasks before and after.

One delta for all is merged into a plain transformers model. A client's own model is measured as it answers, its mixer
included, which no merged weights could do.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedloom.adapters.adapter import Adapter
from fedloom.aggregation.world import Start
from fedloom.engine.finished import Finished, load_finished
from fedloom.errors import RunError
from fedloom.training.base_model import BaseModel
from fedloom.training.lora_layer import clear, load_start
from fedloom.training.peft_bridge import merge


@dataclass(frozen=True)
class HarnessScore:
    """One metric of one task, before and after. error: standard error of `tuned` as lm-eval gives it, if it does."""

    task: str
    metric: str
    base: float
    tuned: float
    error: float | None


def harness(
    path: str | Path,
    tasks: Sequence[str],
    *,
    tasks_dir: Path | None = None,
    limit: int | None = None,
    round: int | None = None,
    client: str | None = None,
) -> list[HarnessScore]:
    """What lm-eval measures on the base and on the model of a run; nothing of the run is written.

    tasks: names of lm-eval's own tasks, or of YAML files in tasks_dir.  limit: rows of each task; None: all.
    client: whose model, of a method that gives each client its own.
    Raises: RunError where lm-eval is not installed, a task is not known or fails, or the run is not for text
        generation.
    """
    lm_eval = _library()
    finished = load_finished(path, round=round)
    _require_generation(finished, path)
    manager = _manager(lm_eval, tasks, tasks_dir)
    tuned = finished.own(client) if finished.method.personal else finished.adapter(client)
    plain = Start(Adapter()) if isinstance(tuned, Start) else Adapter()
    before, after = (_measured(lm_eval, finished.base, model, tasks, manager, limit) for model in (plain, tuned))
    return _beside(before, after)


def _library() -> Any:
    try:
        import lm_eval.models.huggingface
        import lm_eval.tasks
    except ImportError as error:
        raise RunError(
            "tasks of lm-eval need a package that is not installed",
            where="--harness",
            found=str(error),
            do="Install it: pip install 'fedloom[harness]'",
        ) from error
    return lm_eval


def _require_generation(finished: Finished, path: str | Path) -> None:
    if finished.base.task != "generation":
        raise RunError(
            "lm-eval measures models that write text",
            where=path,
            expected="a run of text generation",
            found=finished.base.task,
            do="Evaluate without --harness",
        )


def _manager(lm_eval: Any, tasks: Sequence[str], tasks_dir: Path | None) -> Any:
    """lm-eval's list of tasks. Raises: RunError for a task that is not in it."""
    if tasks_dir is not None and not tasks_dir.is_dir():
        raise RunError("there is no such directory of tasks", where="--tasks-dir", found=tasks_dir)
    manager = lm_eval.tasks.TaskManager(include_path=None if tasks_dir is None else str(tasks_dir))
    unknown = sorted(set(tasks) - set(manager.all_tasks))
    if unknown or not tasks:
        raise RunError(
            "lm-eval knows no such task",
            where="--harness",
            expected="names of its tasks, or of those in --tasks-dir, separated by commas",
            found=", ".join(unknown) or "none",
            do="See which there are: lm-eval ls tasks",
        )
    return manager


def _measured(
    lm_eval: Any, base: BaseModel, wanted: Adapter | Start, tasks: Sequence[str], manager: Any, limit: int | None
) -> Mapping[str, Mapping[str, Any]]:
    """task -> "metric,filter" -> value.  wanted: what is merged into a copy of the base, or loaded into its layers."""
    if isinstance(wanted, Start):
        load_start(base, wanted, {})
    model = base.model if isinstance(wanted, Start) else merge(base, wanted).to(base.device)
    try:
        wrapped = lm_eval.models.huggingface.HFLM(pretrained=model, tokenizer=base.tokenizer, batch_size=4)
        found = lm_eval.simple_evaluate(
            model=wrapped, tasks=list(tasks), task_manager=manager, limit=limit, log_samples=False
        )
    except Exception as error:  # of code and data that are not ours
        raise RunError(
            "lm-eval could not measure the tasks",
            where=", ".join(tasks),
            found=f"{type(error).__name__}: {error}",
            do="Task data is read from the Hub unless the task names files: dataset_path: json, and data_files",
        ) from error
    finally:
        clear(base)
        del model
        gc.collect()
    return found["results"]


def _beside(base: Mapping[str, Mapping[str, Any]], tuned: Mapping[str, Mapping[str, Any]]) -> list[HarnessScore]:
    """Every metric of both; lm-eval names them "metric,filter", and their errors "metric_stderr,filter"."""
    found = []
    for task, metrics in base.items():
        for key, before in metrics.items():
            metric, _, filtered = key.partition(",")
            after: Any = tuned.get(task, {}).get(key)
            if metric.endswith("_stderr") or not (_is_number(before) and _is_number(after)) or not filtered:
                continue
            error = tuned[task].get(f"{metric}_stderr,{filtered}")
            name = metric if filtered == "none" else f"{metric} ({filtered})"
            found.append(HarnessScore(task, name, before, float(after), error if _is_number(error) else None))
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
