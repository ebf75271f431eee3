"""The command line: `isosweep <command> …`, the same as `python -m sweep <command> …`."""

import os
import sys
from argparse import SUPPRESS, ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from inspect import getdoc
from typing import Any, NoReturn

import yaml

from sweep import __version__
from sweep.commands import BAD_INPUT, DONE, benching, following, laws, planning, reporting, stores, training, using
from sweep.commands.experiments import comparing, reproducing
from sweep.commands.helping import explain, paragraph
from sweep.commands.sweeps import store_of
from sweep.config import compose_with_choices, shown
from sweep.errors import InputError
from sweep.machine import GONE, speak_utf8, survive_lost_output
from sweep.plan import code

EXAMPLES = """\
Every key=value is a Hydra override of conf/sweep.yaml; isosweep <command> --help lists those that a command reads.

  isosweep plan experiment=smoke                      a sweep of conf/experiment/, before anything is trained
  isosweep launch experiment=smoke cluster.workers=2  train it; the same again resumes it
  isosweep status smoke                               a launched sweep goes by its name: its plan is written down
  isosweep fit smoke fit.level=0.9
  isosweep fit table=runs.csv out=fits                runs from elsewhere: columns N, D, loss and, if there are
                                                      any, C, budget, run_id; columns.N="Model Size" renames
  isosweep report table=runs.csv curves=curves.parquet out=fits

exit codes: 0 done, 1 some runs failed, 2 bad input
"""
# What one changes most comes first.
SWEEP = (
    "experiment",
    "scale",
    "name",
    "store",
    "device",
    "grid",
    "axis",
    "data",
    "model",
    "objective",
    "optimizer",
    "schedule",
    "seed",
    "precision",
    "evaluation",
)
EXTRAS = {"torch": "train", "tokenizers": "train", "datasets": "train", "safetensors": "train", "wandb": "wandb"}
WRITTEN = ("name", "store")
OVERRIDES = {"[key=value ...]": "overrides of the fields below"}
WORDS = {
    "sweep": {"[NAME]": "a launched sweep, by its name"} | OVERRIDES,
    "run": {"RUN_ID": "a run, by its run_id or the first digits of it"} | OVERRIDES,
    "store": OVERRIDES,
    "law": {"LAW": "chinchilla, besiroglu, a sweep that was fitted, or a fits.json"} | OVERRIDES,
    "paper": {"PAPER": "kaplan, chinchilla, llama or glm"} | OVERRIDES,
}
# Nothing is left to do if nobody reads them.
ONLY_PRINT = ("plan", "ask", "status", "watch", "logs", "list", "--help", "-h", "help")
INTERRUPTED = 130  # as shells have it
TABLE = ("table", "curves", "columns", "where", "missing", "out", "fit")


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command of the command line.

    Attributes:
        run: what it does, from its parsed arguments to its exit code; the first line of its docstring is its help.
        fields: groups and fields of conf/ that it reads, for its help.
        arguments: the flags and positionals that it alone has, and what argparse is told of each.
        takes: "sweep" (overrides, and the name of a sweep), "run" (a run_id), "law", "paper", "store" (overrides) or
            "nothing".
    """

    run: Callable[[Namespace], int]
    fields: tuple[str, ...] = ()
    arguments: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    takes: str = "sweep"


RETRY = {"--retry": {"choices": ["failed"], "help": "train only the runs that failed before; a launch leaves them out"}}
JSON = {"--json": {"action": "store_true", "help": "print the plan as JSON, as launch writes it"}}
FULL = {
    "--full": {
        "action": "store_true",
        "help": "print every judgement too: forms, held-out budgets, other choices, Kaplan's laws",
    }
}
FORMAT = {
    "--format": {"choices": ["html", "md"], "default": "html", "help": "one HTML file, or Markdown with figures beside it"}
}
WATCH = {"--watch": {"action": "store_true", "help": "again every few seconds, until nothing is running or queued"}}
OPTIMAL: dict[str, dict[str, Any]] = {
    "--budget": {"type": float, "required": True, "metavar": "FLOPS", "help": "what the run may cost"},
    "--approach": {"choices": using.APPROACHES, "default": using.DEFAULT_APPROACH, "help": "whose N and D (%(default)s)"},
    "--yes": {"action": "store_true", "help": "train it, and compare its loss with the prediction"},
}
CLEAN: dict[str, dict[str, Any]] = {
    "--orphans": {"action": "store_true", "help": "also the runs of the store that belong to no plan, with curves and losses"},
    "--unfinished": {"action": "store_true", "help": "also what unfinished runs would resume from"},
    "--yes": {"action": "store_true", "help": "do not ask"},
}
TASK: dict[str, dict[str, Any]] = {
    "submission": {"help": "the submission's directory in the store"},
    "task": {"type": int, "help": "the number of the array task"},
}

COMMANDS = {
    "plan": Command(run=planning.plan, fields=(*SWEEP, "cluster", "runtime", "fit"), arguments=JSON),
    "launch": Command(run=training.launch, fields=(*SWEEP, "cluster", "tracker", "runtime"), arguments=RETRY),
    "list": Command(run=stores.list_sweeps, fields=("store",), takes="store"),
    "train": Command(
        run=training.train, fields=("store", "device", "cluster", "runtime", "evaluation", "tracker"), takes="run"
    ),
    "status": Command(run=following.status, fields=WRITTEN, arguments=WATCH),
    "watch": Command(run=following.watch, fields=(*WRITTEN, "fit")),
    "cancel": Command(run=following.cancel, fields=WRITTEN),
    "logs": Command(run=following.logs, fields=("store",), takes="run"),
    "fit": Command(run=laws.fit, fields=(*WRITTEN, *TABLE, "ask"), arguments=FULL),
    "ask": Command(run=laws.ask, fields=("store", "ask"), takes="law"),
    "plot": Command(run=laws.plot, fields=(*WRITTEN, *TABLE, "ask")),
    "report": Command(run=reporting.report, fields=(*WRITTEN, *TABLE, "ask", "report"), arguments=FORMAT),
    "compare": Command(run=comparing.compare, fields=(*WRITTEN, "tables", "store", "compare", "fit", "columns")),
    "reproduce": Command(run=reproducing.reproduce, fields=("store", "device", "scale", "cluster", "tracker"), takes="paper"),
    "next": Command(run=laws.choose_next, fields=(*WRITTEN, *TABLE, "next")),
    "train-optimal": Command(
        run=using.train_optimal, fields=(*WRITTEN, *TABLE, "device", "cluster", "tracker"), arguments=OPTIMAL
    ),
    "export": Command(run=using.export, fields=("store", "out"), takes="run"),
    "evaluate": Command(run=using.evaluate_sets, fields=(*WRITTEN, "out", "evaluation", "fit", "compare", "cluster")),
    "bench": Command(
        run=benching.bench, fields=("model", "data", "device", "precision", "store", "cluster", "runtime", "bench")
    ),
    "wandb-sync": Command(run=training.wandb_sync, fields=(*WRITTEN, "tracker")),
    "clean": Command(run=stores.clean, fields=WRITTEN, arguments=CLEAN),
    "task": Command(run=following.task, arguments=TASK, takes="nothing"),
}


class Parser(ArgumentParser):
    """Reports bad arguments as InputError, as all other bad input is reported."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; {self.prog} --help says what there is")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; bad input becomes one line on stderr and exit code 2."""
    if arguments is None:
        speak_utf8()
        os.environ.setdefault("PYTHONSAFEPATH", "1")  # no child process imports from the working directory
        arguments = sys.argv[1:]
        survive_lost_output(partial(_output_is_lost, arguments[0] if arguments else ""))
    try:
        exit_code = _run(list(arguments))
        if sys.stdout is not None:  # it was closed before this began
            sys.stdout.flush()
        return exit_code
    except InputError as error:
        print(f"isosweep: {error}", file=sys.stderr)
    except _Unread:
        return DONE
    except KeyboardInterrupt:
        print("isosweep: interrupted", file=sys.stderr)
        return INTERRUPTED
    except ModuleNotFoundError as error:
        if (package := (error.name or "").split(".")[0]) not in EXTRAS:
            raise
        print(f"isosweep: this needs {package}: pip install 'isosweep[{EXTRAS[package]}]'", file=sys.stderr)
    return BAD_INPUT


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_overview(), end="")
        return DONE if arguments else BAD_INPUT
    if arguments[0] == "--version":
        print(f"isosweep {__version__}")
        return DONE
    name, *rest = arguments
    if name not in COMMANDS:
        raise InputError(f"there is no command {name!r}; the commands are {', '.join(COMMANDS)}")
    if {"-h", "--help"} & set(rest):
        parser = parser_of(name)
        parser.epilog = explain(COMMANDS[name].fields)
        print(parser.format_help(), end="")
        return DONE
    options = parse(name, rest)
    if getattr(options, "cfg", None):
        config = compose_with_choices(options.overrides, config_dir=options.config_dir)[0]
        print(yaml.safe_dump(shown(config), sort_keys=False), end="")
        return DONE
    if getattr(options, "allow_code", False):
        code.allow(store_of(options))
    return COMMANDS[name].run(options)


class _Unread(Exception):
    """Whoever read the output has enough, as head does."""


def _output_is_lost(command: str, error: OSError) -> None:
    """What to do when the output cannot be written any more: a command that only prints ends, another one goes on."""
    if command in ONLY_PRINT:
        if error.errno in GONE:
            raise _Unread from error
        raise InputError(f"the output cannot be written ({error.strerror}); make room, or print elsewhere") from error
    if error.errno not in GONE:
        print(f"isosweep: the output cannot be written ({error.strerror}); {command} goes on without it", file=sys.stderr)


def parser_of(name: str) -> ArgumentParser:
    """The parser of one command."""
    command = COMMANDS[name]
    words = WORDS.get(command.takes, {})
    parser = Parser(
        prog=f"isosweep {name}",
        usage=" ".join(["isosweep", name, *words, "[--flag ...]"]) if words else None,
        description=_about(command.run),
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for argument, options in command.arguments.items():
        parser.add_argument(argument, **options)
    if command.takes == "nothing":
        return parser
    parser.add_argument("words", nargs="*", help=SUPPRESS)
    parser.add_argument_group("arguments", "\n".join(f"{word:18}{meaning}" for word, meaning in words.items()))
    parser.add_argument("--config-dir", metavar="DIR", help="a folder of yours with the layout of conf/, searched first")
    parser.add_argument("--allow-code", action="store_true", help="run the class that model.body=FILE.py:Class names")
    parser.add_argument("--cfg", choices=["job"], help="print the composed configuration, and do nothing")
    return parser


def parse(name: str, arguments: Sequence[str]) -> Namespace:
    """The arguments of a command. Its words that are overrides go to `overrides`, the other one is the sweep or the run. Raises
    InputError for an unknown flag, a missing argument, a value that a flag does not allow, or several names."""
    options = parser_of(name).parse_intermixed_args(list(arguments))
    words = getattr(options, "words", [])
    options.overrides = [word for word in words if "=" in word or word.startswith("~")]
    names = [word for word in words if word not in options.overrides]
    if len(names) > 1:
        raise InputError(f"{names[1]!r} is neither a flag nor an override key=value; isosweep {name} --help says what there is")
    if COMMANDS[name].takes == "store" and names:
        raise InputError(f"isosweep {name} takes no name; store={names[0]} names a store")
    if COMMANDS[name].takes == "run" and not names:
        raise InputError(f"which run? isosweep {name} RUN_ID; isosweep status NAME lists them")
    if COMMANDS[name].takes == "law" and not names:
        raise InputError("which law? isosweep ask chinchilla, besiroglu, the name of a fitted sweep, or a fits.json")
    options.sweep = options.run_id = names[0] if names else None
    return options


def _overview() -> str:
    """What `isosweep --help` prints."""
    width = max(map(len, COMMANDS)) + 4
    lines = [paragraph(f"  {name:{width - 2}}{_first_line(command.run)}", width) for name, command in COMMANDS.items()]
    return "\n".join(["usage: isosweep <command> [NAME] [key=value ...]", "", "commands", *lines, "", EXAMPLES])


def _first_line(function: Callable[..., int]) -> str:
    return (getdoc(function) or "").split("\n")[0]


def _about(function: Callable[..., int]) -> str:
    """What a command does: its docstring as far as it is for who types it."""
    paragraphs = (getdoc(function) or "").partition("\n\nRaises")[0].partition(" Raises ")[0].split("\n\n")
    return "\n\n".join(paragraph(" ".join(each.split())) for each in paragraphs)
