"""Sweeps for commands: composed from conf/ before the launch, read from the written plan after it; and their corpora."""

import json
import os
import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.config import SweepConfig, check_name, compose_with_choices, override
from sweep.config.overrides import given_texts
from sweep.errors import InputError, explained
from sweep.files import read_json
from sweep.plan import measured
from sweep.plan.cost import choose_engine, is_simple, worth_compiling
from sweep.plan.device import resolve_device
from sweep.plan.estimate import Speed
from sweep.plan.grid import TooLongError, expand, ladder_of
from sweep.plan.run import RunConfig
from sweep.plan.targets import remarks_on_sizes
from sweep.plan.written import FILE, CorpusFacts, SweepPlan
from sweep.store import Store, states

if TYPE_CHECKING:
    from sweep.data import CorpusRecipe
    from sweep.fit import Surface

DEFAULT_STORE, DEFAULT_NAME = "store", "sweep"  # as in conf/sweep.yaml
FAMILY = "family.json"  # in the folder of a sweep that is several: their names by their labels


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A sweep that was launched.

    Attributes:
        plan: the written plan.
        config: the plan's configuration with the command's overrides, and `store` and `out` as they are now.
        store: that holds the sweep.
    """

    plan: SweepPlan
    config: SweepConfig
    store: Store

    def speed(self) -> Speed:
        """How long its runs take, from those that are done."""
        runs = (planned.run for planned in self.plan.runs)
        return self.store.speed_seen(runs, self.plan.device, self.config.data.validation_tokens, self.config.cluster.threads)

    @property
    def compares(self) -> bool:
        """Whether it has labels to compare, or is an experiment with an analysis of its own."""
        return len(self.plan.labels) > 1 or self.config.about.analysis is not None

    def of_label(self, label: str) -> "Sweep":
        """The runs of one label, as a sweep whose tables, fits and figures lie in a folder of their own."""
        runs = tuple(each for each in self.plan.runs if each.label == label)
        out = str(Path(self.config.out) / "labels" / label)
        return replace(self, plan=replace(self.plan, runs=runs), config=replace(self.config, out=out))

    def of_baseline(self) -> "Sweep":
        """The runs of the baseline; all of them without an axis."""
        runs = tuple(each for each in self.plan.runs if each.label == self.plan.labels[0])
        return replace(self, plan=replace(self.plan, runs=runs))

    def finished(self) -> list[RunConfig]:
        """The runs that are done."""
        found = self.store.statuses(planned.run for planned in self.plan.runs)
        return [planned.run for planned in self.plan.runs if found[planned.run.run_id]["state"] == states.DONE]


def composed(options: Namespace) -> SweepConfig:
    """The configuration composed from conf/ and a command's overrides."""
    return compose_with_choices(options.overrides, config_dir=options.config_dir)[0]


def store_of(options: Namespace) -> Path:
    """The folder of the store that a command's overrides name."""
    given = given_texts(options.overrides, store=DEFAULT_STORE)
    return Path(os.path.expanduser(given["store"] or DEFAULT_STORE))


def open_sweep(options: Namespace) -> Sweep:
    """The launched sweep that a command names, as NAME, name=… or experiment=…. Neither conf/ nor the corpus is read. Raises
    InputError if there is no such sweep, or an override would make other runs."""
    given = given_texts(options.overrides, store=DEFAULT_STORE, name=None, experiment=None, scale=None, out=None)
    store = Store(Path(os.path.expanduser(given["store"] or DEFAULT_STORE)))
    name = options.sweep or given["name"] or _launched_from(store, given["experiment"], given["scale"]) or DEFAULT_NAME
    folder = sweep_folder(store, name)
    if (plan := SweepPlan.read(folder)) is None:
        if parts := family_of(options):
            raise InputError(
                f"{name} is several sweeps: {', '.join(parts.values())}; name one of them, or isosweep compare {name}"
            )
        there = ", ".join(sorted(path.parent.name for path in (store.root / "sweeps").glob(f"*/{FILE}"))) or "none"
        named = options.sweep or given.get("name") or given.get("experiment")
        problem = f"no sweep {name} was launched into store={store.root}" if named else f"which sweep of store={store.root}?"
        raise InputError(
            f"{problem} (there: {there}); name one of those, or launch it first: what is done is not trained again"
        )
    rest = [text for text in options.overrides if text.partition("=")[0] not in ("name", "store")]
    config = override(plan.config, rest, plan.choices, plan.overrides)
    out = str(folder) if given["out"] is None else os.path.expanduser(given["out"])
    return Sweep(plan=plan, config=replace(config, store=str(store.root), out=out), store=store)


