"""What each command does; each takes the composed sweep and returns the exit code."""

DONE, SOME_RUNS_FAILED, BAD_INPUT = 0, 1, 2
