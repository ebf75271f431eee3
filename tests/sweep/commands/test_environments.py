"""Commands where a notebook, a user's settings, another locale, a pipe or another system would make them fail."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sweep.commands import BAD_INPUT, DONE
from sweep.store import Store

ROOT = Path(__file__).resolve().parents[3]
INTERRUPTED = 130
# A user without a home or a name, as in a container, on a system that does not say which cores a process may use, as macOS.
ELSEWHERE = """
import os, pwd, sys

def unknown(uid):
    raise KeyError(uid)

os.environ.pop("HOME", None)
pwd.getpwuid = unknown
del os.sched_getaffinity
from sweep.cli import main
if __name__ == "__main__":
    sys.exit(main())
"""

DRAW = """
from pathlib import Path
from sweep.figures.style import log_axes, panels, save, set_style

set_style()
figure, axis = panels(1, 4)
axis.plot([1, 10, 100], [3, 2, 1.5], label="$N$")
axis.set_title("loss")
log_axes(axis)
save(figure, Path("figure"), ["png"])
"""


def isosweep(*arguments: str, cwd: Path, code: str | None = None, **options: Any) -> "subprocess.CompletedProcess[Any]":
    """Run a command as a user does, in the folder `cwd`; `options` go to subprocess.run."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | options.pop("env", {})
    program = ["-m", "sweep"] if code is None else [str(cwd / "program.py")]
    if code is not None:
        (cwd / "program.py").write_text(code)
    return subprocess.run([sys.executable, *program, *arguments], cwd=cwd, env=environment, **options)


@pytest.fixture
def table(tmp_path: Path) -> str:
    N, D = (grid.ravel() for grid in np.meshgrid(np.geomspace(1e6, 1e8, 4), np.geomspace(1e9, 1e11, 4)))
    path = tmp_path / "runs ü.csv"
    pd.DataFrame({"N": N, "D": D, "loss": 1.7 + 400 / N**0.34 + 1200 / D**0.32}).to_csv(path, index=False)
    return f"table='{path}'"


def test_figures_have_our_style_whatever_the_users_is(tmp_path: Path) -> None:
    drawn = {}
    for name, settings, env in (
        ("plain", b"", {"MPLBACKEND": "agg"}),
        ("users", b"text.usetex: True\naxes.titlesize: 40\n", {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "matplotlibrc").write_bytes(settings)
        done = isosweep(cwd=tmp_path / name, env=env, code=DRAW)
        assert done.returncode == DONE, done.stderr.decode()
        drawn[name] = (tmp_path / name / "figure.png").read_bytes()
    assert drawn["plain"] == drawn["users"]


def test_a_matplotlibrc_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "matplotlibrc").write_bytes(b"font.family: \xff\n")
    done = isosweep(cwd=tmp_path, code=DRAW)
    assert done.stderr.splitlines()[-1].startswith(b"sweep.errors.InputError: matplotlib does not start")
    assert b"mend or remove the file matplotlibrc" in done.stderr


def test_a_locale_that_is_not_utf_8(table: str, tmp_path: Path) -> None:
    """Paths keep their letters, and the screen shows ? for what it lacks."""
    ascii_only = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
    done = isosweep("fit", table, "out='größe'", "fit.resamples=0", cwd=tmp_path, env=ascii_only)
    assert done.returncode == DONE, done.stderr.decode()
    assert (tmp_path / "größe" / "fits.json").exists()
    assert b"gr??e/fits.json" in done.stdout


def test_a_reader_that_ends_early_is_no_error(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = isosweep("plan", "experiment=smoke", f"store={tmp_path}", cwd=tmp_path, stdout=writing)
        assert (done.returncode, done.stderr) == (DONE, b"")
    finally:
        os.close(writing)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_behind_the_output(table: str, tmp_path: Path) -> None:
    """Who reads nothing but the output is told that it is incomplete; a fit is written all the same."""
    with open("/dev/full", "wb") as full:
        planned = isosweep("plan", "experiment=smoke", "--json", cwd=tmp_path, stdout=full)
        fitted = isosweep("fit", table, "out=fits", "fit.resamples=0", cwd=tmp_path, stdout=full)
    assert planned.returncode == BAD_INPUT
    assert planned.stderr.startswith(b"isosweep: the output cannot be written (No space left on device)")
    assert planned.stderr.count(b"\n") == 1
    assert fitted.returncode == DONE
    assert b"fit goes on without it" in fitted.stderr
    assert (tmp_path / "fits" / "fits.json").exists()


def test_a_launch_goes_on_without_a_reader_a_home_or_the_number_of_cores(text_file: Path, tmp_path: Path) -> None:
    data = ["data=text", f"data.paths=[{text_file}]", "data.validation_tokens=4096", "device=cpu"]
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = isosweep(
            *["launch", *data, f"store={tmp_path / 'store'}", "grid=list", "grid.runs=[{N: 2e3, D: 2e4}]"],
            cwd=tmp_path,
            code=ELSEWHERE,
            stdout=writing,
            env={"CXX": "no-such-compiler"},  # without a home the kernels would be compiled again
        )
    finally:
        os.close(writing)
    assert done.returncode == DONE, done.stderr.decode()
    assert b"Traceback" not in done.stderr
    (run,) = (tmp_path / "store" / "runs").iterdir()
    assert Store(tmp_path / "store").run(run.name).status()["state"] == "done"


def test_ctrl_c_is_one_line(tmp_path: Path) -> None:
    code = "import signal, sweep.commands.planning as p\np.plan_sweep = lambda *a: signal.raise_signal(signal.SIGINT)\n"
    done = isosweep(
        "plan", "experiment=smoke", cwd=tmp_path, code=f"{code}\nfrom sweep.cli import main\nimport sys\nsys.exit(main())"
    )
    assert (done.returncode, done.stderr) == (INTERRUPTED, b"isosweep: interrupted\n")


def test_the_number_of_cores_is_asked_in_one_place() -> None:
    asked = [path for folder in ("sweep", "models", "scripts") for path in (ROOT / folder).rglob("*.py")]
    assert [path.name for path in asked if "sched_getaffinity" in path.read_text(encoding="utf-8")] == ["machine.py"]
