"""Tables that wandb exported. It has four ways to export runs:

- The runs page's CSV: a row per run, columns Name, State and others in capitals, then configuration and summary by their keys.
- A dump of the API: a row per run, `config` and `summary` nested, as JSON or, in a CSV, as Python prints them.
- A chart's CSV: the x axis, and for each run a column "<name> - <metric>", and two more that end in __MIN and __MAX.
- The API itself, as wandb://entity/project, or wandb://entity/project?group=<sweep> for one group of a project.
"""

import ast
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import numpy as np

from sweep.errors import LawError, one_line

if TYPE_CHECKING:
    import pandas as pd

SCHEME = "wandb://"
NESTED = ("config", "summary")  # of a run of the API; a key in both has the value of the summary
FINISHED = ("done", "finished")  # states of a run: in our store, and at wandb
CURVE_POINTS = 2000  # sampled from each history
TIMEOUT_S = 60
NOT_A_NUMBER = re.compile(r"(?<=[:\[,(]) *-?(?:nan|inf)(?= *[,\])}])")  # as Python prints them; it cannot parse them


def flatten(frame: "pd.DataFrame") -> "pd.DataFrame":
    """A table of runs that wandb exported, with columns run_id and state, and configuration and summary under dotted keys; any
    other table as it is."""
    import pandas as pd

    if set(NESTED) <= set(frame):
        nested = {name: [_mapping(value) for value in frame[name]] for name in NESTED}
        known: list[dict[str, Any]] = [{**config, **summary} for config, summary in zip(*nested.values(), strict=True)]
        frame = pd.concat([frame.drop(columns=list(NESTED)).reset_index(drop=True), pd.json_normalize(known)], axis=1)
        frame = frame.loc[:, ~frame.columns.duplicated(keep="last")]
    elif not {"Name", "State"} <= set(frame):
        return frame
    capitals = {"Name": "name", "State": "state", "ID": "id"}
    frame = frame.rename(columns={old: new for old, new in capitals.items() if old in frame and new not in frame})
    if "run_id" in frame or "name" not in frame:
        return frame
    # Charts use the names of runs, which need not be unique; a run that was started again has its name twice.
    names = frame["name"].astype(str)
    if "id" not in frame or not names.duplicated().any():
        return frame.assign(run_id=names)
    done = frame["state"].isin(FINISHED) if "state" in frame else pd.Series(True, index=frame.index)
    if names[done].duplicated().any():
        return frame.assign(run_id=frame["id"].astype(str))
    return frame.assign(run_id=names.where(done | ~names.duplicated(keep=False), names + " (" + frame["id"].astype(str) + ")"))


def _mapping(value: object) -> dict[str, Any]:
    """A run's config or summary, which may be text. Raises ValueError if the text is neither JSON nor a Python dictionary."""
    if not isinstance(value, str):
        return value if isinstance(value, dict) else {}
    try:
        read = json.loads(value)
    except ValueError:
        try:
            read = ast.literal_eval(NOT_A_NUMBER.sub(" None", value))
        except (ValueError, SyntaxError) as error:
            raise ValueError(f"config or summary is neither JSON nor a Python dictionary: {value[:60]!r}") from error
    return read if isinstance(read, dict) else {}


def unfold_chart(frame: "pd.DataFrame", columns: Mapping[str, str], source: Path | str) -> "pd.DataFrame | None":
    """A row per point from the CSV of a chart; None if it is another table. The metric is the loss column, or the only metric
    of the chart. Raises LawError if there are several metrics and the loss is not one of them."""
    import pandas as pd

    bounds = re.compile(r"__(MIN|MAX)(\.\d+)?$")
    names = [str(name) for name in frame.columns if " - " in str(name) and not bounds.search(str(name))]
    if not names:
        return None
    # pandas numbers the columns of runs with one name; the line that goes furthest is the run that was not broken off.
    reach = {name: int(np.flatnonzero(frame[name].notna().to_numpy()).max(initial=0)) for name in names}
    found: dict[str, str] = {}
    for name in names:
        once = name.rpartition(".")[0] if re.search(r"\.\d+$", name) and name.rpartition(".")[0] in names else name
        if once not in found or reach[name] > reach[found[once]]:
            found[once] = name
    lines = {name: once.rsplit(" - ", 1) for once, name in found.items()}
    metrics = sorted({metric for _, metric in lines.values()} - {"_step"})
    loss = metrics[0] if len(metrics) == 1 else columns["loss"]
    if loss not in metrics:
        raise LawError(
            "missing_column", f"{source} has the metrics {', '.join(metrics)}: name the loss with columns.curve_loss=…"
        )
    x = str(frame.columns[0])
    parts = [
        pd.DataFrame({columns["run_id"]: run, x: frame[x], columns["loss"]: frame[name]}).dropna()
        for name, (run, metric) in lines.items()
        if metric == loss
    ]
    return pd.concat(parts)


class Project:
    """A project on wandb's server, as wandb://entity/project or wandb://entity/project?group=<group>."""

    def runs(self, source: str) -> "pd.DataFrame":
        """All runs: run_id (wandb's id), name, state, group, configuration and summary. Raises LawError if the address is
        malformed, the server does not answer or refuses, or the project has no runs."""
        import pandas as pd

        keys = {"run_id": "id", "name": "name", "state": "state", "group": "group", "config": "config"}
        with _asking(source):
            found = [
                {name: getattr(run, key) for name, key in keys.items()} | {"summary": run.summary_metrics}
                for run in _runs(source)
            ]
        if not found:
            raise LawError("too_few_runs", f"{source} has no runs; check entity, project and group")
        return flatten(pd.DataFrame(found))

    def points(self, source: str, columns: Mapping[str, str], run_ids: Sequence[str]) -> tuple["pd.DataFrame", bool]:
        """The histories of the runs, as wandb samples them: run_id, tokens (or _step, of runs that did not log tokens) and the
        unsmoothed loss. Raises LawError as `runs`."""
        import pandas as pd

        tokens, loss, rows = columns["tokens"], columns["loss"], []
        with _asking(source):
            for run in _runs(source):
                if run.id in run_ids:
                    keys = [loss, *([tokens] if tokens in run.summary_metrics else [])]
                    points = run.history(keys=keys, samples=CURVE_POINTS, pandas=False)
                    rows += [{columns["run_id"]: run.id, **point} for point in points if point.get(loss) is not None]
        if not rows:
            raise LawError(
                "no_curves", f"{source}: no run of the table has a history of {loss!r}; name its loss with columns.curve_loss=…"
            )
        return pd.DataFrame(rows), True


def _runs(address: str) -> Any:
    """The runs of wandb's API, with their configurations and summaries. Raises LawError, or whatever wandb raises."""
    parts = urlsplit(address)
    path = (parts.netloc + parts.path).strip("/")
    if not re.fullmatch(r"[^/]+/[^/]+", path):
        raise LawError("unreadable", f"{address} is not a project; write wandb://entity/project")
    import wandb

    group = parse_qs(parts.query).get("group")
    return wandb.Api(timeout=TIMEOUT_S).runs(path, filters={"group": group[0]} if group else {}, lazy=False)


@contextmanager
def _asking(address: str) -> Iterator[None]:
    """Raises LawError in place of wandb's errors."""
    try:
        yield
    except (LawError, ModuleNotFoundError):
        raise
    except Exception as error:
        remedy = "check the address, the key (wandb login) and the network, or export a CSV"
        raise LawError("unreadable", f"{address}: {one_line(error)}; {remedy}") from error
