"""The runs of a sweep: their identity, the grid that makes them, the written plan, and estimates of cost and time."""
