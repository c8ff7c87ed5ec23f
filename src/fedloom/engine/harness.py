"""The model of a run in EleutherAI's lm-eval: the same tasks before and after, on plain transformers models."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedloom.adapters.adapter import Adapter
from fedloom.engine.finished import Finished, load_finished
from fedloom.errors import RunError
from fedloom.training.base_model import BaseModel
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
    """What lm-eval measures on the base and on the base with a run's delta merged in; nothing of the run is written.

    tasks: names of lm-eval's own tasks, or of YAML files in tasks_dir.  limit: rows of each task; None: all.
    client: whose model, of a method that gives each client its own.
    Raises: RunError where lm-eval is not installed, a task is not known or fails, or the run is not for text
        generation.
    """
    lm_eval = _library()
    finished = load_finished(path, round=round)
    _require_generation(finished, path)
    manager = _manager(lm_eval, tasks, tasks_dir)
    adapters = {"base": Adapter(), "tuned": finished.adapter(client)}
    found = {
        name: _measured(lm_eval, finished.base, adapter, tasks, manager, limit) for name, adapter in adapters.items()
    }
    return _beside(found["base"], found["tuned"])


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
    lm_eval: Any, base: BaseModel, adapter: Adapter, tasks: Sequence[str], manager: Any, limit: int | None
) -> Mapping[str, Mapping[str, Any]]:
    """task -> "metric,filter" -> value."""
    model = merge(base, adapter).to(base.device)
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
