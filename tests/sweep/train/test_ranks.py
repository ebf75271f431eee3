"""One run on several processes: the same run, whoever trains it and however often they change."""

import json
import multiprocessing
import operator
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from sweep.data import Corpus
from sweep.errors import InputError
from sweep.plan.run import RunConfig
from sweep.store import RunDirectory, Store, states
from sweep.train.checkpoint import load_checkpoint
from sweep.train.loop import Runtime, train
from sweep.train.ranks import ALONE, Parallel
from tests.sweep.train.processes import free_port, rank_environment, rows
from tests.waiting import PATIENCE_S

NEVER = 10**9


# What two orders of the same sums may differ by, relative, where fp32 rounds by 6e-8. A loss is a mean of many. Its standard
# error comes of differences between sequences, a tenth as large as the losses or less. And the gradient's norm feels the
# weights, in which AdamW magnifies rounding: it divides each gradient by its size.
ROUNDING = {"loss": 1e-5, "val_loss": 1e-5, "val_loss_se": 1e-4, "grad_norm": 1e-4}


def assert_same_curve(found: RunDirectory, expected: RunDirectory, tolerance: float = 0) -> None:
    """Every row once and in order; what is planned exactly, what is computed to `tolerance`, or to rounding."""
    assert len(rows(found)) == len(rows(expected))
    for ours, theirs in zip(rows(found), rows(expected), strict=True):
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            allowed = max(tolerance, ROUNDING[name]) if name in ROUNDING else 0
            assert ours[name] == (pytest.approx(value, rel=allowed) if allowed else value), (name, theirs["step"])


def one_rank(
    environment: dict[str, str],
    strategy: str,
    run: RunConfig,
    corpus: Path,
    stores: Path,
    stop_at: int,
    micro: int | None,
    plant: str,
) -> str:
    """Train `run` as one rank, which has a store of its own, so that it shows who writes."""
    os.environ |= environment
    torch.set_num_threads(1)
    with Parallel.from_environment("cpu", strategy) as parallel:
        directory = Store(stores / f"rank-{parallel.rank}").run(run.run_id)
        last = parallel.rank == parallel.size - 1

        def should_stop(step: int) -> bool:
            return last and step >= stop_at  # nobody asks the others

        def on_progress(progress: object) -> None:
            assert parallel.rank == 0
            if plant == "first rank fails":
                raise ArithmeticError("planted")
            if plant == "claim is lost":
                (directory.path / "claim" / "00000099.json").write_text("{}")

        runtime = Runtime(parallel=parallel, micro_batch=micro, log_interval_s=0)
        return train(run, Corpus.open(corpus), directory, runtime, should_stop=should_stop, on_progress=on_progress)


class Ranks:
    """Processes that can train runs together. Each stays the rank it is: DTensor remembers shards by their mesh alone."""

    def __init__(self, executors: list[ProcessPoolExecutor], corpus: Corpus) -> None:
        self.executors, self.corpus = executors, corpus

    def outcomes(
        self,
        size: int,
        strategy: str,
        run: RunConfig,
        stores: Path,
        *,
        stop_at: int = NEVER,
        micro: int | None = None,
        plant: str = "",
    ) -> list[str | BaseException]:
        """What each rank returned or raised."""
        port = free_port()
        futures = [
            self.executors[rank].submit(
                one_rank,
                rank_environment(rank, size, port),
                strategy,
                run,
                self.corpus.directory,
                stores,
                stop_at,
                micro,
                plant,
            )
            for rank in range(size)
        ]
        found = [future.exception(timeout=PATIENCE_S) or future.result() for future in futures]
        assert [path.name for path in stores.iterdir()] == ["rank-0"]
        return found

    def train(self, size: int, strategy: str, run: RunConfig, stores: Path, **options: int | None) -> str:
        """The state that all ranks agree on."""
        found = set(self.outcomes(size, strategy, run, stores, **options))  # type: ignore[arg-type]
        assert len(found) == 1, found
        (state,) = found
        assert isinstance(state, str), state
        return state


@pytest.fixture(scope="module")
def ranks(corpus: Corpus) -> Iterator[Ranks]:
    executors = [ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) for _ in range(3)]
    yield Ranks(executors, corpus)
    for process in multiprocessing.active_children():  # some would wait for each other, if a test failed
        process.kill()
    for executor in executors:
        executor.shutdown()


