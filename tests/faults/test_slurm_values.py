"""Values as people have them, on a real Slurm: paths of any characters, setup lines that fail, time limits, secrets."""

import json
import math
import re
import shlex
import stat
from pathlib import Path

import pytest
import yaml

from slurm.one_machine import OneMachineCluster
from sweep.cli import main
from sweep.commands import BAD_INPUT, DONE
from sweep.config import compose, compose_with_choices, conf_directory
from sweep.launch import launchers
from sweep.store import Store, states
from tests.stores import leave_status
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(600)

HOSTILE = """a' "b", =(c) [d] {e} #f; g& !h ü %j %% $HOME `i`\n* é"""
ONE_RUN = ["experiment=smoke", "grid=list", "grid.isoflop=null", "grid.runs=[{N: 3e3, D: 1e4}]", "data.validation_tokens=8192"]
SLURM = ["cluster=slurm", "cluster.slurm.partition=main", "cluster.slurm.cpus_per_task=1", "runtime.compile=off"]
SECRET = "hf_AbCdEfGh"


@pytest.fixture
def here(clean_slurm: OneMachineCluster, monkeypatch: pytest.MonkeyPatch) -> OneMachineCluster:
    """The cluster that this process's own commands talk to."""
    monkeypatch.setenv("SLURM_CONF", str(clean_slurm.conf))
    return clean_slurm


def setup_of(*lines: str) -> str:
    return f"cluster.slurm.setup={json.dumps(lines)}"


