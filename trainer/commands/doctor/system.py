"""What the operating system gives: room on its disks, limits, memory to share, ports, and the Python."""

from __future__ import annotations

import errno
import math
import os
import resource
import shutil
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from trainer.commands.doctor.line import Line
from trainer.trainium.environment import CACHE, ROOT_PORT, cache_directory
from trainer.trainium.torchrun import PORT

OPEN_FILES = {"neuron": 65535, "native": 4096}
"""AWS's own examples raise the limit to it (sdk frameworks/torch/torch-neuronx/api-reference-guide); our own choice."""
CACHE_GIB, RUNS_GIB, SHARED_MEMORY_GIB, PROCESSES = 100, 20, 1, 16384
"""This project's own choices. Disk: compiled graphs of one recipe; logs and a small model's checkpoints (how much a
recipe's take, its start says). Shared memory: libfabric's and torch's workers exchange there; a container's default is
64 MiB. Processes: 32 ranks with the runtime's threads, which count, and as many compilers."""
PYTHONS = {"neuron": ((3, 10), (3, 12)), "native": ((3, 10), (3, 13))}
"""First and last version: pyproject.toml's, and those that AWS has wheels for."""


@dataclass(frozen=True)
class Limits:
    """What the operating system allows."""

    cache_gib: float
    """Free where compiled graphs go."""
    runs_gib: float
    """Free where runs go."""
    runs_error: str
    """Why no file can be written there; empty where one can."""
    open_files: int
    processes: float
    locked_memory: float
    """Bytes that a process may keep from being paged out, which EFA needs of what it sends; inf: no limit."""
    shared_memory_gib: float
    """Size of /dev/shm."""
    ephemeral: tuple[int, int]
    """First and last port that it gives to whoever asks for any."""
    reserved: str
    """Ports that it keeps out of that range, as the kernel writes them: 41000,44000-44010."""
    taken: tuple[int, ...] = ()
    """Of the ports that a launch needs, those that another process has."""
    python: tuple[int, int] = (3, 12)


def ports_of(backend: str) -> dict[int, str]:
    """The ports that a launch needs on its first node, and who meets there."""
    runtime = {ROOT_PORT: "the Neuron runtime's first meeting"} if backend == "neuron" else {}
    return {PORT: "torchrun's rendezvous", **runtime}


def limits(runs: Path, backend: str, environ: Mapping[str, str] = os.environ, root: Path = Path("/")) -> Limits:
    """Ask the operating system. runs: the directory for runs. root: where its filesystem begins, for tests."""
    ports = root / "proc/sys/net/ipv4"
    first, last = (int(n) for n in (_read(ports / "ip_local_port_range") or "32768 60999").split())
    cache = Path(cache_directory(environ) or CACHE)
    return Limits(
        cache_gib=_free_gib(cache),
        runs_gib=_free_gib(runs),
        runs_error=_write_error(runs),
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        processes=_limit(resource.RLIMIT_NPROC),
        locked_memory=_limit(resource.RLIMIT_MEMLOCK),
        shared_memory_gib=shutil.disk_usage("/dev/shm").total / 2**30 if Path("/dev/shm").is_dir() else 0.0,
        ephemeral=(first, last),
        reserved=_read(ports / "ip_local_reserved_ports"),
        # Within a launch the ports are the launch's own.
        taken=() if "WORLD_SIZE" in environ else tuple(port for port in ports_of(backend) if _is_taken(port)),
        python=sys.version_info[:2],
    )


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _limit(kind: int) -> float:
    soft = resource.getrlimit(kind)[0]
    return math.inf if soft == resource.RLIM_INFINITY else soft


def _nearest(path: Path) -> Path:
    """The directory itself, or the one that would get it."""
    path = path.absolute()
    return next(there for there in (path, *path.parents) if there.is_dir())


def _free_gib(path: Path) -> float:
    return shutil.disk_usage(_nearest(path)).free / 2**30


