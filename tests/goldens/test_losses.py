"""Forty steps of training, by every engine, against pinned losses and gradient norms.

The pinned numbers are those of a plain loop in double precision. Tolerances follow from the arithmetic, not from one machine's
results: other processors and versions of torch round elsewhere. Measured distances are an eighth of the tolerance or less.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from models.language_model import LanguageModel
from sweep.plan.run import RunConfig
from sweep.train.engine import make_engine
from sweep.train.engine.kernels import NoKernels, kernels
from sweep.train.schedule import learning_rate
from tests.sweep.train.engine_cases import SHAPES, run_of, sequences_of

PINNED: dict[str, list[list[float]]] = json.loads((Path(__file__).parent / "losses.json").read_text())
CASES = {"heads of 8": SHAPES[1], "GQA, odd context": SHAPES[2]}
# Relative, of the mean loss and of the gradient's norm before clipping.
FP64 = (1e-6, 1e-6)  # the weights are drawn in fp32, and their last bit differs between processors
FP32 = (4e-6, 4e-6)  # 64 roundings of 2^-24
BF16 = (1e-2, 2e-2)  # products of matrices have 8 bits, and their error 2^-9


def plain_loop(run: RunConfig, dtype: torch.dtype) -> np.ndarray:
    """Loss and gradient norm of each step, shape (steps, 2), as a tutorial would train."""
    model, sequences, o = LanguageModel(run.model), sequences_of(run), run.optimizer
    model.initialise(run.seed)
    model.to(dtype)
    matrices, gains = ([p for p in model.parameters() if (p.ndim >= 2) == is_matrix] for is_matrix in (True, False))
    groups = [{"params": matrices, "weight_decay": o.weight_decay}, {"params": gains, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(o.beta1, o.beta2), eps=o.eps)
    rows = []
    for step in range(run.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, run.steps, o.peak_lr, run.schedule)
        ids_BS = torch.from_numpy(sequences.batch(step))
        loss = F.cross_entropy(model(ids_BS[:, :-1]).flatten(0, 1), ids_BS[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), o.grad_clip)
        optimizer.step()
        rows.append([loss.item(), norm.item()])
    return np.array(rows)


def assert_near(found: np.ndarray, case: str, tolerances: tuple[float, float]) -> None:
    pinned = np.array(PINNED[case])
    for column, tolerance in enumerate(tolerances):
        np.testing.assert_allclose(found[:, column], pinned[:, column], rtol=tolerance)


def trained(name: str, case: str, precision: str = "fp32") -> np.ndarray:
    if name == "native":
        try:
            kernels()
        except NoKernels as error:
            pytest.skip(str(error))  # no compiler here: then the product trains eagerly, which is pinned too
    run = run_of(CASES[case], precision)
    engine = make_engine(name, run, sequences_of(run), device="cpu")
    return np.array([engine.step(step).tolist() for step in range(run.steps)])


@pytest.mark.parametrize("case", CASES)
def test_a_plain_loop(case: str) -> None:
    assert_near(plain_loop(run_of(CASES[case]), torch.float64), case, FP64)
    assert_near(plain_loop(run_of(CASES[case]), torch.float32), case, FP32)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ["native", "eager", "eager, graph"])
def test_fp32(name: str, case: str) -> None:
    assert_near(trained(name, case), case, FP32)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ["native", "eager"])
def test_bf16(name: str, case: str) -> None:
    assert_near(trained(name, case, "bf16"), case, BF16)


def test_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    assert_near(trained("compiled", "heads of 8"), "heads of 8", FP32)
