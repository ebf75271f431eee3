"""What moves Kaplan's exponent to Chinchilla's: one simulated sweep, counted in every way.

The law is Chinchilla's own surface, in all parameters, with a = 0.457. The models are those of Kaplan et al. 2020: a thousand
to 1.5 billion parameters without embeddings, a vocabulary of 50,257, a context of 1,024, up to 2.2e10 tokens. Losses scatter by
0.2 %, and those read off the middle of a run miss its decay of the learning rate. Every row fits the same runs; only the
counting differs.
"""

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

import numpy as np
import pandas as pd

from models import SizeLadder, count_parameters, flops_per_token
from models.accounting import FLOP_CONVENTIONS
from sweep.figures import save, set_style
from sweep.figures.checks import draw_exponents
from sweep.fit import Noise, Simulator, compare_conventions, tables_by_convention
from sweep.fit.surface import CHINCHILLA

NOISE = Noise(run=0.002, step=0.001, undecayed=0.15)
TOKENS = np.geomspace(2e8, 2.2e10, 6)


def simulate() -> tuple[pd.DataFrame, Simulator]:
    """The table of runs, with every count that a sweep's own table has."""
    ladder = SizeLadder(vocab_size=50_257, context_length=1024, aspect_ratio=64, head_dim=64)
    shapes = [shape for shape in ladder.shapes() if 1e3 <= count_parameters(shape).non_embedding <= 1.6e9][::2]
    simulator = Simulator(surface=CHINCHILLA, noise=NOISE)
    N = np.repeat([float(count_parameters(shape).total) for shape in shapes], len(TOKENS))
    runs = simulator.runs(N, np.tile(TOKENS, len(shapes)))
    frame = pd.DataFrame({"run_id": runs.run_id, "N": runs.N, "D": runs.D, "loss": runs.loss})
    frame["N_non_embedding"] = np.repeat([float(count_parameters(shape).non_embedding) for shape in shapes], len(TOKENS))
    for convention in FLOP_CONVENTIONS:
        per_token = np.repeat([flops_per_token(shape, convention) for shape in shapes], len(TOKENS))
        frame["C" if convention == "6N" else f"C_{convention}"] = per_token * runs.D
    return frame, simulator


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("results/kaplan-chinchilla"),
        help="folder of the tables and the figure",
    )
    out = parser.parse_args().out
    frame, simulator = simulate()
    tables = tables_by_convention(frame)
    curves = simulator.curves(tables["N with embeddings, C = 6ND"])
    rows = compare_conventions(tables, curves)
    print("\n".join(row.line() for row in rows))
    out.mkdir(parents=True, exist_ok=True)
    frame.to_csv(out / "runs.csv", index=False)
    pd.DataFrame(
        [
            {"convention": row.convention, "protocol": row.protocol, "approach": row.approach, "points": row.runs}
            | (row.a.to_dict() if row.a else {})
            for row in rows
        ]
    ).to_csv(out / "exponents.csv", index=False)
    set_style()
    save(draw_exponents(rows, level=0.8), out / "exponents")


if __name__ == "__main__":
    main()
