"""The evaluate command."""

from argparse import Namespace
from pathlib import Path

from sweep.commands import DONE, console
from sweep.commands.corpora import corpus_of
from sweep.commands.sweeps import open_sweep
from sweep.errors import InputError
from sweep.files import writing


def evaluate_sets(options: Namespace) -> int:
    """Evaluate every finished run on other text, by source of a mixture and by position; print, write and draw the losses."""
    import pandas as pd

    from sweep.figures.checks import draw_positions, draw_transfer
    from sweep.figures.style import save, set_style
    from sweep.follow.status import text_table
    from sweep.plan.device import require_device, resolve_device
    from sweep.use.evaluate import OWN, check_sets, evaluate, sets_of

    sweep = open_sweep(options)
    config, store = sweep.config, sweep.store
    device = resolve_device(config.device)
    require_device(device)
    named = config.evaluation.sets or {}
    check_sets(named)
    if not (done := sweep.finished()):
        raise InputError(f"no run of {config.name} in store={store.root} is done; launch the sweep first")
    corpus = corpus_of(sweep.plan, store)
    sets = sets_of(corpus, named, config.evaluation.tokens)
    rows, positions = [], {}
    for run in sorted(done, key=lambda run: (run.N, run.D)):
        found = evaluate(run, store.run(run.run_id), sets, device)
        positions[run.run_id] = (run.N, run.D, found[OWN]["by_position"])
        for each in sets:
            losses = {name: found[each.name].get(name) for name in ("loss", "loss_se", "bits_per_byte", "tokens")}
            rows.append({"run_id": run.run_id, "N": run.N, "D": run.D, "set": each.name, **losses})
    frame = pd.DataFrame(rows)
    wide = frame.pivot(index=["N", "D", "run_id"], columns="set", values="loss")[[each.name for each in sets]]
    shown = (
        (run_id, f"{N:,}", f"{D:,}", *(f"{loss:.3f}" for loss in of_sets))
        for N, D, run_id, *of_sets in wide.reset_index().itertuples(index=False)
    )
    title = f"{config.name}: loss in nats per token"
    console().print(text_table(("run", "N", "D", *wide.columns), shown, left=("run",), title=title))
    out = Path(config.out)
    with writing(out):
        frame.to_csv(out / "evaluations.csv", index=False)
    set_style()
    written = [out / "evaluations.csv", *save(draw_positions(list(positions.values())), out / "positions")]
    if len(sets) > 1:
        written += save(draw_transfer(frame, OWN), out / "transfer")
    for path in written:
        print(f"wrote {path}")
    return DONE
