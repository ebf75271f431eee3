"""Claims: one owner at a time, whoever dies, sleeps or races."""

import errno
import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from sweep import claim as module
from sweep.claim import Claim, LostError, Owner, alone
from tests.waiting import wait_until

DEAD = Owner(host="elsewhere", pid=1, started=1)


def leave(directory: Path, owner: Owner | dict, number: int = 1, age: float = 0) -> Path:
    """A claim file as another process would have left it, `age` seconds ago."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{number:08d}.json"
    path.write_text(json.dumps(asdict(owner) if isinstance(owner, Owner) else owner))
    os.utime(path, (time.time() - age,) * 2)
    return path


def _race(directory: str) -> bool:
    claim = Claim(Path(directory))
    won = claim.take()
    time.sleep(0.3)  # a winner that is gone would be no hindrance
    return won


@pytest.mark.parametrize("before", ["free", "released", "dead"])
def test_of_many_one_wins(tmp_path: Path, before: str) -> None:
    if before != "free":
        leave(tmp_path, {"released": True} if before == "released" else replace(Owner.here(), pid=2**22 + 1))
    with ProcessPoolExecutor(8) as pool:
        assert sum(pool.map(_race, [str(tmp_path)] * 8)) == 1


def test_a_claim_is_held_until_it_is_released(tmp_path: Path) -> None:
    first, second = Claim(tmp_path), Claim(tmp_path)
    assert first.take()
    assert not second.take()
    assert second.held()
    assert second.owner() == Owner.here()
    first.release()
    assert not second.held()
    assert second.take()
    assert first.lost()
    assert not second.lost()
    first.release()  # too late: it is the second's
    assert second.held()


def test_a_process_of_this_machine_that_is_gone_owns_nothing(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from sweep.claim import Claim; print(Claim(Path(sys.argv[1])).take())"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, cwd=Path(__file__).resolve().parents[2])
    assert not Claim(tmp_path).held()  # it did not release, and is not waited for
    assert Claim(tmp_path).take()


def test_another_process_with_the_number_of_the_owner_is_not_the_owner(tmp_path: Path) -> None:
    leave(tmp_path, replace(Owner.here(), started=Owner.here().started - 1))
    assert not Claim(tmp_path).held()


def test_an_owner_elsewhere_lives_as_long_as_it_is_heard(tmp_path: Path) -> None:
    path = leave(tmp_path, DEAD, age=100)
    assert Claim(tmp_path, stale_s=180).held()
    assert not Claim(tmp_path, stale_s=180).take()
    os.utime(path, (time.time() - 200,) * 2)
    assert not Claim(tmp_path, stale_s=180).held()
    assert Claim(tmp_path, stale_s=180).take()


def test_the_heartbeat_keeps_a_claim_alive(tmp_path: Path) -> None:
    claim, before = Claim(tmp_path, heartbeat_s=0.05), set(threading.enumerate())
    assert claim.take()
    path = tmp_path / "00000001.json"
    os.utime(path, (time.time() - 500,) * 2)
    wait_until(lambda: time.time() - path.stat().st_mtime < 60)
    claim.release()
    wait_until(lambda: set(threading.enumerate()) <= before)  # it may be about to touch the file for the last time
    os.utime(path, (time.time() - 500,) * 2)
    time.sleep(0.3)
    assert time.time() - path.stat().st_mtime > 400


def test_a_damaged_claim_is_waited_for_and_then_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "00000001.json"
    path.write_text("")
    assert Claim(tmp_path, stale_s=60).held()
    os.utime(path, (time.time() - 100,) * 2)
    assert Claim(tmp_path, stale_s=60).take()


def test_only_the_last_few_claims_are_kept(tmp_path: Path) -> None:
    for _ in range(10):
        claim = Claim(tmp_path)
        assert claim.take()
        claim.release()
    assert len(list(tmp_path.glob("*.json"))) <= 3


def test_a_number_that_has_come_and_gone_is_no_claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(6):
        earlier = Claim(tmp_path)
        assert earlier.take()
        earlier.release()
    slow = Claim(tmp_path)
    seen = iter([2, 6])  # it looked when the second claim was the last, and is now to make the third
    monkeypatch.setattr(slow, "_last", lambda: next(seen))
    monkeypatch.setattr(slow, "_free", lambda number: True)
    assert not slow.take()
    assert not (tmp_path / "00000003.json").exists()


@pytest.mark.parametrize("call", ["utime", "listdir", "link"])
def test_a_file_system_that_fails_now_and_then_or_has_no_links_costs_no_claim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    real, calls = getattr(os, call), []

    def failing(*arguments: object, **options: object) -> object:
        calls.append(call)
        if call == "link":  # as gcsfuse and SMB refuse it, for good
            raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
        if len(calls) % 3 == 1:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(*arguments, **options)

    monkeypatch.setattr(os, call, failing)
    monkeypatch.setattr("sweep.files.PAUSE_S", 0.001)
    claim = Claim(tmp_path, heartbeat_s=0.02)
    assert claim.take()
    assert not claim.lost()
    path = tmp_path / "00000001.json"
    for _ in range(2):  # the heart goes on after the error
        old = time.time() - 500
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, call, real)
            os.utime(path, (old, old))
        wait_until(lambda: time.time() - path.stat().st_mtime < 60)
    assert not Claim(tmp_path).take()
    claim.release()
    assert Claim(tmp_path).take()


def test_an_owner_that_lost_is_told(tmp_path: Path) -> None:
    first = Claim(tmp_path)
    assert first.take()
    first.check()
    leave(tmp_path, {"released": True})
    assert Claim(tmp_path).take()
    with pytest.raises(LostError):
        first.check()


def test_a_process_in_a_container_is_heard_and_not_looked_for(tmp_path: Path) -> None:
    """It has numbers of its own for processes: here nobody, or somebody else, has its number."""
    code = (
        "import sys, time; from pathlib import Path; from sweep.claim import Claim; "
        "print(Claim(Path(sys.argv[1])).take(), flush=True); time.sleep(600)"
    )
    command = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", sys.executable, "-c", code, str(tmp_path)]
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        if process.stdout.readline() != "True\n":
            pytest.skip(f"no process can have a namespace of its own here: {process.stderr.read()}")
        owner = Claim(tmp_path).owner()
        assert owner is not None
        assert not owner.is_here()
        assert owner.alive() is None
        assert not Claim(tmp_path).take()
        process.kill()
    os.utime(tmp_path / "00000001.json", (time.time() - 200,) * 2)
    assert Claim(tmp_path).take()


def test_a_process_that_the_system_hides_is_not_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave(tmp_path, Owner.here())
    monkeypatch.setattr(module, "_started", lambda pid: 0)  # /proc is mounted with hidepid
    assert Claim(tmp_path).held()
    leave(tmp_path, replace(Owner.here(), started=5), age=500)
    assert not Claim(tmp_path).held()


@pytest.mark.parametrize("change", [{"pid": -1}, {"pid": 0}, {"pid": "1"}, {"pid": 2**70}, {"host": 3}, {"started": None}])
def test_a_claim_that_names_no_process_is_waited_for(tmp_path: Path, change: dict) -> None:
    leave(tmp_path, asdict(Owner.here()) | change)
    assert Claim(tmp_path).held() == ("pid" not in change or change["pid"] != 2**70)
    leave(tmp_path, asdict(Owner.here()) | change, age=500)
    assert not Claim(tmp_path).held()


def test_numbers_go_on_where_the_folder_was_removed(tmp_path: Path) -> None:
    claim = Claim(tmp_path / "claim", after=41)
    assert claim.take()
    assert claim.number == 42


def test_a_reader_that_may_not_write_can_ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave(tmp_path, DEAD, age=100)

    def refused(**options: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(module, "TemporaryFile", refused)
    assert Claim(tmp_path, stale_s=180).held()
    assert not Claim(tmp_path, stale_s=60).held()


def test_one_at_a_time_is_alone(tmp_path: Path) -> None:
    inside, seen = [0], []

    def enter() -> None:
        with alone(tmp_path / "lock"):
            inside[0] += 1
            seen.append(inside[0])
            time.sleep(0.05)
            inside[0] -= 1

    threads = [threading.Thread(target=enter) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [1, 1, 1, 1]
