"""neuronx-distributed's process groups, brought up once a process and checked against our axes."""

from __future__ import annotations

from datetime import timedelta

import torch.distributed as dist
import torch_xla.runtime as xr
from neuronx_distributed.parallel_layers import parallel_state
from neuronx_distributed.utils import cpu_mode

from trainer.backends.common.peers import Peers
from trainer.errors import ConfigError, Problem
from trainer.parallel.mesh import Mesh
from trainer.run.world import World

GETTERS = {
    "tp": parallel_state.get_tensor_model_parallel_replica_groups,
    "cp": parallel_state.get_context_model_parallel_replica_groups,
    "dp": parallel_state.get_data_parallel_replica_groups,
    "pp": parallel_state.get_pipeline_model_parallel_replica_groups,
}


def join(mesh: Mesh, peers: Peers | None, timeout: timedelta) -> None:
    """Join the world and make NxD's groups. peers: met already; None: through the launch's variables.

    Raises ConfigError when NxD lays the ranks out in another way than we do: every shard would be someone else's.
    """
    if not dist.is_initialized():
        _join_world(peers or Peers.join(World.from_environment(), timeout.total_seconds()), timeout)
    check_world(mesh)
    parallel_state.initialize_model_parallel(
        tensor_model_parallel_size=mesh.tp,
        pipeline_model_parallel_size=mesh.pp,
        context_parallel_size=mesh.cp,
    )
    check_order(mesh)


def host_group(timeout: timedelta) -> dist.ProcessGroup:
    """A gloo group of all ranks, for the host."""
    group = dist.new_group(backend="gloo", timeout=timeout)
    assert group is not None
    return group


def _join_world(peers: Peers, timeout: timedelta) -> None:
    if not cpu_mode():
        import torch_xla.distributed.xla_backend  # noqa: F401  registers the backend "xla"
    backend = "gloo" if cpu_mode() else "xla"
    dist.init_process_group(backend, store=peers.store, rank=peers.rank, world_size=peers.size, timeout=timeout)


def check_world(mesh: Mesh) -> None:
    """torch_xla's own idea of the world, which its collectives follow, is the launcher's.

    Launched by other means than torchrun, or with PJRT_DEVICE=CPU, each rank would be a world of its own, and every
    collective would do nothing.
    """
    found = (xr.world_size(), xr.global_ordinal())
    if found != (mesh.world, mesh.rank):
        rule = f"torch_xla sees this process as rank {found[1]} of {found[0]}, and the launcher as another"
        remedy = "launch with torchrun (or scripts/launch.py), without PJRT_DEVICE=CPU"
        raise ConfigError(Problem("world", f"rank {mesh.rank} of {mesh.world}", rule, remedy))


def check_order(mesh: Mesh) -> None:
    """Compare NxD's replica groups with the mesh's. NxD clamps sizes silently, and lays TP 4 out in strides."""
    problems = []
    for axis, getter in GETTERS.items():
        theirs = sorted(tuple(int(rank) for rank in group) for group in getter())
        ours = mesh.groups(axis)
        if theirs != ours:
            rule = (
                f"neuronx-distributed groups the ranks along this axis as we do, {ours[:2]}...; it has {theirs[:2]}..."
            )
            remedy = "use another parallel.tp (1, 2, 8 or 32), and a world that tp x pp x cp divides"
            problems.append(Problem(f"parallel.{axis}", mesh.size(axis), rule, remedy))
    if problems:
        raise ConfigError(problems)


def as_lists(groups: list[tuple[int, ...]]) -> list[list[int]]:
    """Replica groups as torch_xla takes them."""
    return [list(group) for group in groups]


def leave() -> None:
    """Forget NxD's groups, then leave the world."""
    if parallel_state.model_parallel_is_initialized():
        parallel_state.destroy_model_parallel()
    if dist.is_initialized():
        dist.destroy_process_group()