def family_of(options: Namespace) -> dict[str, str]:
    """The sweeps that a launched sweep consists of, by label; empty if it is one. Raises InputError if what is written down of
    them is damaged."""
    given = given_texts(options.overrides, store=DEFAULT_STORE, name=None, experiment=None, scale=None)
    launched = "-".join(filter(None, (given["experiment"], given["experiment"] and given["scale"])))
    name = options.sweep or given["name"] or launched or DEFAULT_NAME
    path = sweep_folder(Store(Path(os.path.expanduser(given["store"] or DEFAULT_STORE))), name) / FAMILY
    try:
        return dict(read_json(path, dict, "launch the sweeps again"))
    except FileNotFoundError:
        return {}


def members_of(config: SweepConfig, options: Namespace) -> dict[str, Namespace]:
    """The options of each sweep of a configuration that is several, by label."""
    given = [text for text in options.overrides if not text.startswith(("name=", "sweeps="))]
    own = {label: [*given, *overrides, "sweeps=null"] for label, overrides in (config.sweeps or {}).items()}
    return {
        label: Namespace(**{**vars(options), "overrides": [*overrides, f"name={config.name}-{label}"]})
        for label, overrides in own.items()
    }


def sweep_folder(store: Store, name: str) -> Path:
    """Where a sweep's plan, tables, fits and figures lie. Raises InputError if `name` is none that a sweep may have."""
    check_name(name)
    return store.root / "sweeps" / name


def known_surface(law: str, store: Store, field: str = "") -> "Surface":
    """The surface L(N, D) of a published law, a sweep that was fitted, or a fits.json. Raises InputError, which calls it
    `field` and `law`, if there is none."""
    from sweep.fit import PUBLISHED_LAWS, surface_of

    if law in PUBLISHED_LAWS:
        return PUBLISHED_LAWS[law]
    path = Path(law) if law.endswith(".json") else sweep_folder(store, law) / "fits.json"
    remedy = f"name a sweep that isosweep fit was called for, its fits.json, or {' or '.join(PUBLISHED_LAWS)}"
    with explained(f"{field}{law}: {path} has no fitted law", remedy, (OSError, ValueError, KeyError, TypeError)):
        return surface_of(json.loads(path.read_text(encoding="utf-8")))


def _launched_from(store: Store, experiment: str | None, scale: str | None) -> str | None:
    """The name of the sweep that was launched from conf/experiment/<experiment>.yaml at `scale` under the name given there."""
    if experiment is None:
        return None
    for plan in _plans(store):
        same = plan.choices.get("experiment") == experiment and plan.choices.get("scale") == scale
        if same and not any(text.startswith("name=") for text in plan.overrides):
            return plan.config.name
    return f"{experiment}-{scale}" if scale else experiment


def _plans(store: Store) -> Iterator[SweepPlan]:
    """Every plan in the store that can be read."""
    for path in sorted((store.root / "sweeps").glob(f"*/{FILE}")):
        try:
            plan = SweepPlan.read(path.parent)
        except InputError:
            continue  # a command that names that sweep reports the error
        if plan is not None:
            yield plan