@pytest.fixture
def run(tiny_run: RunConfig) -> RunConfig:
    """Two layers, grouped queries, and sizes that three ranks cannot share evenly."""
    return replace(tiny_run, model=replace(tiny_run.model, d_model=8, n_layers=2, n_heads=2, n_kv_heads=1))


@pytest.fixture
def alone(run: RunConfig, corpus: Corpus, tmp_path: Path) -> RunDirectory:
    directory = Store(tmp_path / "alone").run(run.run_id)
    assert train(run, corpus, directory) == states.DONE
    return directory


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize(
    ("size", "batch_size", "micro"),
    [(2, 4, None), (2, 5, 1), (3, 4, 1), (3, 2, None)],
    ids=["even", "accumulated", "uneven and accumulated", "more ranks than sequences"],
)
def test_the_curve_is_that_of_one_process(
    ranks: Ranks,
    run: RunConfig,
    corpus: Corpus,
    tmp_path: Path,
    strategy: str,
    size: int,
    batch_size: int,
    micro: int | None,
) -> None:
    run = replace(run, batch_size=batch_size)
    alone = Store(tmp_path / "alone").run(run.run_id)
    train(run, corpus, alone)
    assert ranks.train(size, strategy, run, tmp_path / "ranks", micro=micro) == states.DONE
    together = Store(tmp_path / "ranks" / "rank-0").run(run.run_id)
    assert_same_curve(together, alone)
    assert together.status()["ranks"] == size
    (start,) = json.loads((together.path / "provenance.json").read_text())["starts"]
    assert (start["ranks"], start["strategy"]) == (size, strategy)


def test_tied_embeddings_are_sharded_as_one(ranks: Ranks, run: RunConfig, corpus: Corpus, tmp_path: Path) -> None:
    run = replace(run, model=replace(run.model, tied_embeddings=True))
    alone = Store(tmp_path / "alone").run(run.run_id)
    train(run, corpus, alone)
    assert ranks.train(2, "fsdp", run, tmp_path / "ranks", stop_at=6) == states.INTERRUPTED
    assert ranks.train(3, "fsdp", run, tmp_path / "ranks") == states.DONE
    assert_same_curve(Store(tmp_path / "ranks" / "rank-0").run(run.run_id), alone)


@pytest.mark.parametrize("precision", ["bf16", "bf16_weights"])
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_bf16_is_the_same_autocast(
    ranks: Ranks, run: RunConfig, corpus: Corpus, tmp_path: Path, strategy: str, precision: str
) -> None:
    run = replace(run, precision=precision)
    alone = Store(tmp_path / "alone").run(run.run_id)
    train(run, corpus, alone, Runtime(compile="off"))
    assert ranks.train(2, strategy, run, tmp_path / "ranks") == states.DONE
    together = Store(tmp_path / "ranks" / "rank-0").run(run.run_id)
    # Before the first update nothing but the order of sums differs: the residual stream is in fp32 on ranks as well.
    assert rows(together)[0]["loss"] == pytest.approx(rows(alone)[0]["loss"], rel=1e-6)
    assert_same_curve(together, alone, tolerance=0.01)


