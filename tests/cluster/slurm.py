"""A Slurm of this machine: munged, slurmctld and several slurmd, as root, in a directory of its own.

Debian's packages slurmctld, slurmd, slurm-client and munge; nothing of the system's own Slurm or munge is touched.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from tests.harness import free_port

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "srun", "scontrol")
CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# cred_expire: how long a job that was requeued waits, too; 120 s by default.
AuthInfo=socket={root}/munge/socket,cred_expire=5
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool-%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/%n.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=1,sched_interval=2,bf_interval=5
ReturnToService=2
SlurmdTimeout=8
SlurmctldTimeout=8
InactiveLimit=0
KillWait=15
MinJobAge=300
JobRequeue=1
{nodes}
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str | None:
    """Why there can be no such Slurm here; None where there can."""
    if absent := [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]:
        return f"{', '.join(absent)} are not installed (apt-get install slurmctld slurmd slurm-client munge)"
    return None if os.geteuid() == 0 else "slurmd starts its steps as root"


def _path() -> str:
    return f"{os.environ['PATH']}:/usr/sbin"


class Slurm:
    """Started by its constructor; ``close`` ends every process of it."""

    def __init__(self, root: Path, nodes: int) -> None:
        self.root, self.names = root, [f"n{number}" for number in range(1, nodes + 1)]
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        for name in ("munge", "state", *(f"spool-{name}" for name in self.names)):
            (root / name).mkdir(mode=0o755)
        lines = [
            f"NodeName={name} NodeHostname={socket.gethostname()} NodeAddr=127.0.0.1 Port={free_port()} CPUs=2"
            for name in self.names
        ]
        conf = root / "slurm.conf"
        host = socket.gethostname()
        text = CONF.format(host=host, port=free_port(), root=root, nodes="\n".join(lines))
        conf.write_text(text, encoding="utf-8")
        self.environment = {"SLURM_CONF": str(conf), "PATH": _path()}
        self._start_munge()
        self._start("slurmctld", "slurmctld", "-D", "-i")
        for name in self.names:
            self.start_node(name)
        self._wait_until_up()

    def _start_munge(self) -> None:
        directory = self.root / "munge"
        key = directory / "key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        files = {name: directory / name for name in ("socket", "pid-file", "log-file", "seed-file")}
        options = [f"--{name}={path}" for name, path in files.items()]
        self._start("munged", "munged", "--foreground", "--force", f"--key-file={key}", *options)
        deadline = time.monotonic() + 20
        while not files["socket"].exists():
            assert time.monotonic() < deadline, "munged does not start"
            time.sleep(0.05)

    def _start(self, name: str, *command: str) -> None:
        log = open(self.root / f"{name}.out", "ab")  # noqa: SIM115 - the daemon's, as long as it lives
        self._daemons[name] = subprocess.Popen(
            command, env={**os.environ, **self.environment}, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        log.close()

    def start_node(self, name: str) -> None:
        """Start a node's slurmd."""
        self._start(name, "slurmd", "-D", "-N", name)

    def _wait_until_up(self) -> None:
        deadline = time.monotonic() + 60
        while self.run("sinfo", "--noheader", "--states=idle", "--format=%D", check=False).strip() != str(
            len(self.names)
        ):
            assert time.monotonic() < deadline, self.run("sinfo", "--long", check=False)
            time.sleep(0.2)

    def run(self, *command: str, check: bool = True) -> str:
        """What one of Slurm's commands prints."""
        done = subprocess.run(
            command, env={**os.environ, **self.environment}, capture_output=True, text=True, timeout=60, check=False
        )
        assert not check or done.returncode == 0, done.stderr
        return done.stdout

    def lose(self, name: str) -> None:
        """A node goes away: its slurmd, and all that runs on it."""
        self._end(name)
        for pid in self._running_on(name):
            _kill(pid)

    def close(self) -> None:
        """End it, and what is left of its jobs."""
        for name in list(self._daemons):
            self._end(name)
        for name in self.names:
            for pid in self._running_on(name):
                _kill(pid)

    def _end(self, name: str) -> None:
        daemon = self._daemons.pop(name)
        daemon.kill()
        daemon.wait(10)

    def _running_on(self, name: str) -> list[int]:
        """Processes of a node's jobs, by their environment; and the slurmstepd above them, which outlives slurmd."""
        here = {f"SLURMD_NODENAME={name}", f"SLURM_CONF={self.environment['SLURM_CONF']}"}
        found = set()
        for process in Path("/proc").glob("[0-9]*"):
            try:
                own = set((process / "environ").read_text(errors="replace").split("\0"))
                parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
                above = Path("/proc", parent, "comm").read_text().strip()
            except OSError:
                continue
            if here <= own:
                found |= {int(process.name), *([int(parent)] if above == "slurmstepd" else [])}
        return sorted(found)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


if __name__ == "__main__":
    why = missing()
    if why is not None:
        print(f"make test-slurm: {why}")
    raise SystemExit(0 if why is None else 2)