def find_run_id(store: Store, prefix: str) -> str:
    """The run_id that begins with `prefix`, among the runs of the store and of its plans. Raises InputError if none does, or
    several do."""
    if set(prefix) - set("0123456789abcdef"):
        raise InputError(f"{prefix!r} is neither a run_id nor the first digits of one; isosweep status NAME lists them")
    known = {path.name for path in (store.root / "runs").glob(f"{prefix}*") if path.is_dir()}
    known |= {run_id for run_id in _planned_runs(store) if run_id.startswith(prefix)}
    if not known:
        raise InputError(f"no run {prefix} is in store={store.root}; isosweep status NAME lists the runs of a sweep")
    if len(known) > 1:
        raise InputError(f"{prefix} is the beginning of {len(known)} runs, {', '.join(sorted(known)[:5])}; give more digits")
    return known.pop()


def find_run(store: Store, prefix: str) -> RunConfig:
    """The run whose run_id begins with `prefix`, from its directory or a plan. Raises InputError as `find_run_id`."""
    directory = store.run(run_id := find_run_id(store, prefix))
    return directory.config() if (directory.path / "config.yaml").exists() else _planned_runs(store)[run_id]


def planned_keep(store: Store, run_id: str) -> int:
    """The largest evaluation.keep among the plans that have the run; 0 if none has."""
    plans = (plan for plan in _plans(store) if any(each.run.run_id == run_id for each in plan.runs))
    return max((plan.config.evaluation.keep for plan in plans), default=0)


def _planned_runs(store: Store) -> dict[str, RunConfig]:
    return {each.run.run_id: each.run for plan in _plans(store) for each in plan.runs}


def plan_sweep(
    config: SweepConfig, choices: Mapping[str, Any] | None = None, overrides: Iterable[str] = ()
) -> tuple[SweepPlan, "CorpusRecipe"]:
    """The plan of a sweep on its text, and the corpus, which need not be made yet; see `make_plan`. Sizes that become others
    than those asked for are told on stderr."""
    from sweep.data import CorpusRecipe

    recipe = CorpusRecipe.read(config.data)
    plan = make_plan(config, recipe, choices, overrides)
    for remark in remarks_on_sizes(config.grid, ladder_of(config, recipe.vocab_size)):
        print(f"isosweep: {remark}", file=sys.stderr)
    return plan, recipe


def make_plan(
    config: SweepConfig, recipe: "CorpusRecipe", choices: Mapping[str, Any] | None = None, overrides: Iterable[str] = ()
) -> SweepPlan:
    """Plan the sweep on a corpus that need not be made yet; nothing is written. Raises InputError if the grid is empty or
    wrong, or the corpus too short for it."""
    store = Store(Path(config.store))
    training_tokens = recipe.training_tokens(store.corpora)
    facts = CorpusFacts(fingerprint=recipe.fingerprint, vocab_size=recipe.vocab_size, training_tokens=training_tokens)
    device = resolve_device(config.device)
    try:
        runs = expand(config, corpus=facts.fingerprint, vocab_size=facts.vocab_size, training_tokens=facts.training_tokens)
    except TooLongError as error:
        made = recipe.find(store.corpora)
        if made is None or not (left_out := made.left_out()):
            raise
        raise InputError(f"{error} (left out of the text: {left_out})") from error
    speed = store.speed_seen((planned.run for planned in runs), device, config.data.validation_tokens, config.cluster.threads)
    pays = worth_compiling(planned.run for planned in runs)

    def engine(run: RunConfig) -> str:
        chosen = choose_engine(
            device,
            simple=is_simple(run),
            compiled=config.runtime.compile,
            compile_pays=run.run_id in pays,
            parallel_size=1,
            micro_batch=config.cluster.micro_batch,
        )
        known = measured.read(run, config.cluster.threads) if chosen == "native" else None
        return known.engine if known else chosen

    return SweepPlan(
        config=config,
        device=device,
        corpus=facts,
        runs=tuple(replace(each, engine=engine(each.run), expected_s=speed.seconds(each.run)) for each in runs),
        choices=choices or {},
        overrides=tuple(overrides),
    )
