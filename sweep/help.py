"""What `isosweep <command> --help` prints: what the command does, and the fields it reads, as conf/ explains them."""

import inspect
import re
from collections.abc import Callable
from typing import Any

from sweep.config import conf_directory

SWEEP = ("experiment", "model", "data", "optimizer", "schedule", "grid", "name", "seed", "device", "precision", "store")
TABLE = ("table", "curves", "columns", "out", "fit")
FIELDS = {
    "plan": (*SWEEP, "runtime"),
    "launch": (*SWEEP, "cluster", "runtime", "evaluation", "tracker", "retry"),
    "train": (*SWEEP, "run_id", "cluster", "runtime", "tracker"),
    "status": (*SWEEP, "watch"),
    "watch": SWEEP,
    "cancel": SWEEP,
    "logs": (*SWEEP, "run_id"),
    "fit": (*SWEEP, *TABLE, "ask"),
    "plot": (*SWEEP, *TABLE, "ask"),
    "report": (*SWEEP, *TABLE, "ask", "report"),
    "next": (*SWEEP, *TABLE, "next"),
    "train-optimal": (*SWEEP, *TABLE, "budget", "approach", "yes"),
    "export": ("store", "run_id", "out"),
    "evaluate": (*SWEEP, "out", "evaluation"),
    "bench": ("model", "data", "device", "precision", "store", "cluster", "runtime", "bench"),
    "wandb-sync": (*SWEEP, "tracker"),
    "task": ("submission", "task"),
}


def command_help(name: str, command: Callable[..., Any]) -> str:
    """The help text of one command."""
    text = (conf_directory() / "sweep.yaml").read_text()
    lines = [f"usage: isosweep {name} [key=value ...]", "", inspect.getdoc(command) or "", "", "fields"]
    for field in FIELDS[name]:
        lines += [f"  {line}" for line in _explained(field, text)]
    lines += ["", "key=value overrides a field, group=file chooses a file of conf/; isosweep --help lists the commands"]
    return "\n".join(lines) + "\n"


def _explained(field: str, text: str) -> list[str]:
    """The lines of conf/sweep.yaml on a field, or the files that a group has."""
    folder = conf_directory() / field
    if folder.is_dir():
        return [f"{field}={'|'.join(sorted(path.stem for path in folder.glob('*.yaml') if path.stem != 'defaults'))}"]
    block = re.search(rf'^"?{field}"?:.*\n(?:[ #].*\n)*', text, re.MULTILINE)
    return block.group().rstrip().splitlines() if block else []
