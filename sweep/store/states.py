"""States that a run's status names."""

WAITING, RUNNING, INTERRUPTED, FAILED, DIVERGED, DONE = "waiting", "running", "interrupted", "failed", "diverged", "done"
FINAL_STATES = (DONE, DIVERGED)  # running it again would give the same
ALL_STATES = (WAITING, RUNNING, INTERRUPTED, FAILED, DIVERGED, DONE)
