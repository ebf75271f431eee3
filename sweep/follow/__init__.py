"""Following a sweep: status, the live view, and the progress bars of a launch."""
