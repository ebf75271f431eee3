"""Collecting a sweep's runs into two tables, runs and smoothed training curves, which can be rebuilt at any time."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from models import count_parameters, flops_per_token
from models.accounting import FLOP_CONVENTIONS
from sweep.config import FitConfig
from sweep.errors import InputError
from sweep.files import writing
from sweep.plan.grid import PlannedRun
from sweep.store.curves import ALONG, OWN, evaluated, read_results, scored, smooth_curve
from sweep.store.runs import Store
from sweep.store.states import DONE

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)
CURVE_POINTS = 200  # log-spaced, of each smoothed curve
MEASURED = ("loss", "loss_se", "bits_per_byte", "fingerprint", "blocks")  # of each evaluated set


@dataclass(frozen=True, kw_only=True)
class Collected:
    """The tables of a sweep; see `collect`."""

    runs: "pd.DataFrame"
    curves: "pd.DataFrame"
    evaluations: "pd.DataFrame"


def collect(planned: Sequence[PlannedRun], store: Store, fit: FitConfig) -> Collected:
    """The table of all planned runs, and the tables of the curves and of the evaluations of the finished ones.

    A run whose files are damaged, or were changed, has the state "damaged" and no loss, after a warning that says why.

    Runs: run_id, state, budget, N, N_non_embedding, D, C (6 N D) and C_<convention> for the other conventions, loss (the last
    held-out loss), loss_se, train_loss (the end of the smoothed curve), bits_per_byte (the held-out loss in a unit that does
    not depend on the tokenizer; if the corpus records the length of its tokens), loss_on_<set> for each set that was evaluated,
    and the shape and settings. In a sweep with an axis also cell and label (see `PlannedRun`), and a column for each name of
    its labels.
    Curves: run_id, tokens, loss (smoothed by a Gaussian of `fit.smoothing_steps`, at log-spaced steps), and bits_per_byte (of
    the training loss, by the length of the held-out tokens).
    Evaluations: run_id, step, tokens, loss, loss_se, and what else was measured there, of each evaluation along a run.
    """
    import pandas as pd

    rows, curves, evaluations = [], [], []
    varied = any(plan.labels or plan.cell for plan in planned)
    per_nat = {corpus: _bits_per_byte(store, corpus) for corpus in {plan.run.corpus for plan in planned}}
    for plan in sorted(planned, key=lambda plan: (plan.budget or np.inf, plan.run.N, plan.run.D)):
        directory = store.run(plan.run.run_id)
        try:
            status = directory.status()
            results = read_results(directory) if status["state"] == DONE else None
        except InputError as error:
            log.warning("isosweep: run %s is left out: %s", plan.run.run_id, error)
            status, results = {"state": "damaged", "step": 0}, None
        row = _describe(plan) | ({"cell": plan.cell, "label": plan.label, **plan.labels} if varied else {})
        row |= {"state": status["state"], "D": status["step"] * plan.run.batch_tokens}
        if results is not None:
            smooth = smooth_curve(results.losses, fit.smoothing_steps)
            chosen = np.unique(np.geomspace(1, len(smooth), CURVE_POINTS).round().astype(int)) - 1
            tokens = (chosen + 1) * plan.run.batch_tokens
            curve = {"run_id": plan.run.run_id, "tokens": tokens, "loss": smooth[chosen]}
            row |= {"loss": status["val_loss"], "loss_se": status["val_loss_se"], "train_loss": smooth[-1]}
            if (factor := per_nat[plan.run.corpus]) is not None:
                row["bits_per_byte"] = factor * status["val_loss"]
                curve["bits_per_byte"] = factor * smooth[chosen]
            curves.append(pd.DataFrame(curve))
            renamed = pd.DataFrame(results.evaluations).drop(columns="flops")
            renamed = renamed.rename(columns={"val_loss": "loss", "val_loss_se": "loss_se"})
            if "infilling_loss" in renamed:
                row["loss_on_infilling"] = float(renamed["infilling_loss"].iloc[-1])
            evaluations.append(renamed.assign(run_id=plan.run.run_id))
            try:
                row |= {f"loss_on_{name}": found["loss"] for name, found in evaluated(directory).items() if name != OWN}
            except InputError as error:  # its own loss is sound
                log.warning("isosweep: run %s has no losses on other text: %s", plan.run.run_id, error)
            row |= {"seconds": status["elapsed_s"], "device": status["device"]}
        for convention in FLOP_CONVENTIONS:
            name = "C" if convention == "6N" else f"C_{convention}"
            row[name] = flops_per_token(plan.run.model, convention) * row["D"]
        rows.append(row)
    empty = pd.DataFrame({"run_id": [], "tokens": [], "loss": []})
    return Collected(
        runs=pd.DataFrame(rows),
        curves=pd.concat(curves, ignore_index=True) if curves else empty,
        evaluations=pd.concat(evaluations, ignore_index=True) if evaluations else empty,
    )


def collect_along(planned: Sequence[PlannedRun], store: Store) -> "pd.DataFrame":
    """What `isosweep evaluate` has measured of finished runs, at their ends and at the checkpoints kept along them.

    A row for each run, step and set: run_id, cell, label, seed, N, N_non_embedding, n_layers, d_model, D (of the whole run),
    context (positions), step, tokens (seen until then), final (whether that is the end), set, and what `evaluate` has of the
    set: loss, loss_se, bits_per_byte, fingerprint, and blocks, of the corpus's own set. Damaged runs, which `collect` warns of,
    are left out.
    """
    import pandas as pd

    rows = []
    for plan in planned:
        try:
            if (directory := store.run(plan.run.run_id)).status()["state"] != DONE:
                continue
            sets = evaluated(directory)
        except InputError:
            continue
        names = ("run_id", "N", "N_non_embedding", "n_layers", "d_model", "seed")
        of_run = {name: value for name, value in _describe(plan).items() if name in names}
        of_run |= {"cell": plan.cell, "label": plan.label, "D": plan.run.D}
        of_run["context"] = len(sets.get(OWN, {}).get("by_position", ())) or plan.run.model.context_length
        for name, end in sets.items():
            for step, found in {**end.get(ALONG, {}), plan.run.steps: end}.items():
                at = {"step": int(step), "tokens": int(step) * plan.run.batch_tokens, "final": found is end, "set": name}
                rows.append(of_run | at | {key: found.get(key) for key in MEASURED})
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=["run_id", "step", "set", "final"])


def collect_tasks(planned: Sequence[PlannedRun], store: Store, tasks: Sequence[str]) -> "pd.DataFrame":
    """What `isosweep evaluate` has scored of finished runs: a row for each of them and of the named tasks, with run_id, cell,
    label, seed, N, D, C (6 N D), budget, loss (the last held-out loss), task, and what `sweep.use.tasks.score_tasks` has of it.
    Runs that are damaged, or were not scored, are left out."""
    import pandas as pd

    rows = []
    for plan in planned:
        run, directory = plan.run, store.run(plan.run.run_id)
        try:
            if (status := directory.status())["state"] != DONE:
                continue
            scores = scored(directory)
        except InputError:
            continue
        of_run = {"run_id": run.run_id, "cell": plan.cell, "label": plan.label, "seed": run.seed, "N": run.N, "D": run.D}
        of_run |= {"C": 6.0 * run.N * run.D, "budget": plan.budget, "loss": status["val_loss"]}
        rows += [of_run | {"task": name} | scores[name] for name in tasks if name in scores]
    return pd.DataFrame(rows)


def _bits_per_byte(store: Store, fingerprint: str) -> float | None:
    """Bits per byte in one nat per token; None if the corpus is gone, or does not record its bytes."""
    from sweep.data import Corpus

    directory = store.corpora / fingerprint
    per_token = Corpus.open(directory).bytes_per_token if directory.exists() else None
    return None if per_token is None else 1 / (math.log(2) * per_token)


def _describe(plan: PlannedRun) -> dict:
    run, counts = plan.run, count_parameters(plan.run.model)
    return {
        "run_id": run.run_id,
        "budget": plan.budget,
        "N": counts.total,
        "N_non_embedding": counts.non_embedding,
        **{name: getattr(run.model, name) for name in ("d_model", "n_layers", "n_heads", "d_ff")},
        **{name: getattr(run, name) for name in ("batch_tokens", "steps")},
        "peak_lr": run.optimizer.peak_lr,
        **{name: getattr(run, name) for name in ("seed", "precision")},
    }


def write_tables(runs: "pd.DataFrame", curves: "pd.DataFrame", out: Path) -> tuple[Path, Path]:
    """runs.csv and curves.parquet under `out`. Raises InputError if they cannot be written."""
    with writing(out):
        runs.to_csv(out / "runs.csv", index=False)
        curves.astype(dict.fromkeys(curves.columns.intersection(["loss", "bits_per_byte"]), "float32")).to_parquet(
            out / "curves.parquet", index=False, compression="zstd"
        )
    return out / "runs.csv", out / "curves.parquet"
