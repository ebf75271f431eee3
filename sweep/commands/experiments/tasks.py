"""What evaluate says of multiple-choice tasks."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.commands import columns, console
from sweep.commands.sweeps import Sweep
from sweep.errors import InputError
from sweep.files import write_json, writing

if TYPE_CHECKING:
    import pandas as pd

    from sweep.compare.accuracy import TaskFound
    from sweep.data import Corpus

SHOWN = ("run_id", "label", "seed", "N", "D", "C", "loss", "task", "items", "accuracy", "low", "high", "chance")  # in tasks.csv


def show_tasks(sweep: Sweep, corpus: "Corpus", device: str) -> list[Path]:
    """Score every finished run on evaluation.tasks; print, write and draw the accuracies, and what the runs of the baseline say
    of each task. Returns the files; none without tasks.

    Raises:
        InputError: if a task is wrong, or no finished run predicts the next token.
    """
    from sweep.compare.accuracy import judge_tasks, wilson
    from sweep.figures.style import save
    from sweep.figures.tasks import draw_tasks
    from sweep.store.collect import collect_tasks
    from sweep.use.items import items_of
    from sweep.use.tasks import score_tasks

    if not (named := sweep.config.evaluation.tasks or {}):
        return []
    runs = [run for run in sweep.finished() if run.causal]
    if not runs:
        raise InputError("evaluation.tasks: no finished run predicts the next token; tasks are scored by its likelihood")
    context_length = min(run.model.context_length for run in runs)
    tasks = [items_of(name, task, corpus, context_length) for name, task in named.items()]
    for run in runs:
        score_tasks(run, sweep.store.run(run.run_id), tasks, device)
    level, out = sweep.config.compare.level, Path(sweep.config.out)
    frame = collect_tasks(sweep.plan.runs, sweep.store, list(named))
    frame["low"], frame["high"] = wilson(frame["accuracy"].to_numpy(), frame["items"].to_numpy(), level)
    baseline = frame[frame["label"] == sweep.plan.labels[0]]
    found = judge_tasks(baseline, level=level, seed=sweep.config.fit.seed)
    _print(frame, found, sweep.config.name)
    with writing(out):
        frame[list(SHOWN)].to_csv(out / "tasks.csv", index=False)
        write_json(out / "tasks.json", {each.task: each.to_dict() for each in found})
    return [out / "tasks.csv", out / "tasks.json", *save(draw_tasks(baseline, found), out / "tasks")]


def _print(frame: "pd.DataFrame", found: "Sequence[TaskFound]", name: str) -> None:
    from sweep.follow.status import text_table

    tasks = [each.task for each in found]
    wide = frame.pivot(index=["N", "D", "run_id", "loss"], columns="task", values="accuracy")[tasks]
    shown = (
        (run_id, f"{N:,}", f"{D:,}", f"{loss:.3f}", *(f"{accuracy:.1%}" for accuracy in of_tasks))
        for N, D, run_id, loss, *of_tasks in wide.reset_index().itertuples(index=False)
    )
    headings, least = ("run", "N", "D", "loss", *tasks), ("D", "N", *reversed(tasks[1:]))
    title = f"{name}: accuracy on multiple choice"
    console().print(text_table(headings, shown, left=("run",), title=title, width=columns(), least=least), soft_wrap=True)
    for each in found:
        print(f"\n{each.words()}")
