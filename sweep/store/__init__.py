"""Run directories, the claims that give a run one owner, and the tables collected from the runs."""

from sweep.store.runs import RunDirectory, Store
