"""Run directories as a process would have left them."""

from typing import Any

from sweep.store import RunDirectory


def leave_status(directory: RunDirectory, state: str, **fields: Any) -> None:
    """Make the run's status this one, whatever it was."""
    (directory.path / "status.json").unlink(missing_ok=True)
    with directory.own() as claim:
        assert claim is not None
        directory.write_status(state, claim, **fields)
