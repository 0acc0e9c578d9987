"""The releases of the Neuron SDK that this project runs on: the one table of versions. No torch.

constraints-neuron*.txt, the extras of pyproject.toml and docs/trainium.md repeat it, and a test keeps them equal;
checks of installed packages read it. Source of every version: src/helperscripts/n2-manifest.json of GitHub's
aws-neuron/aws-neuron-sdk, the entries for trn1. It names no torch: torch-neuronx 2.9.0.* goes with torch 2.9.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

INDEX = "https://pip.repos.neuron.amazonaws.com"
"""AWS's public index. The same names on plain PyPI are placeholders."""

PLACEHOLDERS: Mapping[str, str] = {
    "neuronx-cc": "1.0.post1",
    "torch-neuronx": "1.0",
    "neuronx-distributed": "0.1",
    "neuronx-distributed-training": "1.0",
    "libneuronxla": "1.0",
}
"""Versions of the empty packages under these names on plain PyPI, checked in November 2026."""

TORCH: Mapping[str, str] = {"torch": "2.9.1", "torch-xla": "2.9.0"}
"""The last generation for XLA training, and what every commit is tested with on CPU (constraints.txt)."""

ASKED = ("neuronx-cc", "torch-neuronx", "neuronx-distributed")
"""What the extras ask for by name; the rest comes as their dependencies, at the versions of the constraints file."""


@dataclass(frozen=True)
class Release:
    """One release of the Neuron SDK."""

    sdk: str
    date: str
    """ISO, of the release notes."""
    packages: Mapping[str, str]
    """Dotted beginnings of the versions that count as this release, its patches included."""
    pip: Mapping[str, str]
    """Python packages from AWS's index, exact versions. AWS's wheels add a local label (+...), which == ignores."""
    apt: Mapping[str, str]
    """Driver, runtime and tools. Driver and runtime go together: never update one of them alone."""
    python: tuple[str, ...]
    """Minor versions that all of ``pip`` support."""
    extra: str
    """The extra of pyproject.toml that pins ``pip``."""
    constraints: str
    """The constraints file in the repository's root."""
    efa: str = "1.47"
    """EFA installer that the release names."""

    @property
    def driver(self) -> str:
        """Version of the kernel driver."""
        return self.apt["aws-neuronx-dkms"]

    @property
    def runtime(self) -> str:
        """Version of the runtime library."""
        return self.apt["aws-neuronx-runtime-lib"]

    def constrained(self) -> dict[str, str]:
        """What the constraints file pins, torch included."""
        return {**TORCH, **self.pip}

    def fits(self, installed: Mapping[str, str]) -> bool:
        """Whether those of this release's packages that are installed have its versions."""
        return all(begins(installed[n], start) for n, start in self.packages.items() if n in installed)


PINNED = Release(
    sdk="2.28.1",
    date="2026-03-13",
    packages={
        "neuronx-cc": "2.23.6484",
        "torch-neuronx": "2.9.0.2.12.22436",
        "neuronx-distributed": "0.17.26814",
        "libneuronxla": "2.2.15515",
    },
    pip={
        "neuronx-cc": "2.23.6484.0",
        "torch-neuronx": "2.9.0.2.12.22436",
        "neuronx-distributed": "0.17.26814",
        "libneuronxla": "2.2.15515.0",
        "nki": "0.2.0",
    },
    apt={
        "aws-neuronx-dkms": "2.26.10.0",
        "aws-neuronx-collectives": "2.30.59.0",
        "aws-neuronx-runtime-lib": "2.30.51.0",
        "aws-neuronx-tools": "2.28.23.0",
    },
    python=("3.10", "3.11", "3.12"),
    extra="neuron",
    constraints="constraints-neuron.txt",
)
"""The release that AWS tells XLA trainers to stay on (announce-maintenance-nxdt-nxd-core-training.rst)."""

