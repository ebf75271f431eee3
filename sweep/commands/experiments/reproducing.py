"""The reproduce command: the experiments of a paper, one after another, and a page of what came out."""

from argparse import Namespace
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from sweep.commands import DONE, SOME_RUNS_FAILED
from sweep.commands.experiments import measuring
from sweep.commands.laws import plot
from sweep.commands.sweeps import composed, family_of, members_of, open_sweep, plan_sweep, sweep_folder
from sweep.commands.training import launch, unfinished
from sweep.commands.using import evaluate_sets
from sweep.config import SweepConfig
from sweep.errors import InputError
from sweep.files import read_json
from sweep.plan.estimate import duration
from sweep.store import Store

if TYPE_CHECKING:
    from sweep.report.gallery import Shown

# The experiments of each paper, in conf/experiment/.
PAPERS = {
    "kaplan": ("kaplan_shape", "schedules", "kaplan_overfitting", "kaplan_batch", "kaplan_transfer"),
    "chinchilla": (
        "smoke",
        "chinchilla_cosine",
        "chinchilla_optimizer",
        "chinchilla_gopher",
        "head_to_head",
        "corpora",
        "kaplan_chinchilla",
    ),
    "llama": ("overtrained", "repeated_data", "architecture", "llama_tasks"),
    "glm": ("glm", "glm_scaling"),
}
EVALUATED = ("architecture", "tasks", "transfer")  # analyses of losses and scores that isosweep evaluate measures
ANALYSIS = ("compare.", "fit.", "figures.")  # overrides that matter after the launch


def reproduce(options: Namespace) -> int:
    """Launch the experiments of a paper, kaplan, chinchilla, llama or glm, compare and draw them, and write one page of all.

    Each experiment is a sweep by its own name: what is done is not trained again, and the same command continues after a stop.
    Overrides go to every one of them, such as store=… device=… cluster=slurm or scale=gpu.
    """
    from sweep.launch import launchers
    from sweep.report.gallery import write_gallery

    paper = options.sweep
    if paper not in PAPERS:
        raise InputError(f"reproduce takes the name of a paper, {', '.join(PAPERS)}" + (f", not {paper}" if paper else ""))
    fixed = [text for text in options.overrides if text.startswith(("name=", "experiment="))]
    if fixed:
        raise InputError(
            f"{fixed[0]} is the same for all experiments of {paper}; leave it out, or launch one experiment with it"
        )
    given = {name: _options([f"experiment={name}", *options.overrides], options) for name in PAPERS[paper]}
    configs = {}
    for name, each in given.items():  # what is wrong with the last one is found before the first is trained
        try:
            configs[name] = composed(each)
            for part in members_of(configs[name], each).values() if configs[name].sweeps else [each]:
                plan_sweep(composed(part))
        except InputError as error:
            raise InputError(f"{name}: {error}") from error
    started, waiting = monotonic(), []
    for name, each in given.items():
        print(f"\n=== {name}, {duration(monotonic() - started)} after the start")
        launch(each)  # which says what failed
        waiting += [name] if unfinished(configs[name]) else []
        if waiting and launchers.of(configs[name].cluster.launcher).waits:  # it was stopped
            break
    if waiting:
        print(f"\nnot all runs of {', '.join(waiting)} have ended; the same command writes the page when they have")
        return SOME_RUNS_FAILED
    entries = [_shown(name, configs[name], options) for name in given]
    page = Path(next(iter(configs.values())).store) / f"{paper}.html"
    write_gallery(paper, entries, page)
    print(f"\nwrote {page} after {duration(monotonic() - started)}: open it in a browser")
    return DONE


def _options(overrides: list[str], options: Namespace, sweep: str | None = None) -> Namespace:
    return Namespace(sweep=sweep, overrides=overrides, config_dir=options.config_dir, retry=None)


def _shown(name: str, config: SweepConfig, options: Namespace) -> "Shown":
    """Compare and draw a finished experiment, for the page."""
    from sweep.report.gallery import Shown

    print(f"\n=== {name}")
    analysis = [text for text in options.overrides if text.startswith(ANALYSIS)]
    launched = _options([f"store={config.store}", *analysis], options, config.name)
    out = sweep_folder(Store(Path(config.store)), config.name)
    try:
        if config.about.analysis in EVALUATED:
            evaluate_sets(launched)
        plot(launched)
        compares = bool(family_of(launched)) or open_sweep(launched).compares
        found = read_json(out / measuring.FILE, dict, f"isosweep compare {config.name} writes it again") if compares else {}
    except InputError as error:  # runs failed, and what is left has no answer: the others still have
        print(f"{name}: {error}")
        found = {"text": [f"no analysis of these runs: {error}"]}
    return Shown(name=name, about=config.about, found=found, figures=tuple(out.glob("*.png")))
