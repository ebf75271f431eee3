"""The command line: `isosweep <command> key=value …`, the same as `python -m sweep <command> key=value …`."""

import sys
from collections.abc import Callable, Sequence

from sweep.commands import BAD_INPUT, DONE
from sweep.commands.benching import bench
from sweep.commands.evaluating import evaluate_sets
from sweep.commands.following import cancel, logs, status, task, watch
from sweep.commands.laws import choose_next, fit, plot
from sweep.commands.reporting import report
from sweep.commands.training import launch, plan, train, wandb_sync
from sweep.commands.using import export, train_optimal
from sweep.config import SweepConfig, compose
from sweep.errors import InputError
from sweep.help import command_help

RUN_ID_DIGITS = 16
USAGE = """usage: isosweep <command> [key=value ...]

commands
  plan          every run of the sweep: N, D, C, steps, rate, state, expected time; creates nothing
  launch        train the runs that are missing, here or (cluster=slurm) as a Slurm array; run it again to resume
  train         one run: isosweep train <run_id>; under torchrun or srun on all their processes
  status        every run's state, loss and time left, from the store and the queue (--watch: again and again)
  watch         the sweep as it goes: curves, throughput, time left, IsoFLOP minima as they form; q leaves it
  cancel        stop what is running or queued; every run writes a checkpoint
  logs          what a run printed and why it failed: isosweep logs <run_id>
  fit           tables of runs and curves, every law, fits.json and a summary
  plot          the same, and the figures
  report        the same, as one HTML file to read or to send: the answer, plots, checks, cost, provenance and every choice
  next          the runs that would tell most for the FLOPs there are, as a grid to launch
  train-optimal the run that the fit asks for at budget=…, with its loss predicted; --yes trains it and compares
  export        a finished run as a Hugging Face folder: isosweep export <run_id> out=DIR
  evaluate      losses of finished runs on other text (evaluation.sets), by source of a mixture, and by position
  bench         tokens/s, FLOP/s, share of the device's peak and memory, by size, engine and number of processes
  wandb-sync    send wandb the curves, or the parts of them, that it lacks (launch does with tracker=wandb)
  task          what a Slurm job of cluster=slurm runs; nothing to call by hand

isosweep <command> --help tells a command's fields. Every key=value is a Hydra override of conf/sweep.yaml:
  isosweep plan experiment=smoke                      a sweep from conf/experiment/
  isosweep launch experiment=smoke cluster.workers=2  with another number of workers
  isosweep fit table=runs.csv out=fits                runs from elsewhere: columns N, D, loss and, if there are
                                                      any, C, budget, run_id; columns.N="Model Size" renames
  isosweep plot table=runs.csv curves=curves.parquet out=fits
  isosweep report table=runs.csv curves=curves.parquet out=fits
  isosweep fit table=runs.csv out=fits ask.budgets=[1e20] ask.losses=[2.5] ask.inference_tokens=1e12

  isosweep launch experiment=smoke --retry failed     runs that failed are left out unless they are asked for

exit codes: 0 done, 1 some runs failed, 2 bad input
"""
FLAGS = {"--watch": "watch=true", "--retry": "retry=", "--yes": "yes=true"}  # how flags are spelled as overrides

COMMANDS: dict[str, Callable[[SweepConfig], int]] = {
    "plan": plan,
    "launch": launch,
    "fit": fit,
    "plot": plot,
    "report": report,
    "next": choose_next,
    "train": train,
    "evaluate": evaluate_sets,
    "bench": bench,
    "status": status,
    "watch": watch,
    "cancel": cancel,
    "logs": logs,
    "train-optimal": train_optimal,
    "export": export,
    "task": task,
    "wandb-sync": wandb_sync,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; bad input becomes one line on stderr and exit code 2."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return DONE if arguments else BAD_INPUT
    name, overrides = arguments[0], arguments[1:]
    if {"-h", "--help"} & set(overrides) and name in COMMANDS:
        print(command_help(name, COMMANDS[name]), end="")
        return DONE
    try:
        if name not in COMMANDS:
            raise InputError(f"there is no command {name!r}; the commands are {', '.join(COMMANDS)}")
        return COMMANDS[name](compose(spell_out(overrides)))
    except InputError as error:
        print(f"isosweep: {error}", file=sys.stderr)
        return BAD_INPUT


def spell_out(arguments: Sequence[str]) -> list[str]:
    """Overrides from arguments: `--watch`, `--retry failed` and a bare run_id are short for one.

    Raises:
        InputError: for a flag that there is not.
    """
    overrides: list[str] = []
    left = iter(arguments)
    for argument in left:
        flag, _, value = argument.partition("=")
        if flag.startswith("--"):
            if flag not in FLAGS:
                raise InputError(f"there is no flag {flag}; the flags are {', '.join(FLAGS)}")
            override = FLAGS[flag]
            overrides.append(override + (value or next(left, "failed")) if override.endswith("=") else override)
        elif len(argument) == RUN_ID_DIGITS and not set(argument) - set("0123456789abcdef"):
            overrides.append(f"run_id='{argument}'")
        else:
            overrides.append(argument)
    return overrides
