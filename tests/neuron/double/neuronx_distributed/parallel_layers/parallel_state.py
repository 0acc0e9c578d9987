"""Process groups of the axes. Rank order, fastest first: tensor, context, data, pipeline."""

import os
from collections import namedtuple

import torch
import torch.distributed as dist

from ..utils import cpu_mode

ParallelGroups = namedtuple(
    "ParallelGroups", ["tp_groups", "dp_groups", "pp_groups", "ep_model_groups", "ep_data_groups", "cp_groups"]
)


class _Axis:
    """One axis: all its groups, the same list on every rank, and the process group of this rank."""

    def __init__(self, name):
        self._name, self._groups, self._own = name, None, None

    def create(self, groups):
        self._groups = groups
        for ranks in groups:
            mine = dist.get_rank() in ranks
            if cpu_mode():
                group = dist.new_group(ranks, backend="gloo")  # every rank takes part in making every group
            elif mine:
                group = dist.new_group(ranks, pg_options={"xla_pg_options": {"mesh": groups}})
            if mine:
                self._own = group

    def destroy(self):
        self._groups = self._own = None

    def exists(self):
        return self._own is not None

    def replica_groups(self):
        assert self._groups is not None, f"the {self._name} parallel group is not initialized"
        return self._groups

    def group(self, as_list: bool = False):
        if as_list:
            return self.replica_groups()
        assert self._own is not None, f"the {self._name} parallel group is not initialized"
        return self._own

    def size(self):
        return len(self.replica_groups()[0])

    def rank(self):
        return next(ranks.index(dist.get_rank()) for ranks in self.replica_groups() if dist.get_rank() in ranks)

    def neighbour(self, step):
        """Global rank of the one ``step`` further along the axis, around its end."""
        ranks = next(ranks for ranks in self.replica_groups() if dist.get_rank() in ranks)
        return ranks[(self.rank() + step) % len(ranks)]


_WORLD, _TP, _CP, _DP, _PP, _DATA = (
    _Axis(n) for n in ("world", "tensor", "context", "data", "pipeline", "expert data")
)
_ALL = (_WORLD, _TP, _CP, _DP, _PP, _DATA)

get_world_group = _WORLD.group
get_tensor_model_parallel_group, get_tensor_model_parallel_size = _TP.group, _TP.size
get_tensor_model_parallel_rank, get_tensor_model_parallel_replica_groups = _TP.rank, _TP.replica_groups
get_context_model_parallel_group, get_context_model_parallel_size = _CP.group, _CP.size
get_context_model_parallel_rank, get_context_model_parallel_replica_groups = _CP.rank, _CP.replica_groups
get_data_parallel_group, get_data_parallel_size = _DP.group, _DP.size
get_data_parallel_rank, get_data_parallel_replica_groups = _DP.rank, _DP.replica_groups
get_pipeline_model_parallel_group, get_pipeline_model_parallel_size = _PP.group, _PP.size
get_pipeline_model_parallel_rank, get_pipeline_model_parallel_replica_groups = _PP.rank, _PP.replica_groups
get_expert_data_parallel_group, get_expert_data_parallel_size = _DATA.group, _DATA.size
get_expert_data_parallel_rank, get_expert_data_parallel_replica_groups = _DATA.rank, _DATA.replica_groups


def initialize_model_parallel(
    tensor_model_parallel_size=1, pipeline_model_parallel_size=1, context_parallel_size=1,
    expert_model_parallel_size=1, skip_collective_init=False, lnc_size=1, mesh_only=False,
):  # fmt: skip
    """Make the groups, or with ``mesh_only`` just list them. Sizes beyond the world's are cut to it, as NxD's are."""
    if expert_model_parallel_size > 1:
        raise NotImplementedError("the double has no expert parallelism")
    world = dist.get_world_size()
    tp, pp, cp = (
        min(size, world) for size in (tensor_model_parallel_size, pipeline_model_parallel_size, context_parallel_size)
    )
    if world % (tp * pp * cp):
        raise RuntimeError(f"world_size ({world}) is not divisible by tp {tp} x pp {pp} x cp {cp}")
    groups = _groups(_layout(world, tp, cp, pp))
    if mesh_only:
        return groups
    axes = {
        _WORLD: [list(range(world))],
        _TP: groups.tp_groups,
        _DP: groups.dp_groups,
        _PP: groups.pp_groups,
        _DATA: groups.ep_data_groups,
        _CP: groups.cp_groups,
    }
    for axis, ranks in axes.items():
        axis.create(ranks)
    return None


def _layout(world, tp, cp, pp):
    """Global ranks as [pp, dp, cp, tp]."""
    dp = world // (tp * cp * pp)
    ranks = torch.arange(world)
    if tp == 4:  # trn1's topology: the four cores of a group lie a quarter of the node apart
        side = int(os.environ.get("LOCAL_WORLD_SIZE", world)) // tp
        if dp % side or cp > 1:  # where NxD's reshape fails
            raise RuntimeError(f"tp 4 takes no cp (not {cp}) and a dp in multiples of {side} (not {dp})")
        ranks = ranks.reshape(pp, dp // side, tp, side).transpose(-1, -2)
    return ranks.reshape(pp, dp, cp, tp)


def _groups(ranks):
    rows = {axis: ranks.movedim(axis, -1).reshape(-1, ranks.shape[axis]).tolist() for axis in range(4)}
    data = ranks.flatten(1, 2).movedim(1, -1).flatten(0, 1).tolist()
    single = [[rank] for rank in ranks.flatten(1, 2).flatten().tolist()]
    return ParallelGroups(rows[3], rows[1], rows[0], single, data, rows[2])


def get_zero1_sharding_groups():
    """The groups that shard the optimizer: DP x CP, context ranks next to one another."""
    return get_expert_data_parallel_replica_groups()


def model_parallel_is_initialized():
    return _TP.exists() and _DP.exists()


def destroy_model_parallel():
    for axis in _ALL:
        axis.destroy()


def get_tensor_model_parallel_src_rank():
    return next(ranks[0] for ranks in _TP.replica_groups() if dist.get_rank() in ranks)


def get_pipeline_model_parallel_next_rank():
    return _PP.neighbour(1)


def get_pipeline_model_parallel_prev_rank():
    return _PP.neighbour(-1)


def create_pg_with_ranks(ranks):
    """This rank's group of the given pipeline ranks, None where it is not among them. Collective."""
    own = None
    for stages in _PP.replica_groups():
        members = [stages[rank] for rank in ranks]
        group = dist.new_group(members)
        own = group if dist.get_rank() in members else own
    return own


def rmsg(msg):
    """The message with this process's ranks before it."""
    where = "_".join(f"{name}{axis.rank()}" for name, axis in (("pp", _PP), ("tp", _TP), ("dp", _DP), ("cp", _CP)))
    return f"[rank_{dist.get_rank()}_{where}] {msg}"
