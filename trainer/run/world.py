"""What this process knows about its launch and machine before anything heavy is imported."""

from __future__ import annotations

import importlib.util
import netrc
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse

from trainer.errors import ConfigError, Problem
from trainer.run.tasks import Tasks
from trainer.trainium.host import Host, detect
from trainer.trainium.topology import CORES_OF_A_NODE

ATTEMPT = "TRAINER_ATTEMPT"
"""Environment variable with scripts/launch.py's name for one attempt, of the several that --max-restarts allows."""


def attempt() -> str:
    """A name shared by all workers of one attempt, and different in every attempt.

    torch keeps one store over all attempts, so workers could read addresses of workers that died. Plain torchrun only
    counts attempts, and the counts may differ between nodes: on several nodes all attempts have one name.
    """
    counted = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") if os.environ.get("GROUP_WORLD_SIZE") == "1" else "0"
    return os.environ.get(ATTEMPT, f"attempt-{counted}")


@dataclass(frozen=True)
class World:
    """The processes of this launch, as torchrun describes them, and the machine under this one."""

    size: int = 1
    rank: int = 0
    trainium: bool = False
    """A Neuron device is present."""
    cpu_bf16: bool = False
    """The CPU multiplies BF16 matrices in hardware."""
    wandb_account: bool = False
    """A W&B login was found."""
    launched: int | None = None
    """The real number of processes, where ``size`` is only pretended (trainer.rules.derived.pretended)."""
    local_rank: int | None = None
    """This process's rank on its node, by torchrun; None without torchrun."""
    local_size: int | None = None
    """Processes of this node, by torchrun; None without torchrun."""
    host: Host | None = None
    """This machine's Trainium hardware and software; None without a Neuron device."""
    neuron_on_cpu: bool = False
    """The user set PJRT_DEVICE=CPU and neuronx-distributed is installed: backend=neuron runs without a device."""

    tasks: Tasks | None = None
    """A scheduler started this process as one of several that do not know of each other."""

    @property
    def leads_node(self) -> bool:
        """Whether this is the first process of its node."""
        return (self.rank if self.local_rank is None else self.local_rank) == 0

    @property
    def per_node(self) -> int:
        """Processes of this node; without torchrun, at most those of a full trn1 node."""
        return self.local_size or min(self.size, CORES_OF_A_NODE)

    @classmethod
    def from_environment(cls) -> World:
        """Read torchrun's variables; without torchrun, one process. Raises ConfigError for impossible values."""
        size, rank = _count("WORLD_SIZE", 1), _count("RANK", 0)
        if size > 1 and "MASTER_ADDR" not in os.environ:
            rule = "torchrun sets it together with MASTER_ADDR, which is missing"
            raise ConfigError(Problem("WORLD_SIZE", size, rule, "launch with torchrun, or unset WORLD_SIZE and RANK"))
        if size > 1 and not 0 < (port := _count("MASTER_PORT", 0)) < 1 << 16:
            rule = "torchrun sets it: the port of the store at MASTER_ADDR, 1 to 65535"
            raise ConfigError(Problem("MASTER_PORT", port, rule, "launch with torchrun, or unset WORLD_SIZE and RANK"))
        if size < 1 or not 0 <= rank < size:
            rule = f"a rank of the {size} processes that WORLD_SIZE names"
            raise ConfigError(Problem("RANK", rank, rule, "launch with torchrun, or unset WORLD_SIZE and RANK"))
        trainium = Path("/dev/neuron0").exists()
        return cls(
            size=size,
            rank=rank,
            trainium=trainium,
            local_rank=_count("LOCAL_RANK", 0) if "LOCAL_RANK" in os.environ else None,
            local_size=_count("LOCAL_WORLD_SIZE", 0) or None,
            host=detect() if trainium else None,
            neuron_on_cpu=not trainium and os.environ.get("PJRT_DEVICE") == "CPU" and has_module("neuronx_distributed"),
            cpu_bf16=cpu_has_bf16(),
            wandb_account=has_wandb_account(),
            tasks=Tasks.from_environment(),
        )


def _count(variable: str, default: int) -> int:
    text = os.environ.get(variable, str(default))
    if not text.isdecimal():
        raise ConfigError(
            Problem(variable, text, "a number, set by torchrun", f"launch with torchrun, or unset {variable}")
        )
    return int(text)


def has_module(name: str) -> bool:
    """Whether Python finds a top-level module, without importing it."""
    try:
        return importlib.util.find_spec(name) is not None
    except ValueError:  # imported already, without a __spec__
        return True


def has_wandb_account() -> bool:
    """Whether W&B's client would find a key: in the environment, or where `wandb login` leaves it."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def cpu_has_bf16() -> bool:
    """Whether the CPU has BF16 matrix or dot-product instructions (x86: AVX512_BF16 or AMX; Arm: BF16)."""
    flags = set(_cpu_field("flags", "Features").split())
    wanted = {"bf16"} if platform.machine() == "aarch64" else {"avx512_bf16", "amx_bf16"}
    return bool(flags & wanted)


def cpu_model() -> str:
    """The CPU's name, or else its architecture."""
    return _cpu_field("model name") or platform.processor() or platform.machine()


def _cpu_field(*names: str) -> str:
    """The first value of a field of /proc/cpuinfo; empty where there is none."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in names:
            return value.strip()
    return ""
