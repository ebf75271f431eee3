"""Run directories, who owns them, and the tables collected from them."""

from sweep.store.runs import RunDirectory, Store

__all__ = ["RunDirectory", "Store"]
