"""Checkpoints, whole and damaged."""

import hashlib
import json
import logging
from pathlib import Path

import pytest
import torch

from sweep.claim import Claim, LostError
from sweep.errors import InputError
from sweep.files import SEAL
from sweep.store.manifest import read_manifest
from sweep.train.checkpoint import load_checkpoint, save_checkpoint


def owned(directory: Path) -> Claim:
    claim = Claim(directory / "claim")
    assert claim.take()
    return claim


def filled(directory: Path, *steps: int, claim: Claim | None = None) -> Path:
    claim = claim or owned(directory)
    for step in steps:
        save_checkpoint(directory, step, {"step": step, "weight": torch.full((4,), float(step))}, claim)
    return directory


def checkpoint(directory: Path, step: int) -> Path:
    return directory / f"claim-00000001-step-000000000{step}.pt"


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    filled(tmp_path, 1, 2, 3)
    assert [entry["step"] for entry in read_manifest(tmp_path)] == [2, 3]
    assert sorted(path.name for path in tmp_path.glob("*.pt")) == [checkpoint(tmp_path, step).name for step in (2, 3)]
    state = load_checkpoint(tmp_path)
    assert state is not None
    assert state["step"] == 3
    assert torch.equal(state["weight"], torch.full((4,), 3.0))


def test_none_is_none(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path) is None


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "bit":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif how == "truncated":
        path.write_bytes(content[:-100])
    elif how == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()


@pytest.mark.parametrize("how", ["bit", "truncated", "empty", "missing"])
def test_a_damaged_one_falls_back_with_a_warning(tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture) -> None:
    filled(tmp_path, 1, 2)
    damage(checkpoint(tmp_path, 2), how)
    with caplog.at_level(logging.WARNING):
        state = load_checkpoint(tmp_path)
    assert state is not None
    assert state["step"] == 1
    assert "trying the one before" in caplog.text


@pytest.mark.parametrize("how", ["bit", "missing"])
def test_all_damaged_is_refused(tmp_path: Path, how: str) -> None:
    filled(tmp_path, 1, 2)
    for step in (1, 2):
        damage(checkpoint(tmp_path, step), how)
    with pytest.raises(InputError, match="is sound"):
        load_checkpoint(tmp_path)


def test_a_pickle_bomb_is_inert(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "boom",))

    torch.save({"bomb": Bomb()}, tmp_path / "step-0000000001.pt")
    digest = hashlib.sha256((tmp_path / "step-0000000001.pt").read_bytes()).hexdigest()
    entry = {"step": 1, "file": "step-0000000001.pt", "sha256": digest}
    (tmp_path / "manifest.json").write_text(json.dumps({"checkpoints": [entry]}))
    with pytest.raises(InputError, match="is sound"):
        load_checkpoint(tmp_path)
    assert not (tmp_path / "boom").exists()


def given_up(claim: Claim) -> Claim:
    """The claim of who takes over from an owner that was given up for dead."""
    claim._path(claim.number).write_text('{"released": true}')
    return owned(claim.directory.parent)


def test_a_former_owner_touches_nothing(tmp_path: Path) -> None:
    first = owned(tmp_path)
    filled(tmp_path, 1, 2, claim=first)
    second = given_up(first)
    filled(tmp_path, 3, claim=second)
    assert [entry["step"] for entry in read_manifest(tmp_path)] == [2, 3]  # one is the former owner's
    filled(tmp_path, 4, claim=second)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert all(name.startswith("claim-00000002") for name in before)
    with pytest.raises(LostError):
        filled(tmp_path, 5, claim=first)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_checkpoints_without_a_claim_in_their_names_are_read_and_replaced(tmp_path: Path) -> None:
    filled(tmp_path, 1)
    old = tmp_path / "step-0000000001.pt"
    checkpoint(tmp_path, 1).rename(old)
    digest = hashlib.sha256(old.read_bytes()).hexdigest()
    (tmp_path / "claim-00000001-manifest.json").unlink()
    (tmp_path / "manifest.json").write_text(json.dumps({"checkpoints": [{"step": 1, "file": old.name, "sha256": digest}]}))
    state = load_checkpoint(tmp_path)
    assert state is not None
    assert state["step"] == 1
    (tmp_path / "claim" / "00000001.json").unlink()
    filled(tmp_path, 2, 3)
    assert not old.exists()
    assert not (tmp_path / "manifest.json").exists()


@pytest.mark.parametrize(
    "entry",
    [
        {"file": "claim-00000001-step-0000000001.pt"},  # of another step
        {"step": 1},
        {"file": "/etc/passwd"},
        {"file": "../claim-00000001-step-0000000002.pt"},
        {"file": ["claim-00000001-step-0000000002.pt"]},
        {"sha256": None},
        {"step": "2"},
    ],
)
@pytest.mark.parametrize("sealed", [True, False])
def test_a_manifest_that_names_something_else_is_refused(tmp_path: Path, entry: dict, sealed: bool) -> None:
    filled(tmp_path, 1, 2)
    path = tmp_path / "claim-00000001-manifest.json"
    written = json.loads(path.read_text())
    written["checkpoints"][-1] |= entry
    if not sealed:
        del written[SEAL]
    path.write_text(json.dumps(written))
    with pytest.raises(InputError, match="was changed" if sealed else "is damaged"):
        load_checkpoint(tmp_path)


def test_a_checkpoint_under_the_name_of_another_step_is_passed_over(tmp_path: Path) -> None:
    filled(tmp_path, 1, 2)
    checkpoint(tmp_path, 2).write_bytes(checkpoint(tmp_path, 1).read_bytes())
    path = tmp_path / "claim-00000001-manifest.json"
    written = json.loads(path.read_text())
    written["checkpoints"][1]["sha256"] = written["checkpoints"][0]["sha256"]
    del written[SEAL]
    path.write_text(json.dumps(written))
    state = load_checkpoint(tmp_path)
    assert state is not None
    assert state["step"] == 1


@pytest.mark.parametrize("content", ["[]", "{}", '{"checkpoints": 3}', '{"checkpoints": [3]}', "\ud800", "{"])
def test_a_manifest_of_another_type_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.json").write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(InputError, match="is damaged"):
        load_checkpoint(tmp_path)
