"""Training the runs that a sweep misses: on this machine, through Slurm, or as the ranks of one run.

`launchers` is the interface that other rooms use. A new launcher is one module here with a subclass of `Launcher`, and one
yaml in conf/cluster/ that names it. No module here imports torch at the top: commands that train nothing import them too, and
a worker process must first set its number of threads.
"""

from sweep import claim
from sweep.launch import launchers

claim.batch_systems = lambda: launchers.registered().values()
