"""How far are the learning-rate and batch rules from the optimum? Train three sizes at multiples of each and look.

Every key=value is a Hydra override of experiment=learning_rate. Runs are kept in the store, so a second call only draws.
It takes about 5 minutes on two cores.
"""

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd

from sweep.commands.corpora import make_corpus
from sweep.commands.sweeps import plan_sweep
from sweep.commands.training import launch_runs
from sweep.config import compose
from sweep.figures import save, set_style
from sweep.plan.run import RunConfig
from sweep.store import Store

SCALES = (0.25, 0.4, 0.63, 1.0, 1.6, 2.5, 4.0)
BATCHES = (256, 1024)  # tokens; the rule gives 512 at all three sizes
SEEDS = (0, 1, 2)


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/learning-rate"), help="folder of the tables and the figure")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="overrides of conf/experiment/learning_rate.yaml")
    options = parser.parse_args()
    if wrong := [override for override in options.overrides if "=" not in override]:
        parser.error(f"{wrong[0]!r} is no override key=value")
    rates = [(scale, "null") for scale in SCALES]
    # Another batch wants another rate: the square root of their ratio keeps Adam's noise the same (Malladi et al. 2022,
    # arXiv 2205.10287).
    batches = [((batch / 512) ** 0.5, str(batch)) for batch in BATCHES]
    configs = {
        (scale, seed, batch): compose(
            [
                "experiment=learning_rate",
                f"optimizer.lr_scale={scale}",
                f"optimizer.batch_tokens={batch}",
                f"seed={seed}",
                *options.overrides,
            ]
        )
        for seed in SEEDS
        for scale, batch in rates + batches
    }
    config = next(iter(configs.values()))
    corpus = make_corpus(config, plan_sweep(config)[1])
    planned = {key: [p.run for p in plan_sweep(config)[0].runs] for key, config in configs.items()}
    if launch_runs(config, sorted(chain(*planned.values()), key=lambda run: -run.N * run.D), corpus):
        raise SystemExit("some runs failed; the same command again trains what is missing")
    store = Store(Path(config.store))
    runs = pd.DataFrame([describe(run, scale, seed, store) for (scale, seed, _), some in planned.items() for run in some])
    out = options.out
    out.mkdir(parents=True, exist_ok=True)
    runs.to_csv(out / "runs.csv", index=False)
    at_rule = runs[runs["batch_tokens"] == 512]
    summary = summarise(at_rule)
    summary.to_csv(out / "summary.csv", index=False)
    print(summary.to_string(index=False))
    batch = runs[runs["lr_scale"] == (runs["batch_tokens"] / 512) ** 0.5].pivot_table("loss", "N", "batch_tokens").round(4)
    batch.to_csv(out / "batch.csv")
    print("\nmean loss by batch, the rate scaled by the square root of the batch")
    print(batch.to_string())
    for path in draw(at_rule, summary, out):
        print(f"wrote {path}")


def describe(run: RunConfig, scale: float, seed: int, store: Store) -> dict:
    """The row of one finished run."""
    return {
        "N": run.N,
        "D": run.D,
        "batch_tokens": run.batch_tokens,
        "lr_scale": scale,
        "peak_lr": run.optimizer.peak_lr,
        "seed": seed,
        "loss": store.run(run.run_id).status()["val_loss"],
    }


def summarise(runs: pd.DataFrame) -> pd.DataFrame:
    """Per size: the optimum of a parabola in log rate through the five scales around the best, and the rule's distance."""
    rows = []
    for N, group in runs.groupby("N"):
        mean = group.groupby("lr_scale")["loss"].mean()
        best = min(max(int(mean.to_numpy().argmin()), 2), len(mean) - 3)
        near = mean.iloc[best - 2 : best + 3]
        c2, c1, _ = np.polyfit(np.log(near.index), near.to_numpy(), 2)
        optimum = -c1 / (2 * c2)
        rows.append(
            {
                "N": N,
                "D": group["D"].iloc[0],
                "rule": group.loc[group["lr_scale"] == 1.0, "peak_lr"].iloc[0],
                "optimum": group.loc[group["lr_scale"] == 1.0, "peak_lr"].iloc[0] * np.exp(optimum),
                "rule / optimum": np.exp(-optimum),
                "excess loss of the rule": c1**2 / (4 * c2),
                "spread between seeds": group[group["lr_scale"] == 1.0]["loss"].std(),
            }
        )
    return pd.DataFrame(rows).round(5)


def draw(runs: pd.DataFrame, summary: pd.DataFrame, out: Path) -> list[Path]:
    """Loss against peak rate for each size, the rule marked."""
    import matplotlib.pyplot as plt

    set_style()
    figure, axes = plt.subplots(1, len(summary), figsize=(4 * len(summary), 3.4), layout="constrained")
    for axis, (_, row) in zip(np.atleast_1d(axes), summary.iterrows(), strict=True):
        group = runs[runs["N"] == row["N"]]
        mean = group.groupby("peak_lr")["loss"].mean()
        axis.plot(group["peak_lr"], group["loss"], ".", color="0.7", label="seeds")
        axis.plot(mean.index, mean, "o-", label="mean")
        axis.axvline(row["rule"], linestyle="--", color="C1", label="the rule")
        axis.set(xscale="log", xlabel="peak learning rate", xlim=(0.002, 0.3))
        axis.set_title(f"N = {int(row['N']):,}, D = {int(row['D']):,}")
    axes[0].set_ylabel("held-out loss (nats per byte)")
    axes[0].legend(frameon=False)
    return save(figure, out / "learning_rate")


if __name__ == "__main__":
    main()
