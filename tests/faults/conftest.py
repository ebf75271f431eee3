"""A Slurm cluster for the tests that need one."""

from collections.abc import Iterator

import pytest

from slurm.one_machine import OneMachineCluster, why_not


@pytest.fixture(scope="session")
def slurm() -> Iterator[OneMachineCluster]:
    """Two idle nodes; `slurm.run("sbatch", …)` talks to them. Skips where Slurm is not installed."""
    if reason := why_not():
        pytest.skip(reason)
    with OneMachineCluster() as cluster:
        yield cluster


@pytest.fixture
def clean_slurm(slurm: OneMachineCluster) -> Iterator[OneMachineCluster]:
    """`slurm`, left without a job whatever becomes of the test."""
    yield slurm
    slurm.run("scancel", "--partition=main,high")
