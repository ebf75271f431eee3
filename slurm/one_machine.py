#!/usr/bin/env python3
"""A real Slurm cluster of two nodes on this machine, for tests and to try `cluster=slurm` on a laptop.

    python slurm/one_machine.py      # prints `export SLURM_CONF=…` for another shell; Ctrl-C stops it

There are two nodes with two CPUs and two pretended GPUs each, and the partitions `main` and `high`. A job in `high` preempts
jobs in `main`: they get the signal they asked for and ten seconds of grace, and are requeued. All files are in one short
directory and the ports are free ones, so several clusters can run at once, also beside the machine's own Slurm. Root is not
needed. On Debian:

    apt-get install --no-install-recommends slurmctld slurmd slurm-client munge
"""

import argparse
import os
import pwd
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

KEEPER = Path(__file__).with_name("keeper.py")
NODES = ("n1", "n2")
BINARIES = ("munged", "slurmctld", "slurmd", "sinfo", "sbatch", "scontrol")
PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])
MAX_ROOT_LENGTH = 50  # a Unix socket's path has at most 107 characters, and slurmd puts its own under its spool directory

# For Debian 12's Slurm 22.05 and Debian 13's 24.11. No cgroups, accounting or mail, so that it runs in a container.
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
# A node that does not answer is down after about fifteen seconds, not minutes.
SlurmdTimeout=5
MessageTimeout=5
# The nodes have what is written here, whatever the machine has.
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
# Nothing here uses cgroups, but slurmd loads a plugin for them; only this one needs neither systemd nor a mounted hierarchy.
CGROUP_CONF = "CgroupPlugin=cgroup/v1\n"

NODE_STATE = ("sinfo", "--noheader", "--partition=main", "--format=%T")


class ClusterError(RuntimeError):
    """The cluster cannot do what was asked; the message says why, on one line."""


def why_not() -> str:
    """Why no cluster can be started on this machine, or "" if one can."""
    missing = [name for name in BINARIES if shutil.which(name, path=PATH) is None]
    return f"Slurm is not installed: no {', '.join(missing)}" if missing else ""


class OneMachineCluster:
    """A Slurm cluster of two nodes, between `start()` and `stop()` or in a `with` block.

    The daemons are children of a keeper process (keeper.py). When the keeper is told to stop, or when this process is gone,
    even if it was killed, it kills the daemons and every job, and removes the directory.

    Args:
        root: a short path for the files, which are kept at the end; by default a fresh /tmp/is-…, which is removed.

    Attributes:
        root: the directory: slurm.conf, log/, state/ and spool directories.
        conf: its slurm.conf.
        environment: in which Slurm's commands talk to this cluster: that of this process, with SLURM_CONF and none of
            Slurm's other variables.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = root.absolute() if root else Path("/tmp") / f"is-{secrets.token_hex(4)}"
        self.conf = self.root / "slurm.conf"
        self.environment = environment(self.conf)
        self._keep_files = root is not None
        self._keeper: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start all daemons, and return when both nodes are idle."""
        if reason := why_not():
            raise ClusterError(reason)
        if len(str(self.root)) > MAX_ROOT_LENGTH:
            raise ClusterError(f"{self.root} is too long for Unix sockets; at most {MAX_ROOT_LENGTH} characters")
        write_files(self.root)
        # In a session of its own, so that a Ctrl-C in this terminal reaches neither the keeper nor a daemon.
        self._keeper = subprocess.Popen(
            [sys.executable, str(KEEPER), str(self.root), *(["--keep-files"] if self._keep_files else [])],
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
        """Kill the daemons and every job, and return when all are gone."""
        if self._keeper is not None:
            self._keeper.communicate()  # closes its input, which is what it waits for
            self._keeper = None

    def kill_node(self, name: str) -> None:
        """kill -9 of a node's slurmd. About fifteen seconds later Slurm marks the node as down and requeues its jobs. Their
        processes go on, as on a node without network, until its slurmd is back and ends them for Slurm."""
        self._ask("kill", name)

    def start_node(self, name: str) -> None:
        """Start the slurmd of a node that was killed, and return when the node is in service again."""
        self._ask("start", name)

    def run(self, *command: str) -> str:
        """The stripped output of one of Slurm's commands in this cluster. Raises ClusterError with its message if it fails."""
        done = subprocess.run(command, env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode:
            raise ClusterError(f"{' '.join(command)}: {one_line(done.stderr) or f'exit code {done.returncode}'}")
        return done.stdout.strip()

    def node_state(self, name: str) -> str:
        """Slurm's state of a node: "idle", "mixed", "allocated" or "down", with a "*" while it does not answer."""
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
    """This process's environment with `conf` for Slurm, and without other variables that Slurm reads."""
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
    """Free ports, below the range of outgoing connections: the port of a node that is down must stay free."""
    with ExitStack() as held:
        ports: list[int] = []
        while len(ports) < number:
            port = random.randrange(10_000, 32_768)
            with suppress(OSError):
                held.enter_context(socket.socket()).bind(("127.0.0.1", port))
                ports.append(port)
    return ports


def main() -> int:
    parser = argparse.ArgumentParser(description="A Slurm cluster of two nodes on this machine, until Ctrl-C.")
    parser.add_argument(
        "--root", type=Path, help="a short path for its files, which are then kept (default: a fresh /tmp/is-…)"
    )
    arguments = parser.parse_args()
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
