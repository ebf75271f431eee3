"""What the base install can do, which has no torch: tables, fits, figures and reports. The rest names the extra it needs."""

import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "results" / "cpu-python"
TABLES = [f"table={RESULT / 'runs.csv'}", f"curves={RESULT / 'curves.parquet'}", "fit.resamples=20"]
# Runs the command line as if the packages of the extras were not installed.
WITHOUT_EXTRAS = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "tokenizers", "datasets", "safetensors", "wandb"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
from sweep.cli import main
sys.exit(main(sys.argv[1:]))
"""


def run(command: list[str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL)


def assert_complete(isosweep: list[str], out: Path) -> None:
    """Fits, draws and reports a table; refuses to train in one line."""
    reported = run(isosweep, "report", *TABLES, f"out={out}")
    assert reported.returncode == 0, reported.stderr
    assert (out / "fits.json").exists()
    assert (out / "report.html").exists()
    for arguments, package, extra in (
        (["launch", "experiment=smoke", f"store={out / 'store'}"], "torch", "train"),
        (["fit", "table=wandb://entity/project", f"out={out}"], "wandb", "wandb"),
    ):
        refused = run(isosweep, *arguments)
        assert refused.returncode == 2
        assert refused.stderr == f"isosweep: this needs {package}: pip install 'isosweep[{extra}]'\n"


def test_without_extras(tmp_path: Path) -> None:
    assert_complete([sys.executable, "-c", WITHOUT_EXTRAS], tmp_path)


def test_a_fresh_environment(tmp_path: Path, runslow: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wheel with its own copy of conf/, run outside the checkout."""
    if not runslow:
        pytest.skip("installs packages; only with --runslow")
    monkeypatch.delenv("PYTHONPATH", raising=False)  # which would name the checkout
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    installed = run([str(python)], "-m", "pip", "install", "--quiet", "--constraint", "constraints.txt", str(ROOT))
    assert installed.returncode == 0, installed.stderr
    assert run([str(python)], "-c", "import torch").returncode == 1
    isosweep = [str(tmp_path / "venv" / "bin" / "isosweep")]
    assert run(isosweep, "--version").stdout.startswith("isosweep ")
    assert_complete(isosweep, tmp_path)
    typed = run(
        [str(python)],
        "-P",
        "-c",
        "import sweep, models, pathlib as p; print(*(p.Path(m.__file__).parent / 'py.typed' for m in (sweep, models)))",
    )
    assert all(Path(path).is_relative_to(tmp_path) and Path(path).exists() for path in typed.stdout.split())
