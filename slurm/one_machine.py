#!/usr/bin/env python3
"""A real Slurm cluster of two nodes on this machine, for tests and to try `cluster=slurm` on a laptop.

    python slurm/one_machine.py      # prints `export SLURM_CONF=…` for another shell; Ctrl-C stops it

Two nodes of two CPUs and two pretended GPUs each, and the partitions `main` and `high`. A job in `high` preempts those in
`main`, which get the signal they asked for, ten seconds of grace, and are requeued. All files are in one short directory and
ports are free ones, so several clusters can run at once, and beside a Slurm of the machine. Root is not needed. On Debian:

    apt-get install --no-install-recommends slurmctld slurmd slurm-client munge
"""

import argparse
import ctypes
import os
import pwd
import random
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

NODES = ("n1", "n2")
BINARIES = ("munged", "slurmctld", "slurmd", "sinfo", "sbatch", "scontrol")
PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])
START_TIMEOUT_S = 120  # on a machine that has much else to do
LONGEST_ROOT = 50  # a Unix socket's path has at most 107 characters, and slurmd puts its own under its spool directory
PR_SET_CHILD_SUBREAPER = 36

# For Debian 12's Slurm 22.05 and Debian 13's 24.11. No cgroups, accounting or mail, so that a container will do.
SLURM_CONF = """
ClusterName=onemachine
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
# A requeued job waits until its credential expires; 5 s is the least Slurm accepts.
AuthInfo=socket={root}/run/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool-%n
SlurmctldPidFile={root}/run/slurmctld.pid
SlurmdPidFile={root}/run/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
MailProg=/bin/true
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,sched_min_interval=0,bf_interval=2,batch_sched_delay=0
SlurmctldParameters=preempt_send_user_signal
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
ReturnToService=2
MaxArraySize=10001
MinJobAge=300
KillWait=5
# A node that does not answer is down after some fifteen seconds, not minutes.
SlurmdTimeout=5
MessageTimeout=5
# The nodes are what is written here, whatever the machine has.
SlurmdParameters=config_overrides
GresTypes=gpu
DefMemPerCPU=512
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=UNLIMITED DefaultTime=60 PriorityTier=1 PreemptMode=REQUEUE GraceTime=10
PartitionName=high Nodes=ALL MaxTime=UNLIMITED DefaultTime=60 PriorityTier=10 PreemptMode=OFF
"""
NODE = (
    "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} "
    "CPUs=2 Boards=1 SocketsPerBoard=1 CoresPerSocket=2 ThreadsPerCore=1 RealMemory=8000 Gres=gpu:2"
)
# Slurm wants one character device per GPU, and every machine has these two.
GRES_CONF = "NodeName={nodes} Name=gpu File=/dev/null,/dev/zero\n"
# Nothing here uses cgroups, but slurmd starts the plugin, and only this one asks for neither systemd nor a mounted hierarchy.
CGROUP_CONF = "CgroupPlugin=cgroup/v1\n"

NODE_STATE = ("sinfo", "--noheader", "--partition=main", "--format=%T")


class ClusterError(RuntimeError):
    """The cluster cannot do what was asked; the message says why on one line."""


def why_not() -> str:
    """Why no cluster can be started on this machine, or "" where one can."""
    missing = [name for name in BINARIES if shutil.which(name, path=PATH) is None]
    return f"Slurm is not installed: no {', '.join(missing)}" if missing else ""