def _write_error(directory: Path) -> str:
    """Try with a file that is gone again: permissions say little on a network's or a read-only file system."""
    trial = _nearest(directory) / f".doctor-{os.getpid()}"
    try:
        trial.write_bytes(b"x")
    except OSError as error:
        return error.strerror or str(error)
    finally:
        with suppress(OSError):
            trial.unlink(missing_ok=True)
    return ""


def _is_taken(port: int) -> bool:
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as torch's store does
        try:
            trial.bind(("", port))
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False


def examine(here: Limits, backend: str, nodes: int, runs: Path, cache: str = CACHE) -> Iterator[Line]:
    """Every line. nodes: of the job that the machine is meant for. cache: where compiled graphs go."""
    first, last = PYTHONS[backend]
    versions = f"{first[0]}.{first[1]} to {last[0]}.{last[1]}"
    remedy = (
        f"python3.12 -m venv .venv, then make setup: {'AWS has no wheels for it' if backend == 'neuron' else 'torch'}"
    )
    yield Line("python", ".".join(map(str, here.python)), versions, first <= here.python <= last, remedy)
    if backend == "neuron" and "://" not in cache:
        room = f"{CACHE_GIB} GiB for {cache}"
        yield Line("disk", _gib(here.cache_gib), room, here.cache_gib >= CACHE_GIB, "a larger root volume")
    room = f"{RUNS_GIB} GiB, and writing"
    found = f"cannot write: {here.runs_error}" if here.runs_error else _gib(here.runs_gib)
    fine = here.runs_gib >= RUNS_GIB and not here.runs_error
    yield Line(f"runs in {runs}", found, room, fine, "run.root=<a directory on a larger disk that you may write to>")
    yield from _limits(here, backend, nodes)
    yield from _ports(here, backend)


def _limits(here: Limits, backend: str, nodes: int) -> Iterator[Line]:
    files, least = here.open_files, OPEN_FILES[backend]
    remedy = f"ulimit -n {least}; for good: nofile in /etc/security/limits.conf"
    yield Line("ulimit -n", str(files), str(least), files >= least, remedy)
    remedy = f"ulimit -u {PROCESSES}; for good: nproc in /etc/security/limits.conf; a container: --pids-limit"
    yield Line("ulimit -u", _number(here.processes), str(PROCESSES), here.processes >= PROCESSES, remedy)
    remedy = "mount -o remount,size=1G /dev/shm; a container: --shm-size 1g, or an emptyDir of medium Memory"
    shared, wanted = here.shared_memory_gib, f"{SHARED_MEMORY_GIB} GiB"
    yield Line("/dev/shm", f"{shared:.2f} GiB", wanted, shared >= SHARED_MEMORY_GIB, remedy)
    if nodes > 1 and backend == "neuron":
        remedy = "memlock unlimited in /etc/security/limits.conf; a container: --ulimit memlock=-1"
        found = _number(here.locked_memory)
        yield Line("ulimit -l", found, "unlimited, for EFA", here.locked_memory == math.inf, remedy)


def _ports(here: Limits, backend: str) -> Iterator[Line]:
    for port, use in ports_of(backend).items():
        free = not here.ephemeral[0] <= port <= here.ephemeral[1] or port in reserved_ports(here.reserved)
        found = "reserved" if free else f"given to anybody ({here.ephemeral[0]}-{here.ephemeral[1]})"
        ports = f"{here.reserved},{port}".lstrip(",")
        remedy = f"sudo sysctl -w net.ipv4.ip_local_reserved_ports={ports}"
        if port in here.taken:
            free, found, remedy = False, "taken", f"find its holder with ss -ltnp 'sport = :{port}', and end that job"
        yield Line(f"port {port}", found, f"kept for {use}", free, remedy)


def reserved_ports(text: str) -> set[int]:
    """The ports that the kernel's list names."""
    ports: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        ports.update(range(int(first), int(last or first) + 1))
    return ports


def _gib(amount: float) -> str:
    return f"{amount:.0f} GiB free"


def _number(limit: float) -> str:
    return "unlimited" if limit == math.inf else str(int(limit))
