"""What scripts/doctor.py prints: for each thing that training on trn1 needs, found, wanted, verdict and remedy."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trainer.trainium.contradictions import contradictions
from trainer.trainium.environment import CACHE, ROOT_PORT, Job, cache_directory
from trainer.trainium.host import Host
from trainer.trainium.installed import INSTALL_SYSTEM, PACKAGES, WITH_THEM
from trainer.trainium.installed import problems as package_problems
from trainer.trainium.releases import ALLOWED, PINNED, UNVERIFIED, begins, has_kernels, release_of
from trainer.trainium.topology import INSTANCES

PORTS = {29500: "torchrun's rendezvous", ROOT_PORT: "the Neuron runtime's first meeting"}
RUNTIMES = tuple(".".join(release.runtime.split(".")[:2]) for release in (*ALLOWED, UNVERIFIED))
OPEN_FILES = 65535
"""AWS's own examples raise the limit to it (sdk frameworks/torch/torch-neuronx/api-reference-guide)."""
DISK_GIB = 100
"""This project's own choice: compiled graphs of one recipe, and room for logs; checkpoints go elsewhere."""


@dataclass(frozen=True)
class Line:
    """One thing that was looked at."""

    what: str
    found: str
    wanted: str
    fine: bool
    remedy: str = ""

    def __str__(self) -> str:
        text = f"{'ok  ' if self.fine else 'MEND'}  {self.what:<28} {self.found:<28} wanted: {self.wanted}"
        return text if self.fine else f"{text}\n        remedy: {self.remedy}"


@dataclass(frozen=True)
class Limits:
    """What the operating system allows."""

    free_gib: float
    open_files: int
    ephemeral: tuple[int, int]
    """First and last port that it gives to whoever asks for any."""
    reserved: str
    """Ports that it keeps out of that range, as the kernel writes them: 41000,44000-44010."""


def limits(root: Path = Path("/")) -> Limits:
    """Ask the operating system. root: where its filesystem begins, for tests."""
    ports = root / "proc/sys/net/ipv4"
    first, last = (int(n) for n in (_read(ports / "ip_local_port_range") or "32768 60999").split())
    return Limits(
        shutil.disk_usage("/var/tmp" if Path("/var/tmp").is_dir() else "/").free / 2**30,
        resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        (first, last),
        _read(ports / "ip_local_reserved_ports"),
    )


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def examine(host: Host, here: Limits, nodes: int) -> Iterator[Line]:
    """Every line. nodes: of the job that the machine is meant for."""
    yield from _hardware(host, nodes)
    yield from _packages(host)
    yield from _system(host, here)
    wrong = list(contradictions(Job(nodes=nodes, runtime=host.runtime), host.variables, host.cache_filesystem))
    for problem in wrong:
        yield Line(problem.key, str(problem.value), problem.rule, False, problem.remedy)
    if not wrong:
        yield Line("variables", f"{len(host.variables)} set", "none that contradicts a run", True)


def _hardware(host: Host, nodes: int) -> Iterator[Line]:
    kind, names = host.kind, ", ".join(i.name for i in INSTANCES if nodes == 1 or i.efa)
    fits = kind is not None and (nodes == 1 or kind.efa > 0)
    yield Line("instance", host.instance or "unknown", names, fits, "rent one of them; elsewhere backend=native trains")
    devices = kind.cores // 2 if kind is not None else 16
    remedy = f"sudo apt-get install {INSTALL_SYSTEM}; sudo modprobe neuron; a container gets /dev/neuron* by --device"
    yield Line("Neuron devices", f"{host.devices} /dev/neuron*", str(devices), host.devices == devices, remedy)
    fine = host.driver is not None and _major(host.driver) >= _major(PINNED.driver)
    yield Line("driver", host.driver or "not loaded", f"{PINNED.driver} or newer", fine, remedy)
    known = host.runtime is None or any(begins(host.runtime, start) for start in RUNTIMES)
    wanted = f"{PINNED.runtime} (SDK {PINNED.sdk}), or 2.31 (SDK 2.29)"
    found = host.runtime or "unknown (no dpkg)"
    yield Line("runtime library", found, wanted, known, f"sudo apt-get install {INSTALL_SYSTEM}")
    if nodes > 1:
        efa = kind.efa if kind is not None else 8
        remedy = "launch with all EFA interfaces, install aws-efa-installer (docs/topology.md)"
        yield Line("EFA devices", str(host.efa), str(efa), 0 < efa <= host.efa, remedy)


def _major(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())


def _packages(host: Host) -> Iterator[Line]:
    wrong = {problem.key: problem for problem in package_problems(host.packages, host.instance)}
    for name in (*PACKAGES, *WITH_THEM):
        wanted = PINNED.packages.get(name) or f"{WITH_THEM[name]}.*"
        problem = wrong.get(name)
        remedy = f"{problem.remedy}   ({problem.rule})" if problem else ""
        yield Line(name, host.packages.get(name, "not installed"), wanted, problem is None, remedy)
    release = release_of(host.packages)
    found = f"SDK {release.sdk}" if release else "no supported set"
    if release is UNVERIFIED:
        found += " (unverified)"
    wanted = f"{PINNED.sdk} (2.29 allowed, {UNVERIFIED.sdk} unverified)"
    yield Line("Neuron SDK", found, wanted, release is not None, "see the packages above")
    if release is not None:
        found = "NKI" if has_kernels(host.packages) else "off: this NKI has no kernels for trn1"
        yield Line("flash attention", found, f"NKI, which ends with SDK {PINNED.sdk}; plain attention does too", True)


def _system(host: Host, here: Limits) -> Iterator[Line]:
    where = cache_directory(host.variables) or CACHE
    room = here.free_gib >= DISK_GIB
    yield Line("disk", f"{here.free_gib:.0f} GiB free", f"{DISK_GIB} GiB for {where}", room, "a larger root volume")
    files = here.open_files
    yield Line("ulimit -n", str(files), str(OPEN_FILES), files >= OPEN_FILES, f"ulimit -n {OPEN_FILES}")
    for port, use in PORTS.items():
        free = not here.ephemeral[0] <= port <= here.ephemeral[1] or port in reserved_ports(here.reserved)
        taken = f"given to anybody ({here.ephemeral[0]}-{here.ephemeral[1]})"
        ports = f"{here.reserved},{port}".lstrip(",")
        remedy = f"sudo sysctl -w net.ipv4.ip_local_reserved_ports={ports}"
        yield Line(f"port {port}", "reserved" if free else taken, f"kept for {use}", free, remedy)


def reserved_ports(text: str) -> set[int]:
    """The ports that the kernel's list names."""
    ports: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        ports.update(range(int(first), int(last or first) + 1))
    return ports