def test_a_store_of_any_characters_and_a_setup_with_a_secret(
    here: OneMachineCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run is done, its log can be read, and nothing that others can read, or that is printed, has the token."""
    folder = tmp_path / HOSTILE
    folder.mkdir()
    (folder / "activate.sh").write_text('export BACKUP=$NOBODY_SET_THIS\nfalse\nPS1="(env) $PS1"\n')
    cluster = yaml.safe_load((conf_directory() / "cluster" / "slurm.yaml").read_text())
    setup = [f"source {shlex.quote(str(folder / 'activate.sh'))}", f"export HF_TOKEN={SECRET}", f"test $HF_TOKEN = {SECRET}"]
    cluster["slurm"] |= {"setup": setup, "directives": [f"--export=ALL,KEY={SECRET}"]}
    (tmp_path / "cluster").mkdir()
    (tmp_path / "cluster" / "mine.yaml").write_text(yaml.safe_dump(cluster))
    store = Store(folder / "store")
    sweep = ["--config-dir", str(tmp_path), *ONE_RUN, *SLURM, "cluster=mine", f"store={store.root}", "name=one"]
    assert main(["launch", *sweep, "--cfg", "job"]) == DONE
    assert main(["plan", *sweep, "--json"]) == DONE
    assert main(["launch", *sweep]) == DONE
    (run_id,) = launchers.queued(store) or [path.name for path in store.root.glob("runs/*")]
    wait_until(lambda: store.run(run_id).status()["state"] == states.DONE)
    assert main(["logs", run_id, f"store={store.root}"]) == DONE
    shown = capsys.readouterr().out
    assert f"{run_id} done" in shown
    assert "export <not shown>" in shown
    assert SECRET not in shown
    found = {path.name for path in store.root.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()}
    assert found == {"setup.sh", "secrets.json"}
    assert {stat.S_IMODE(path.stat().st_mode) for name in found for path in store.root.rglob(name)} == {0o600}

    # The next launch by the plan's name has the lines again; without their file it says what it lacks.
    wait_until(lambda: not launchers.queued(store))
    leave_status(store.run(run_id), states.WAITING, step=0)
    (store.root / "sweeps" / "one" / "secrets.json").rename(tmp_path / "kept")
    assert main(["launch", "one", f"store={store.root}"]) == BAD_INPUT
    assert "cluster.slurm.directives is not in the written plan, as it may hold secrets" in capsys.readouterr().err
    (tmp_path / "kept").rename(store.root / "sweeps" / "one" / "secrets.json")
    assert main(["launch", "one", f"store={store.root}"]) == DONE
    texts = [path.read_text() for path in store.root.glob("submissions/*/setup.sh")]
    assert len(texts) == 2
    assert texts[0] == texts[1]


def test_the_setup_line_that_fails_is_named_without_what_it_holds(here: OneMachineCluster, tmp_path: Path) -> None:
    lines = ["true", "", f"  export HF_TOKEN={SECRET}; source /nowhere/activate"]
    assert main(["launch", *ONE_RUN, *SLURM, setup_of(*lines), f"store={tmp_path}"]) == DONE
    wait_until(lambda: not here.run("squeue", "--noheader"))
    (log,) = tmp_path.glob("submissions/*/task-0.log")
    assert "line 3 of cluster.slurm.setup, “export …”, failed with exit code 1" in log.read_text()
    assert SECRET not in log.read_text()


def test_a_setup_that_is_no_bash_is_refused_before_it_is_submitted(
    here: OneMachineCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["launch", *ONE_RUN, *SLURM, setup_of("true", f"export A={SECRET} )"), f"store={tmp_path}"]) == BAD_INPUT
    printed = capsys.readouterr().err
    assert "cluster.slurm.setup: bash finds a syntax error at line 2, “export <not shown>”" in printed
    assert SECRET not in printed
    assert not (tmp_path / "submissions").exists()


def test_a_store_below_a_backslash_is_refused(
    here: OneMachineCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["launch", *ONE_RUN, *SLURM, f"store={tmp_path}/a\\b"]) == BAD_INPUT
    assert "Slurm writes no log below a path with a backslash" in capsys.readouterr().err


# As each is written in a file, and the seconds that Slurm makes of it, in whole minutes.
LIMITS = {
    "90": 5400,
    "010": 600,
    "90:30": 91 * 60,
    "10:00": 600,
    "1:30:00": 5400,
    "12:00:00": 43_200,
    "2-12": 216_000,
    "2-12:30": 217_800,
    "2-12:30:10": 217_860,
    "UNLIMITED": math.inf,
    "0": math.inf,
}


@pytest.mark.parametrize("where", ["file", "command line"])
def test_time_limits_mean_what_slurm_means(slurm: OneMachineCluster, tmp_path: Path, where: str) -> None:
    (tmp_path / "cluster").mkdir()
    base = (conf_directory() / "cluster" / "slurm.yaml").read_text()
    for number, (text, seconds) in enumerate(LIMITS.items()):
        if where == "file":
            mine = re.sub(r"time_limit: null.*", f"time_limit: {text}", base)
            (tmp_path / "cluster" / f"c{number}.yaml").write_text(mine)
            config = compose_with_choices([f"cluster=c{number}"], config_dir=str(tmp_path))[0]
        else:
            config = compose(["cluster=slurm", f"cluster.slurm.time_limit={text}"])
        options = config.cluster.slurm
        assert options is not None
        assert options.limit() == text
        assert math.ceil(options.limit_s() / 60) * 60 == seconds if seconds < math.inf else options.limit_s() == seconds
        job = slurm.run("sbatch", "--parsable", "--hold", "--output=/dev/null", f"--time={options.limit()}", "--wrap=true")
        shown = slurm.run("squeue", "--noheader", f"--jobs={job}", "--format=%l")
        slurm.run("scancel", job)
        days, _, clock = shown.rpartition("-")
        parts = [int(part) for part in clock.split(":")] if shown != "UNLIMITED" else []
        of_slurm = sum(part * 60**power for power, part in enumerate(reversed(parts))) + 86_400 * int(days or 0)
        assert (of_slurm or math.inf) == seconds, (text, shown)


def test_a_forged_submission_cancels_no_other_job(here: OneMachineCluster, tmp_path: Path) -> None:
    """A job.json that names a job of this user which was not submitted from this store."""
    assert main(["launch", *ONE_RUN, *SLURM, "cluster.slurm.directives=[--hold]", f"store={tmp_path}", "name=one"]) == DONE
    other = here.run("sbatch", "--parsable", "--array=0-1", "--hold", "--output=/dev/null", "--wrap=sleep 60")
    (job,) = tmp_path.glob("submissions/*/job.json")
    mine = json.loads(job.read_text())["job"]
    job.write_text(json.dumps({"job": other}))
    assert launchers.queued(Store(tmp_path)) == {}
    assert main(["cancel", "one", f"store={tmp_path}"]) == DONE
    assert here.job_states(other) == ["PENDING", "PENDING"]
    job.write_text(json.dumps({"job": mine}))
    assert main(["cancel", "one", f"store={tmp_path}"]) == DONE
    wait_until(lambda: set(here.job_states(mine)) == {"CANCELLED"})
    assert here.job_states(other) == ["PENDING", "PENDING"]
