"""Running what a sweep misses: `sweep.launch.local` is a pool of processes on this machine."""
