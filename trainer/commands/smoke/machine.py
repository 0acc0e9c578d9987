"""Verdicts on the machine under the smoke test: devices, packages, driver. scripts/doctor.py looks at more."""

from __future__ import annotations

from trainer.commands.smoke.page import Line, judged
from trainer.trainium.host import Host
from trainer.trainium.releases import ALLOWED, PINNED, begins, release_of
from trainer.trainium.topology import CORES_OF_A_DEVICE, CORES_OF_A_NODE

PRETENDED = Host(
    "trn1.32xlarge",
    CORES_OF_A_NODE // CORES_OF_A_DEVICE,
    driver=PINNED.driver,
    runtime=PINNED.runtime,
    packages=PINNED.constrained(),
)
"""A machine with the pinned release, for a dry run."""


def lines(host: Host) -> list[Line]:
    """Verdicts stricter than the doctor's: all packages and the driver must be of one release."""
    release = release_of(host.packages)
    names = [name for name in PINNED.packages if name in host.packages]
    packages = ", ".join(f"{name} {host.packages[name]}" for name in names) or "none of them"
    sdks = " or ".join(release.sdk for release in ALLOWED)
    driver = (release or PINNED).driver
    cores = host.devices * CORES_OF_A_DEVICE
    return [
        judged("devices", cores == CORES_OF_A_NODE, f"{host.devices}, {cores} cores", f"{CORES_OF_A_NODE} cores"),
        judged("packages", release is not None, packages, f"those of Neuron SDK {sdks} (docs/trainium.md)"),
        judged(
            "driver",
            host.driver is not None and begins(host.driver, driver),
            host.driver or "none is loaded",
            f"{driver}, of the same release",
        ),
    ]
