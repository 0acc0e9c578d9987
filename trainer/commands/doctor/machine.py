"""What backend=neuron needs of a machine: devices, driver, packages, and variables that contradict no run."""

from __future__ import annotations

from collections.abc import Iterator

from trainer.commands.doctor.line import Line
from trainer.trainium.contradictions import contradictions
from trainer.trainium.environment import Job
from trainer.trainium.host import Host
from trainer.trainium.installed import INSTALL_SYSTEM, PACKAGES, WITH_THEM
from trainer.trainium.installed import problems as package_problems
from trainer.trainium.releases import ALLOWED, PINNED, UNVERIFIED, begins, has_kernels, release_of
from trainer.trainium.topology import INSTANCES

RUNTIMES = tuple(".".join(release.runtime.split(".")[:2]) for release in (*ALLOWED, UNVERIFIED))


def examine(host: Host, nodes: int) -> Iterator[Line]:
    """Every line. nodes: of the job that the machine is meant for."""
    yield from _hardware(host, nodes)
    yield from _packages(host)
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
