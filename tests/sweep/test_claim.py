"""Claims: one owner at a time, whoever dies, sleeps or races."""

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

from sweep.claim import Claim, Owner
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
