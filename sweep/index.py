"""A table of every run in a store, for whoever wants one; it is made from the runs' own files, and never read back."""

from pathlib import Path
from typing import Any

from sweep.errors import InputError
from sweep.files import temporary_beside
from sweep.store import Store


def write_index(store: Store) -> Path:
    """<store>/index.parquet: run_id, state, step, steps, N, D, seed, precision, val_loss, updated and, if the run's files are
    damaged, why. Runs that are being written are shown as they are at this moment.

    Raises:
        InputError: if it cannot be written.
    """
    import pandas as pd

    rows = [_row(store, path.name) for path in sorted((store.root / "runs").glob("*")) if path.is_dir()]
    path = store.root / "index.parquet"
    temporary = temporary_beside(path)
    try:
        pd.DataFrame(rows, columns=list(COLUMNS)).to_parquet(temporary, index=False)
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}); choose a store that can") from error
    finally:
        temporary.unlink(missing_ok=True)
    return path


COLUMNS = ("run_id", "state", "step", "steps", "N", "D", "seed", "precision", "val_loss", "updated", "error")


def _row(store: Store, run_id: str) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(COLUMNS) | {"run_id": run_id}
    try:
        directory = store.run(run_id)
        run = directory.config()
        row |= {"steps": run.steps, "N": run.N, "D": run.D, "seed": run.seed, "precision": run.precision}
        status = directory.status()
        row |= {key: status[key] for key in ("state", "step", "val_loss", "updated", "error") if key in status}
    except InputError as error:  # one damaged run must not hide the others
        row["error"] = str(error)
    return row
