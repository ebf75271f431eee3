"""The parent process of a one-machine cluster's daemons; `one_machine.py` starts it, and it ends with its owner."""

import argparse
import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from one_machine import NODE_STATE, NODES, ClusterError, environment, one_line  # beside this program

START_TIMEOUT_S = 120  # on a machine that has much else to do
PR_SET_CHILD_SUBREAPER = 36


class Keeper:
    """Parent of the daemons, and of every process that outlives them, as slurmd's jobs do by design."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
            raise ClusterError(f"this kernel has no subreapers: {os.strerror(ctypes.get_errno())}")

    def serve(self) -> None:
        """Do "start NAME" and "kill NAME" until the input ends, because the cluster was stopped, or its owner is gone."""
        owner = os.getppid()
        while os.getppid() == owner:  # a child that the owner forked could hold our input open
            if not select.select([sys.stdin], [], [], 0.2)[0]:
                reap()  # jobs that ended; no other process waits for them
                continue
            if not (request := sys.stdin.readline()):
                return
            verb, name = request.split()
            try:
                self.start(name) if verb == "start" else self.kill(name)
                print("ok", flush=True)
            except ClusterError as error:
                print(error, flush=True)

    def start(self, name: str) -> None:
        """Start a daemon, and wait until it answers."""
        if name not in ("munged", "slurmctld", *NODES):
            raise ClusterError(f"no node is called {name}; there are {', '.join(NODES)}")
        if name in self.daemons and self.daemons[name].poll() is None:
            raise ClusterError(f"{name} runs already")
        command, is_up = self.daemon(name)
        with (self.root / "log" / f"{name}.log").open("ab") as log:
            self.daemons[name] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment(self.root / "slurm.conf")
            )
        title = f"the slurmd of {name}" if name in NODES else name
        deadline = time.monotonic() + START_TIMEOUT_S
        while not is_up():
            if (code := self.daemons[name].poll()) is not None:
                raise ClusterError(f"{title} ended with exit code {code}: {self.tail(name)}")
            if time.monotonic() > deadline:
                raise ClusterError(f"{title} is not up after {START_TIMEOUT_S} s: {self.tail(name)}")
            time.sleep(0.05)

    def daemon(self, name: str) -> tuple[list[str], Callable[[], bool]]:
        """How to start a daemon in the foreground, and how to see that it is up."""
        run, conf = self.root / "run", str(self.root / "slurm.conf")
        if name == "munged":
            files = {"socket": run / "munge.socket", "key-file": self.root / "munge.key", "pid-file": run / "munged.pid"}
            files |= {"log-file": self.root / "log" / "munged.log", "seed-file": run / "munged.seed"}
            options = [f"--{option}={path}" for option, path in files.items()]
            return ["munged", "--foreground", "--force", *options], files["socket"].exists
        if name == "slurmctld":
            return ["slurmctld", "-D", "-i", "-f", conf], lambda: self.says("scontrol", "ping").endswith("is UP")
        return ["slurmd", "-D", "-N", name, "-f", conf], lambda: self.node_is_up(name)

    def node_is_up(self, name: str) -> bool:
        """Whether slurmd has written its process id, as it does once it listens, and slurmctld has the node in service. The
        latter alone can be left from before a kill."""
        pid_file = self.root / "run" / f"slurmd-{name}.pid"
        if not pid_file.exists() or pid_file.read_text().strip() != str(self.daemons[name].pid):
            return False
        state = self.says(*NODE_STATE, f"--nodes={name}")
        return state.isalpha() and state not in ("down", "unknown")

    def says(self, *command: str) -> str:
        env = environment(self.root / "slurm.conf")
        return subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True).stdout.strip()

    def tail(self, name: str) -> str:
        return one_line("\n".join((self.root / "log" / f"{name}.log").read_text().splitlines()[-5:])) or "its log is empty"

    def kill(self, name: str) -> None:
        """kill -9 of a node's daemon."""
        if name not in NODES or name not in self.daemons:
            raise ClusterError(f"no node is called {name}; there are {', '.join(NODES)}")
        self.daemons[name].kill()
        self.daemons[name].wait()


def reap() -> bool:
    """Collect the children that have ended; False if there is no child at all."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
        return True
    return False


def kill_descendants() -> None:
    """Kill every descendant. A process whose parent dies becomes a child of this one, so this ends when no child is left."""
    while reap():
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                # "pid (name) state parent …", where the name may contain anything
                if int(stat.read_text().rpartition(")")[2].split()[1]) == os.getpid():
                    os.kill(int(stat.parent.name), signal.SIGKILL)
        time.sleep(0.01)


def keep(root: Path, keep_files: bool) -> None:
    """Serve, then kill all processes and remove the files, unless they are to be kept."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    try:
        Keeper(root).serve()
    except ClusterError as error:
        print(error, flush=True)
    finally:
        kill_descendants()
        if not keep_files:
            shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("root", type=Path)
    parser.add_argument("--keep-files", action="store_true")
    arguments = parser.parse_args()
    keep(arguments.root, arguments.keep_files)