NEXT = Release(
    sdk="2.29.1",
    date="2026-05-01",
    packages={
        "neuronx-cc": "2.24",
        "torch-neuronx": "2.9.0.2.13",
        "neuronx-distributed": "0.18",
        "libneuronxla": "2.2.16408",
    },
    pip={
        "neuronx-cc": "2.24.8799.0",
        "torch-neuronx": "2.9.0.2.13.26312",
        "neuronx-distributed": "0.18.27753",
        "libneuronxla": "2.2.16408.0",
        "nki": "0.3.0",
    },
    apt={
        "aws-neuronx-dkms": "2.27.4.0",
        "aws-neuronx-collectives": "2.31.24.0",
        "aws-neuronx-runtime-lib": "2.31.24.0",
        "aws-neuronx-tools": "2.29.22.0",
    },
    python=("3.10", "3.11", "3.12"),
    extra="neuron-2-29",
    constraints="constraints-neuron-2.29.txt",
)
"""Allowed: its neuronx-distributed has the same training API. From 2.29 on AWS no longer supports XLA training."""

ALLOWED = (PINNED, NEXT)
"""The releases that training runs on."""

UNVERIFIED = Release(
    sdk="2.33.0",
    date="2026-10-19",
    packages={"neuronx-cc": "2.28.7631", "torch-neuronx": "2.9.0.2.15.32035", "libneuronxla": "3.0.10135"},
    pip={"neuronx-cc": "2.28.7631", "torch-neuronx": "2.9.0.2.15.32035", "libneuronxla": "3.0.10135"},
    apt={
        "aws-neuronx-dkms": "2.31.7",
        "aws-neuronx-collectives": "2.35.43",
        "aws-neuronx-runtime-lib": "2.35.30",
    },
    python=(),
    extra="",
    constraints="",
)
"""Not refused, and never tried: its list for trn1 has a torch-neuronx of the XLA family again, but no
neuronx-distributed, so any version of that is taken; no extra installs it."""

TORCHNEURON = (2, 13)
"""The name torch-neuronx is two products: 2.9.* is XLA, for trn1; from this version on it is TorchNeuron, which is
PyTorch-native and for trn2 and trn3 only (AWS's pages of SDK 2.33, read in November 2026)."""
TORCHNEURON_PIN = "torch-neuronx==2.14.3.0"
"""Its newest in SDK 2.33.0 (setup/pytorch/index.html of that version; 2.13.3.0 beside it)."""
LAST_KERNELS = (2, 23)
"""The last compiler (SDK 2.28) whose NKI has kernels for trn1: from 0.3 on, SDK 2.29, NKI does not run on NeuronCore-v2
(aws-neuron-sdk issue 1322)."""


def release_of(installed: Mapping[str, str]) -> Release | None:
    """The allowed or unverified release that is installed; None: none, or parts of several.

    installed: versions by normalised name (PEP 503); all of ASKED have to be there.
    """
    if not all(name in installed for name in ASKED):
        return None
    return next((release for release in (*ALLOWED, UNVERIFIED) if release.fits(installed)), None)


def is_torchneuron(version: str) -> bool:
    """Whether a version of torch-neuronx is of the other product."""
    return minor(version) >= TORCHNEURON


def has_kernels(installed: Mapping[str, str]) -> bool:
    """Whether the installed NKI runs on trn1, by the compiler that it comes with; so where none is installed."""
    compiler = installed.get("neuronx-cc")
    return compiler is None or minor(compiler) <= LAST_KERNELS


def minor(version: str) -> tuple[int, ...]:
    """Major and minor number; what is no number is left out."""
    return tuple(int(part) for part in version.partition("+")[0].split(".")[:2] if part.isdecimal())


def begins(version: str, start: str) -> bool:
    """Whether a version begins with these dotted parts; what follows a + is the build."""
    parts, wanted = version.partition("+")[0].split("."), start.split(".")
    return parts[: len(wanted)] == wanted
