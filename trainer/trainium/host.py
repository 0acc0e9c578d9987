"""A machine's Trainium hardware and software, read from files and variables: nothing is run or imported."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from trainer.trainium.environment import CACHE, NAMES, cache_directory
from trainer.trainium.installed import found
from trainer.trainium.topology import Instance, instance_of

RUNTIME_PACKAGE = "aws-neuronx-runtime-lib"


@dataclass(frozen=True)
class Host:
    """One machine as detected."""

    instance: str | None = None
    """EC2 instance type; None where DMI has none."""
    devices: int = 0
    """/dev/neuron* nodes: Trainium chips of two cores each."""
    efa: int = 0
    """EFA devices."""
    driver: str | None = None
    """Version of the loaded kernel module."""
    runtime: str | None = None
    """Version of aws-neuronx-runtime-lib by dpkg's records, else None."""
    packages: Mapping[str, str] = field(default_factory=dict)
    """Versions of the Neuron and torch packages, by name."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """Environment variables that the runtime, the compiler or XLA read, as the user set them."""
    cache_filesystem: str = ""
    """Type of the filesystem that would hold the compiler's cache; empty where unknown or S3."""

    @property
    def kind(self) -> Instance | None:
        """The trn1 instance that this machine is, else None."""
        return instance_of(self.instance, self.devices)


def detect(root: Path = Path("/"), environ: Mapping[str, str] = os.environ) -> Host:
    """Inspect this machine. root: of its filesystem, for tests."""
    return Host(
        instance=_text(root / "sys/devices/virtual/dmi/id/product_name"),
        devices=len([p for p in _entries(root / "dev") if re.fullmatch(r"neuron\d+", p)]),
        efa=len([p for p in _entries(root / "sys/class/infiniband") if p.startswith(("efa", "rdmap"))]),
        driver=_text(root / "sys/module/neuron/version"),
        runtime=installed_version(_text(root / "var/lib/dpkg/status") or "", RUNTIME_PACKAGE),
        packages=found(),
        variables={name: environ[name] for name in NAMES if name in environ},
        cache_filesystem=filesystem_of(cache_directory(environ) or CACHE, _text(root / "proc/mounts") or ""),
    )


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip() or None
    except OSError:
        return None


def _entries(path: Path) -> list[str]:
    try:
        return [entry.name for entry in path.iterdir()]
    except OSError:
        return []


def installed_version(status: str, package: str) -> str | None:
    """A package's version in dpkg's status file, if it is installed."""
    for record in status.split("\n\n"):
        fields = dict(re.findall(r"^(Package|Version|Status): (.*)$", record, re.MULTILINE))
        if fields.get("Package") == package and fields.get("Status", "").endswith(" installed"):
            return fields.get("Version")
    return None


def filesystem_of(directory: str, mounts: str) -> str:
    """The type of the filesystem that holds a directory, by /proc/mounts; empty for S3 and where nothing matches."""
    if "://" in directory:
        return ""
    path, best, kind = str(Path(directory).resolve()), "", ""
    for line in mounts.splitlines():
        fields = line.split()
        if len(fields) < 3:
            continue
        point = fields[1].rstrip("/")
        if (path == point or path.startswith(f"{point}/")) and len(point) >= len(best):
            best, kind = point, fields[2]
    return kind