class OneMachineCluster:
    """A Slurm cluster of two nodes, between `start()` and `stop()` or in a `with` block.

    The daemons are children of a keeper, a process of their own that this one only talks to. When it is told to stop, or
    when this process is gone, killed or not, the keeper kills the daemons and every job, and removes the directory.

    Args:
        root: a short path for the files, which are then kept; by default a fresh /tmp/is-…, removed at the end.

    Attributes:
        root: the directory: slurm.conf, log/, state/ and spool directories.
        conf: its slurm.conf.
        environment: for Slurm's commands to talk to this cluster: that of this process, with SLURM_CONF and no other of
            Slurm's variables.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = root.absolute() if root else Path("/tmp") / f"is-{secrets.token_hex(4)}"
        self.conf = self.root / "slurm.conf"
        self.environment = environment(self.conf)
        self._keep_files = root is not None
        self._keeper: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start all daemons and return when both nodes are idle."""
        if reason := why_not():
            raise ClusterError(reason)
        if len(str(self.root)) > LONGEST_ROOT:
            raise ClusterError(f"{self.root} is too long for Unix sockets; at most {LONGEST_ROOT} characters")
        write_files(self.root)
        # In a session of its own, so that a Ctrl-C in this terminal reaches neither the keeper nor a daemon.
        self._keeper = subprocess.Popen(
            [sys.executable, __file__, "--keeper", "--root", str(self.root), *(["--keep-files"] if self._keep_files else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            for daemon in ("munged", "slurmctld", *NODES):
                self._ask("start", daemon)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Kill the daemons and every job, and return when none is left."""
        if self._keeper is not None:
            self._keeper.communicate()  # closes its input, which is what it waits for
            self._keeper = None

    def kill_node(self, name: str) -> None:
        """kill -9 of a node's slurmd. Some fifteen seconds later Slurm takes the node for down and requeues its jobs; their
        processes run on, as on a node whose network is gone, until its slurmd is back and Slurm has them ended."""
        self._ask("kill", name)

    def start_node(self, name: str) -> None:
        """Start the slurmd of a node that was killed, and return when the node is in service again."""
        self._ask("start", name)

    def run(self, *command: str) -> str:
        """The output of one of Slurm's commands in this cluster, stripped; ClusterError with its complaint where it fails."""
        done = subprocess.run(command, env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode:
            raise ClusterError(f"{' '.join(command)}: {one_line(done.stderr) or f'exit code {done.returncode}'}")
        return done.stdout.strip()

    def node_state(self, name: str) -> str:
        """What Slurm says of a node: "idle", "mixed", "allocated", "down", with a "*" while it does not answer."""
        return self.run(*NODE_STATE, f"--nodes={name}")

    def job_states(self, job: str) -> list[str]:
        """The states of a job or of an array's tasks: "PENDING", "RUNNING", "COMPLETED"; until five minutes after its end."""
        return self.run("squeue", "--noheader", "--states=all", "--array", "--format=%T", f"--jobs={job}").split()

    def _ask(self, verb: str, daemon: str) -> None:
        if self._keeper is None:
            raise ClusterError("the cluster is not started")
        assert self._keeper.stdin is not None
        assert self._keeper.stdout is not None
        with suppress(BrokenPipeError):
            print(verb, daemon, file=self._keeper.stdin, flush=True)
        if (answer := self._keeper.stdout.readline().strip()) != "ok":
            raise ClusterError(answer or "the cluster's keeper is gone")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()


def environment(conf: Path) -> dict[str, str]:
    """This process's environment with `conf` for Slurm, and without what a job or a user's defaults have set for Slurm."""
    foreign = ("SLURM_", "SBATCH_", "SALLOC_", "SRUN_", "SINFO_", "SQUEUE_", "SCANCEL_")
    return {k: v for k, v in os.environ.items() if not k.startswith(foreign)} | {"SLURM_CONF": str(conf), "PATH": PATH}


def one_line(text: str) -> str:
    return " | ".join(line for line in text.splitlines() if line)


def write_files(root: Path) -> None:
    """The directories, the key and the configuration of a cluster under `root`."""
    host = socket.gethostname().partition(".")[0]
    port, *node_ports = free_ports(1 + len(NODES))
    nodes = "\n".join(NODE.format(name=name, host=host, port=p) for name, p in zip(NODES, node_ports, strict=True))
    root.mkdir(parents=True, exist_ok=True)
    root.chmod(0o755)  # munged refuses a socket that others could not reach
    for name in ("run", "log", "state", *(f"spool-{node}" for node in NODES)):
        (root / name).mkdir(exist_ok=True)
    (root / "munge.key").touch(mode=0o600)
    (root / "munge.key").write_bytes(os.urandom(128))
    (root / "slurm.conf").write_text(
        SLURM_CONF.format(host=host, port=port, user=pwd.getpwuid(os.getuid()).pw_name, root=root, nodes=nodes)
    )
    (root / "gres.conf").write_text(GRES_CONF.format(nodes=",".join(NODES)))
    (root / "cgroup.conf").write_text(CGROUP_CONF)


def free_ports(number: int) -> list[int]:
    """Ports nobody listens on, below those that outgoing connections take: a node that is down must find its own again."""
    with ExitStack() as held:
        ports: list[int] = []
        while len(ports) < number:
            port = random.randrange(10_000, 32_768)
            with suppress(OSError):
                held.enter_context(socket.socket()).bind(("127.0.0.1", port))
                ports.append(port)
    return ports


# The keeper, a process of its own ----------------------------------------------------------------------------------------


class Keeper:
    """Parent of the daemons, and heir of every process they leave behind: slurmd's jobs outlive it by design."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
            raise ClusterError(f"this kernel has no subreapers: {os.strerror(ctypes.get_errno())}")

    def serve(self) -> None:
        """Answer "start NAME" and "kill NAME" until the input ends: the cluster was stopped, or its owner is gone."""
        owner = os.getppid()
        while os.getppid() == owner:  # a child that the owner forked could hold our input open
            if not select.select([sys.stdin], [], [], 0.2)[0]:
                reap()  # jobs that ended; nobody else waits for them
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
        """Start a daemon and wait until it does its work."""
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
        """Whether slurmd listens, which is when it writes its process id, and slurmctld counts on it, which it may still do
        from before a kill."""
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
    """Collect the children that have ended; false where no child is left at all."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
        return True
    return False


def kill_descendants() -> None:
    """End every process that descends from this one: whose parent dies becomes our child, until there are no more."""
    while reap():
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                # "pid (name) state parent …", where the name may hold anything
                if int(stat.read_text().rpartition(")")[2].split()[1]) == os.getpid():
                    os.kill(int(stat.parent.name), signal.SIGKILL)
        time.sleep(0.01)


def keep(root: Path, keep_files: bool) -> None:
    """The keeper's life."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    try:
        Keeper(root).serve()
    except ClusterError as error:
        print(error, flush=True)
    finally:
        kill_descendants()
        if not keep_files:
            shutil.rmtree(root, ignore_errors=True)


def main() -> int:
    parser = argparse.ArgumentParser(description="A Slurm cluster of two nodes on this machine, until Ctrl-C.")
    parser.add_argument(
        "--root", type=Path, help="a short path for its files, which are then kept (default: a fresh /tmp/is-…)"
    )
    parser.add_argument("--keeper", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--keep-files", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.keeper:
        keep(arguments.root, arguments.keep_files)
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stops as with Ctrl-C
    try:
        with OneMachineCluster(arguments.root) as cluster:
            print(f"export SLURM_CONF={cluster.conf}", flush=True)
            print("Two nodes are up. Paste the line above into another shell; Ctrl-C here stops them.", file=sys.stderr)
            signal.pause()
    except ClusterError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
