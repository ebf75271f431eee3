"""The reproduce command: the experiments of a paper, one after another, and a page of what came out."""

from argparse import Namespace
from pathlib import Path
from time import monotonic

from sweep.commands import DONE
from sweep.commands.experiments import measuring
from sweep.commands.laws import plot
from sweep.commands.sweeps import family_of, open_sweep, sweep_folder
from sweep.commands.training import launch
from sweep.config import compose_with_choices
from sweep.errors import InputError
from sweep.files import read_json
from sweep.plan.estimate import duration
from sweep.store import Store

# The experiments of each paper, in conf/experiment/.
PAPERS = {
    "kaplan": ("kaplan_shape", "schedules", "kaplan_overfitting", "kaplan_batch"),
    "chinchilla": (
        "smoke",
        "chinchilla_cosine",
        "chinchilla_optimizer",
        "chinchilla_gopher",
        "head_to_head",
        "corpora",
        "kaplan_chinchilla",
    ),
    "llama": ("overtrained", "repeated_data"),
}
ANALYSIS = ("compare.", "fit.", "figures.")  # overrides that matter after the launch


def reproduce(options: Namespace) -> int:
    """Launch the experiments of a paper, kaplan, chinchilla or llama, compare and draw them, and write one page of all.

    Each experiment is a sweep by its own name: what is done is not trained again, and the same command continues after a stop.
    Overrides go to every one of them, such as store=… device=… cluster=slurm or scale=gpu.
    """
    from sweep.report.gallery import Shown, write_gallery

    paper = options.sweep
    if paper not in PAPERS:
        raise InputError(f"reproduce takes the name of a paper, {', '.join(PAPERS)}" + (f", not {paper}" if paper else ""))
    fixed = [text for text in options.overrides if text.startswith(("name=", "experiment="))]
    if fixed:
        raise InputError(
            f"{fixed[0]} is the same for all experiments of {paper}; leave it out, or launch one experiment with it"
        )
    entries, started = [], monotonic()
    for name in PAPERS[paper]:
        print(f"\n=== {name}, {duration(monotonic() - started)} after the start")
        overrides = [f"experiment={name}", *options.overrides]
        given = Namespace(sweep=None, overrides=overrides, config_dir=options.config_dir, retry=None)
        config, _ = compose_with_choices(given.overrides, config_dir=options.config_dir)
        if code := launch(given):
            return code
        analysis = [text for text in options.overrides if text.startswith(ANALYSIS)]
        launched = Namespace(sweep=config.name, overrides=[f"store={config.store}", *analysis], config_dir=options.config_dir)
        plot(launched)
        out = sweep_folder(Store(Path(config.store)), config.name)
        remedy = f"isosweep compare {config.name} writes it again"
        found = read_json(out / measuring.FILE, dict, remedy) if _compares(launched) else {}
        entries.append(Shown(name=name, about=config.about, found=found, figures=tuple(out.glob("*.png"))))
    page = Path(config.store) / f"{paper}.html"
    write_gallery(paper, entries, page)
    print(f"\nwrote {page} after {duration(monotonic() - started)}: open it in a browser")
    return DONE


def _compares(options: Namespace) -> bool:
    """Whether an experiment has something to compare beside its laws."""
    return bool(family_of(options)) or open_sweep(options).varies
