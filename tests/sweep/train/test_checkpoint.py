"""Checkpoints, whole and damaged."""

import logging
import pickle
from pathlib import Path

import pytest
import torch

from sweep.errors import InputError
from sweep.train.checkpoint import load_checkpoint, read_manifest, save_checkpoint


def filled(directory: Path, *steps: int) -> Path:
    for step in steps:
        save_checkpoint(directory, step, {"step": step, "weight": torch.full((4,), float(step))})
    return directory


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    filled(tmp_path, 1, 2, 3)
    assert [entry["step"] for entry in read_manifest(tmp_path)] == [2, 3]
    assert sorted(path.name for path in tmp_path.glob("*.pt")) == ["step-0000000002.pt", "step-0000000003.pt"]
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
    damage(tmp_path / "step-0000000002.pt", how)
    with caplog.at_level(logging.WARNING):
        state = load_checkpoint(tmp_path)
    assert state is not None
    assert state["step"] == 1
    assert "trying the one before" in caplog.text


@pytest.mark.parametrize("how", ["bit", "missing"])
def test_all_damaged_is_refused(tmp_path: Path, how: str) -> None:
    filled(tmp_path, 1, 2)
    for step in (1, 2):
        damage(tmp_path / f"step-000000000{step}.pt", how)
    with pytest.raises(InputError, match="every checkpoint"):
        load_checkpoint(tmp_path)


def test_a_pickle_bomb_is_inert(tmp_path: Path) -> None:
    import hashlib
    import json

    class Bomb:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "boom",))

    torch.save({"bomb": Bomb()}, tmp_path / "step-0000000001.pt")
    digest = hashlib.sha256((tmp_path / "step-0000000001.pt").read_bytes()).hexdigest()
    entry = {"step": 1, "file": "step-0000000001.pt", "sha256": digest}
    (tmp_path / "manifest.json").write_text(json.dumps({"checkpoints": [entry]}))
    with pytest.raises(pickle.UnpicklingError):
        load_checkpoint(tmp_path)
    assert not (tmp_path / "boom").exists()
