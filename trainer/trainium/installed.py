"""The installed Neuron packages, and whether they fit together. importlib.metadata only: nothing is imported.

Which versions belong together: trainer.trainium.releases.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib import metadata

from trainer.errors import Problem
from trainer.trainium.releases import (
    ALLOWED,
    ASKED,
    INDEX,
    PINNED,
    PLACEHOLDERS,
    TORCH,
    TORCHNEURON_PIN,
    UNVERIFIED,
    begins,
    is_torchneuron,
)

PACKAGES = tuple(PINNED.packages)
WITH_THEM = {name: ".".join(version.split(".")[:2]) for name, version in TORCH.items()}
"""The torch versions that the wheels of every allowed release are built for."""
SDK_OF_COMPILER = {"2.21": "2.26", "2.22": "2.27", "2.25": "2.30", "2.26": "2.31", "2.27": "2.32"}
"""Other releases, by the compiler's version, for messages."""
INSTALL = f"pip install --extra-index-url {INDEX} " + " ".join(
    f'"{name}=={PINNED.packages[name]}{".*" if name == "neuronx-cc" else ""}"' for name in ASKED
)
INSTALL_SYSTEM = f"aws-neuronx-dkms={PINNED.driver}* aws-neuronx-runtime-lib={PINNED.runtime}*"


def found(version: Callable[[str], str] = metadata.version) -> dict[str, str]:
    """Versions of the installed Neuron and torch packages."""
    here = {}
    for name in (*PACKAGES, *WITH_THEM):
        try:
            here[name] = version(name)
        except metadata.PackageNotFoundError:
            continue
    return here


def placeholders(packages: Mapping[str, str]) -> Iterator[Problem]:
    """A problem for each installed placeholder package of plain PyPI."""
    for name, empty in PLACEHOLDERS.items():
        if packages.get(name) == empty:
            rule = f"Neuron's own package: {empty} is the empty one of that name on the plain Python index"
            yield Problem(name, empty, rule, INSTALL)


def another_product(packages: Mapping[str, str], instance: str | None = None) -> Iterator[Problem]:
    """A problem where torch-neuronx, one name for two products, is not XLA's on trn1. instance: the machine's type."""
    version, newer = packages.get("torch-neuronx"), (instance or "").startswith(("trn2", "trn3"))
    if version is None or not (newer or is_torchneuron(version)):
        return
    if not newer:
        rule = (
            f"{PINNED.packages['torch-neuronx']}: from 2.13 on the name is another product, TorchNeuron, for trn2 and"
            " trn3 only; trn1 trains with XLA, which is torch-neuronx 2.9.*"
        )
        yield Problem("torch-neuronx", version, rule, INSTALL)
    elif is_torchneuron(version):
        rule = f"2.9.*, on trn1: backend=neuron is XLA. TorchNeuron (2.13 and later) is the product of this {instance}"
        yield Problem("torch-neuronx", version, rule, f"keep it here; on trn1: {INSTALL}")
    else:
        rule = f"on {instance} TorchNeuron, 2.13 and later: 2.9.* is the old product, XLA, which is for trn1"
        remedy = f"{TORCHNEURON_PIN} is its own; rent trn1 for backend=neuron, and there {INSTALL}"
        yield Problem("torch-neuronx", version, rule, remedy)


def problems(packages: Mapping[str, str], instance: str | None = None) -> Iterator[Problem]:
    """Every reason why the installed packages cannot train on trn1. instance: the machine's type, where it is known."""
    other = list(placeholders(packages)) or list(another_product(packages, instance))
    yield from other
    told = {problem.key for problem in other}
    for name in PACKAGES:
        if name not in packages:
            yield Problem(name, None, f"installed: SDK {PINNED.sdk} has {PINNED.packages[name]}", INSTALL)
    for name, start in WITH_THEM.items():
        if not begins(packages.get(name, ""), start):
            rule = f"{start}: the Neuron packages for training are built for it"
            yield Problem(name, packages.get(name), rule, f'pip install "{name}=={start}.*"')
    real = {name: packages[name] for name in PACKAGES if name in packages and name not in told}
    if real and not any(release.fits(real) for release in (*ALLOWED, UNVERIFIED)):
        yield _unfit(real)


def _unfit(real: Mapping[str, str]) -> Problem:
    """Names a package that is not of the release that most of them are of."""
    nearest = max(ALLOWED, key=lambda release: sum(begins(v, release.packages[n]) for n, v in real.items()))
    name, version = next((n, v) for n, v in real.items() if not begins(v, nearest.packages[n]))
    compiler = ".".join(real.get("neuronx-cc", "").split(".")[:2])
    sdk = f" (the compiler is of SDK {SDK_OF_COMPILER[compiler]})" if compiler in SDK_OF_COMPILER else ""
    rule = (
        f"{nearest.packages[name]}, of Neuron SDK {nearest.sdk}{sdk}: the packages are of one release, and XLA training"
        f" is supported up to 2.29; pinned is {PINNED.sdk}"
    )
    return Problem(name, version, rule, INSTALL)
