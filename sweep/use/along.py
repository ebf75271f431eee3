"""Losses along the training of finished runs, from the checkpoints that evaluation.keep kept of them."""

from collections.abc import Sequence

from sweep.errors import InputError
from sweep.files import write_sealed
from sweep.plan.run import RunConfig
from sweep.store import RunDirectory
from sweep.store.curves import ALONG, EVALUATIONS, evaluated
from sweep.store.manifest import read_manifest
from sweep.use.evaluate import EvaluationSet, evaluate, loaded, measure


def evaluate_along(run: RunConfig, directory: RunDirectory, sets: Sequence[EvaluationSet], device: str) -> list[str]:
    """Measure what is missing on `sets` of a finished run, at its end and at every kept checkpoint, into its evaluations.json:
    under each set's `ALONG`, by step, what `evaluate` has of the end.

    Returns:
        For each kept checkpoint that cannot be read, why; nothing of it is measured.

    Raises:
        InputError: as `evaluate`.
    """
    from sweep.train.checkpoint import load_entry

    evaluate(run, directory, list(sets), device)
    known, problems = evaluated(directory), []
    for entry in read_manifest(directory.kept):
        step = str(entry["step"])
        if not (missing := [each for each in sets if step not in known[each.name].get(ALONG, {})]):
            continue
        try:
            weights = load_entry(directory.kept, entry)["model"]
        except InputError as error:
            problems.append(str(error))
            continue
        model = loaded(run, weights, device)
        for each in missing:
            known[each.name].setdefault(ALONG, {})[step] = measure(model, run, each, device)
        write_sealed(directory.path / EVALUATIONS, known)
    return problems


def lacking(run: RunConfig, directory: RunDirectory, keep: int) -> int:
    """How many of the `keep` checkpoints of a finished run are neither there nor measured."""
    from sweep.train.checkpoint import kept_steps

    measured = {int(step) for found in evaluated(directory).values() for step in found.get(ALONG, {})}
    there = {entry["step"] for entry in read_manifest(directory.kept)}
    return len(set(kept_steps(run.steps, keep)) - {run.steps} - there - measured)
