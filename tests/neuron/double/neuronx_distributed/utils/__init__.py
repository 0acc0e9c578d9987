"""The switch between gloo and the XLA device."""

import os


def cpu_mode() -> bool:
    """Whether collectives go over gloo (NXD_CPU_MODE=1) and not over an XLA device."""
    return int(os.environ.get("NXD_CPU_MODE", "0")) > 0
