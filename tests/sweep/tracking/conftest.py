"""A machine where nobody has logged in to wandb, a server to log in to, and ways to see what it has."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sweep.tracking.wandb_server import KEY, WandbServer, wandb_server


@pytest.fixture(autouse=True)
def no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache"))  # the native engine
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("NETRC", str(home / "netrc"))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    with wandb_server() as running:
        monkeypatch.setenv("WANDB_BASE_URL", running.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        yield running


@pytest.fixture
def overrides(text_file: Path, tmp_path: Path) -> list[str]:
    """A sweep of two runs."""
    data = ["data=text", f"data.paths=[{text_file}]", "data.validation_tokens=4096", "device=cpu", "name=mine"]
    return [*data, f"store={tmp_path}/store", "grid=list", "grid.runs=[{N: 2e3, D: 2e4}, {N: 5e3, D: 2e4}]"]