def test_whoever_goes_on_with_a_run_it_is_the_same_run(
    ranks: Ranks, run: RunConfig, corpus: Corpus, alone: RunDirectory, tmp_path: Path
) -> None:
    stores = tmp_path / "ranks"
    directory = Store(stores / "rank-0").run(run.run_id)
    for size, strategy, stop_at in [
        (2, "fsdp", 0),
        (2, "ddp", 2),
        (1, "none", 3),
        (3, "fsdp", 5),
        (2, "fsdp", 6),
        (3, "ddp", 8),
        (1, "none", 9),
        (2, "fsdp", 11),
    ]:
        if size == 1:
            state = train(run, corpus, directory, should_stop=partial(operator.le, stop_at))
        else:
            state = ranks.train(size, strategy, run, stores, stop_at=stop_at)
        assert state == states.INTERRUPTED
        assert directory.status()["step"] == stop_at
    assert ranks.train(3, "ddp", run, stores) == states.DONE
    assert_same_curve(directory, alone)
    ours, theirs = load_checkpoint(directory.checkpoints), load_checkpoint(alone.checkpoints)
    assert ours is not None
    assert theirs is not None
    torch.testing.assert_close(ours["model"], theirs["model"], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(ours["optimizer"], theirs["optimizer"], rtol=1e-2, atol=1e-4)


def test_ranks_fall_back_to_the_checkpoint_before_a_damaged_one(
    ranks: Ranks, run: RunConfig, alone: RunDirectory, tmp_path: Path
) -> None:
    directory = Store(tmp_path / "ranks" / "rank-0").run(run.run_id)
    for stop_at in (4, 7):
        ranks.train(2, "fsdp", run, tmp_path / "ranks", stop_at=stop_at)
    newest = max(directory.checkpoints.glob("*.pt"))
    newest.write_bytes(newest.read_bytes()[:-100])
    assert ranks.train(3, "ddp", run, tmp_path / "ranks") == states.DONE
    assert_same_curve(directory, alone)


def test_divergence_ends_all_ranks_at_the_same_step(ranks: Ranks, run: RunConfig, corpus: Corpus, tmp_path: Path) -> None:
    run = replace(run, optimizer=replace(run.optimizer, peak_lr=1e30))
    alone = Store(tmp_path / "alone").run(run.run_id)
    assert train(run, corpus, alone) == states.DIVERGED
    assert ranks.train(3, "fsdp", run, tmp_path / "ranks") == states.DIVERGED
    assert Store(tmp_path / "ranks" / "rank-0").run(run.run_id).status()["step"] == alone.status()["step"]


def test_a_lost_claim_stops_all_ranks(ranks: Ranks, run: RunConfig, tmp_path: Path) -> None:
    assert ranks.train(2, "ddp", run, tmp_path, plant="claim is lost") == states.RUNNING  # type: ignore[arg-type]
    assert Store(tmp_path / "rank-0").run(run.run_id).status()["step"] == 0


def test_a_run_that_another_process_trains_is_left_alone(ranks: Ranks, run: RunConfig, tmp_path: Path) -> None:
    directory = Store(tmp_path / "rank-0").run(run.run_id)
    directory.create(run)
    with directory.own():
        assert ranks.train(2, "ddp", run, tmp_path) == states.RUNNING


def test_an_error_on_the_first_rank_is_raised_on_all(ranks: Ranks, run: RunConfig, tmp_path: Path) -> None:
    errors = ranks.outcomes(3, "fsdp", run, tmp_path, plant="first rank fails")
    assert [type(error) for error in errors] == [ArithmeticError] * 3


# --- without other processes -------------------------------------------------------------------------------------------------


def test_every_row_is_one_ranks_and_ranks_do_as_many_passes() -> None:
    for count in range(1, 12):
        for size in range(1, 6):
            for most in range(1, 6):
                shares = [Parallel(rank=rank, size=size).share(count, most) for rank in range(size)]
                assert len({len(share) for share in shares}) == 1
                counted = [row for share in shares for rows, many in share if many for row in range(count)[rows]]
                assert counted == list(range(count))
                for share in shares:
                    for rows_, many in share:
                        assert many in (0, len(range(count)[rows_]))
                        assert 0 < len(range(count)[rows_]) <= most
    assert ALONE.share(5, 2) == [(slice(0, 2), 2), (slice(2, 4), 2), (slice(4, 5), 1)]


def test_torchrun_and_srun_say_which_rank_this_is() -> None:
    torchrun = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}
    srun = {"SLURM_STEP_ID": "0", "SLURM_PROCID": "3", "SLURM_NTASKS": "4", "SLURM_LOCALID": "1"}
    script = {name: value for name, value in srun.items() if name != "SLURM_STEP_ID"}
    expected = Parallel(rank=3, size=4, local_rank=1, device="cpu", strategy="fsdp")
    assert Parallel.from_environment("cpu", "fsdp", torchrun) == expected
    assert Parallel.from_environment("cpu", "fsdp", srun | {"MASTER_ADDR": "node1"}) == expected
    with pytest.raises(InputError, match="MASTER_ADDR"):
        Parallel.from_environment("cpu", "fsdp", srun)
    assert Parallel.from_environment("cpu", "fsdp", script) == ALONE  # a job's script is one process
    assert Parallel.from_environment("cpu", "fsdp", {}) == ALONE
    one = {"SLURM_STEP_ID": "0", "SLURM_PROCID": "0", "SLURM_NTASKS": "1", "SLURM_LOCALID": "0"}
    assert Parallel.from_environment("cpu", "ddp", one) == ALONE
