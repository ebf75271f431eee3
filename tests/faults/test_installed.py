"""A wheel in an environment of its own, outside the checkout: from the plan to the report, and through Slurm."""

import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import pytest

from slurm.one_machine import OneMachineCluster
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
GRID = ["grid=horizons", "grid.horizons.parameters=[2.3e3,4.9e3,1.4e4]", "grid.horizons.tokens_per_parameter=[3,6,12,24]"]
SWEEP = [*GRID, "device=cpu", "data=text", "data.validation_tokens=4096", "data.max_epochs=9", "name=tiny"]
pytestmark = pytest.mark.timeout(900)


class Installed:
    """The command `isosweep` of a fresh environment, run in a folder of its own, as a user would."""

    def __init__(self, program: Path, folder: Path) -> None:
        self.program, self.folder = program, folder

    def __call__(self, *arguments: str, environment: Mapping[str, str] = os.environ) -> str:
        ours = {name: value for name, value in environment.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
        command = [str(self.program), *arguments]
        done = subprocess.run(command, cwd=self.folder, env=ours, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, f"{arguments}: {done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """isosweep from a wheel. Its dependencies are those of the environment that runs the tests: nothing is downloaded, unless
    hatchling, which builds the wheel, is not among them."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    offline = ["--no-build-isolation", "--no-index"] if find_spec("hatchling") else []
    built = subprocess.run(
        [*pip, "wheel", *offline, "--no-deps", "--wheel-dir", str(folder), str(ROOT)], capture_output=True, text=True
    )
    if built.returncode and not offline:
        pytest.skip(f"hatchling is neither installed nor to be had from a package index: {built.stderr[-200:]}")
    assert built.returncode == 0, built.stderr
    (wheel,) = folder.glob("isosweep-*.whl")
    home = folder / "environment"
    venv.create(home, with_pip=False)
    python = home / "bin" / "python"
    subprocess.run([*pip, "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)], check=True)
    (own,) = home.glob("lib/python*/site-packages")
    (own / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n{sysconfig.get_path('platlib')}\n")
    return Installed(home / "bin" / "isosweep", folder)


def test_from_the_plan_to_the_report(installed: Installed, text_file: Path) -> None:
    sweep = [*SWEEP, f"data.paths=[{text_file}]"]
    where = "import sweep, models; print(sweep.__file__, models.__file__)"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [str(installed.program.with_name("python")), "-c", where]
    files = subprocess.run(command, cwd=installed.folder, env=environment, capture_output=True, text=True, check=True).stdout
    assert all(Path(file).is_relative_to(installed.folder) for file in files.split())  # and not the checkout's
    assert "12 runs, 12 to train" in installed("plan", *sweep)
    assert "12 done" in installed("launch", *sweep)
    assert "12 done; 100% of" in installed("status", "tiny")
    assert "Approach 3" in installed("fit", "tiny", "fit.resamples=0")
    installed("report", "tiny", "fit.resamples=0")
    out = installed.folder / "store" / "sweeps" / "tiny"
    assert (out / "fits.json").exists()
    assert (out / "report.html").stat().st_size > 1e6
    assert "grid.isoflop.budgets=" in installed("launch", "--help")  # from its own copy of conf/


def test_through_slurm(installed: Installed, text_file: Path, clean_slurm: OneMachineCluster) -> None:
    cluster = ["cluster=slurm", "cluster.slurm.partition=main", "cluster.slurm.cpus_per_task=1"]
    sweep = [*SWEEP, *cluster, f"data.paths=[{text_file}]", "name=array", "seed=1", "grid.horizons.tokens_per_parameter=[6]"]
    assert "submitted 3 runs" in installed("launch", *sweep, environment=clean_slurm.environment)
    wait_until(lambda: "3 done" in installed("status", "array", environment=clean_slurm.environment))
