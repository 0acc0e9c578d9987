"""The pipeline's model: traced, cut, and run over microbatches."""

import torch
import torch.distributed as dist
from torch import nn

from ..parallel_layers import parallel_state as ps
from ..parallel_layers.collectives import all_reduce
from ..parallel_layers.grads import bucket_allreduce_gradients
from ..utils import cpu_mode
from ..utils.model_utils import move_model_to_device, reinit_model
from .exchange import Exchange
from .stages import cut, trace


class NxDPPModel(nn.Module):
    """Holds the whole model by name, and this rank's stages of it: stage s lives on rank s % pp.

    pipeline_cuts: the qualified name of each stage's last layer but the last's. output_loss_value_spec: True where the
    forward's result is the loss, or which of its values is. param_init_fn: fills a module's own parameters, for models
    on meta.
    """

    def __init__(
        self, module, transformer_layer_cls=None, num_microbatches=1, virtual_pipeline_size=1,
        output_loss_value_spec=None, return_mb_loss=False, broadcast_and_average_loss=False,
        use_zero1_optimizer=False, use_model_wrapper=False, use_optimizer_wrapper=False, pipeline_cuts=None,
        input_names=None, leaf_module_cls=None, autowrap_functions=None, autowrap_modules=None,
        autowrap_obj_methods=None, tracer_cls=None, param_init_fn=None, trace_file_path=None,
        return_loss_on_cpu=True, deallocate_pipeline_outputs=False, auto_partition=False, fuse_microbatches=False,
        manual_pp_partition=False, manual_pp_stage_partition_fn=None, manual_pp_loss_fn=None, _delay_tracing=False,
        _turn_off_odd_even_scheduler=False, _all_reduce_send_recv=False, _fused_send_recv=False,
        _fused_fwd_bwd=False, _mark_step_before_pp_runtime=True, _mark_step_after_pp_runtime=True,
        _deallocate_send_tensors=True, _use_gloo_for_metadata_comm=False, _debug_mode=False, _debug_pp_size=8,
        _debug_pp_rank=0,
    ):  # fmt: skip
        super().__init__()
        unknown = return_mb_loss, autowrap_obj_methods, auto_partition, manual_pp_partition, _delay_tracing
        if any(unknown) or _debug_mode or tracer_cls not in (None, "torch") or not pipeline_cuts:
            raise NotImplementedError("the double has traced pipelines with explicit cuts alone")
        if transformer_layer_cls is None or input_names is None:
            raise ValueError("NxDPPModel needs transformer_layer_cls and input_names")
        self.original_torch_module = module
        self.num_microbatches, self.virtual_pipeline_size = num_microbatches, virtual_pipeline_size
        self.output_loss_value_spec, self.broadcast_and_average_loss = (
            output_loss_value_spec,
            broadcast_and_average_loss,
        )
        self.use_zero1_optimizer, self.use_optimizer_wrapper = use_zero1_optimizer, use_optimizer_wrapper
        self.input_names, self.param_init_fn = list(input_names), param_init_fn
        self.pipeline_parallel_size = ps.get_pipeline_model_parallel_size()
        self.pipeline_parallel_rank = ps.get_pipeline_model_parallel_rank()
        self.model_moved_to_device = self.shape_traced = False
        leaves = [*(leaf_module_cls or ()), transformer_layer_cls.__name__]
        traced = trace(module, self.input_names, leaves, autowrap_functions or (), autowrap_modules or ())
        self._stages = cut(traced, pipeline_cuts)
        if len(self._stages) != self.pipeline_parallel_size * virtual_pipeline_size:
            raise ValueError(f"{len(self._stages)} stages do not make {virtual_pipeline_size} for each pipeline rank")
        self._local = range(self.pipeline_parallel_rank, len(self._stages), self.pipeline_parallel_size)
        self.local_stage_modules = [self._stages[stage].module for stage in self._local]
        self._exchange = Exchange(num_microbatches)
        self._share_weights()
        local = set(self.local_parameters())
        for parameter in module.parameters():
            if parameter not in local:
                parameter.requires_grad_(False)
        if param_init_fn is not None and not use_model_wrapper:
            self.maybe_materialize_local_module()

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.original_torch_module, name)

    # --- parameters: those of the whole model by name, and this rank's under the same names

    def _share_weights(self):
        """Weights that stages on several ranks hold: a group for each, and a mark on every copy but the first."""
        holders, names = {}, {}
        for stage, part in enumerate(self._stages):
            rank = stage % self.pipeline_parallel_size
            for name, parameter in part.module.named_parameters():
                ranks = holders.setdefault(parameter, [])
                if rank == self.pipeline_parallel_rank:
                    names.setdefault(parameter, name)
                    parameter.shared = bool(ranks) and ranks[0] != rank
                if rank not in ranks:
                    ranks.append(rank)
        self._shared = {}
        for parameter, ranks in holders.items():
            if len(ranks) > 1:
                group = ps.create_pg_with_ranks(ranks)
                if group is not None:
                    self._shared[names[parameter]] = group

    def maybe_materialize_local_module(self):
        if self.param_init_fn is not None:
            for module in self.local_stage_modules:
                reinit_model(module, torch.device("cpu"), self.param_init_fn)

    def move_model_to_device(self):
        """Once; copies of a shared weight take the value of the first stage's."""
        if self.model_moved_to_device:
            return
        self.model_moved_to_device = True
        for module in self.local_stage_modules:
            move_model_to_device(module, self._get_device())
        for name, parameter in self.local_named_parameters():
            if name in self._shared:
                group = self._shared[name]
                dist.broadcast(parameter.data, dist.get_global_rank(group, 0), group)

    def _get_device(self):
        if not cpu_mode():
            raise NotImplementedError("the double's pipeline runs over gloo alone")
        return torch.device("cpu")

    def named_parameters(self, *args, **kwargs):
        return self.original_torch_module.named_parameters(*args, **kwargs)

    def parameters(self, *args, **kwargs):
        return self.original_torch_module.parameters(*args, **kwargs)

    def local_named_modules(self, memo=None, prefix="", remove_duplicate=True):
        for module in self.local_stage_modules:
            yield from module.named_modules(memo, prefix, remove_duplicate)

    def local_modules(self):
        return (module for _, module in self.local_named_modules())

    def local_named_parameters(self, recurse=True):
        for module in self.local_stage_modules:
            yield from module.named_parameters(recurse=recurse)

    def local_parameters(self, recurse=True):
        return (parameter for _, parameter in self.local_named_parameters(recurse))

    def local_named_buffers(self, prefix="", recurse=True):
        for module in self.local_stage_modules:
            yield from module.named_buffers(prefix, recurse)

    def local_buffers(self, recurse=True):
        return (buffer for _, buffer in self.local_named_buffers(recurse=recurse))

    def local_state_dict(self, *args, **kwargs):
        return {k: v for module in self.local_stage_modules for k, v in module.state_dict(*args, **kwargs).items()}

    def load_state_dict(self, state_dict, strict=True):
        for module in self.local_stage_modules:
            own = module.state_dict()
            result = module.load_state_dict({k: v for k, v in state_dict.items() if k in own}, strict)
        return result

    def state_dict(self, *args, **kwargs):
        raise RuntimeError("model.state_dict() is not supported in pipeline mode. Use model.local_state_dict().")

    def forward(self, *args, **kwargs):
        raise RuntimeError("model.forward() is not supported in pipeline mode. Use run_train() and run_eval().")

    def train(self, *args, **kwargs):
        raise RuntimeError("model.train() is not supported in pipeline mode. Use run_train() and run_eval().")

    # --- running

    def run_train(self, *args, **kwargs):
        """Add up gradients of the mean loss over microbatches; that loss, on the last rank or everywhere.

        kwargs: the model's inputs on the CPU, whole batches that split along dim 0, on every rank.
        """
        microbatches = self._start(kwargs, training=True)
        done = {}
        for stage in self._local:
            done[stage] = [self._forward(stage, m, microbatches, True) for m in range(self.num_microbatches)]
        losses = [out.detach() for _, out in done[self._local[-1]]] if self._is_last(self._local[-1]) else []
        for stage in reversed(self._local):
            for microbatch, (inputs, out) in enumerate(done.pop(stage)):
                self._backward(stage, microbatch, inputs, out)
        self._exchange.finish()
        self._reduce_gradients()
        return self._mean_loss(losses)

    @torch.no_grad()
    def run_eval(self, *args, **kwargs):
        """The mean loss as run_train gives it, or without a loss the output of the only microbatch."""
        microbatches = self._start(kwargs, training=False)
        for stage in self._local:
            outs = [self._forward(stage, m, microbatches, False)[1] for m in range(self.num_microbatches)]
        self._exchange.finish()
        last = self._is_last(stage)
        if self.output_loss_value_spec is not None:
            return self._mean_loss(outs if last else [])
        assert not last or len(outs) == 1, "outputs should have only one element in eval mode"
        return outs[0] if last else None

    def is_last_stage(self):
        """Whether the last stage is on this rank."""
        return self._is_last(self._local[-1])

    def _is_last(self, stage):
        return stage == len(self._stages) - 1

    def _start(self, inputs, training):
        if set(inputs) != set(self.input_names):
            raise RuntimeError(f"inputs are {sorted(inputs)} and were traced as {sorted(self.input_names)}")
        self.move_model_to_device()
        shapes = {name: tuple(tensor.shape) for name, tensor in inputs.items()}
        if not self.shape_traced:
            self._exchange.forget()
            self._shapes, self.shape_traced = shapes, True
        if shapes != self._shapes:
            raise RuntimeError(f"inputs of {shapes}, but {self._shapes} at first: NxD would hang")
        for tensor in inputs.values():
            if tensor.device.type != "cpu" or tensor.shape[0] % self.num_microbatches:
                raise RuntimeError(f"inputs are on the CPU and split into {self.num_microbatches}: {shapes}")
        for module in self.local_stage_modules:
            module.train(training)
        parts = {name: tensor.chunk(self.num_microbatches) for name, tensor in inputs.items()}
        return [{name: part[m] for name, part in parts.items()} for m in range(self.num_microbatches)]

    def _forward(self, stage, microbatch, microbatches, training):
        """(tensors received that want a gradient; tensors sent that have one, or on the last stage the loss)."""
        part, values, wanting = self._stages[stage], dict(microbatches[microbatch]), []
        if stage:
            received, wanting = self._exchange.receive(stage, microbatch, training)
            values |= zip(part.received, received, strict=True)
        out = part.module(*(values[name] for name in part.inputs))
        if self._is_last(stage):
            return wanting, out if self.output_loss_value_spec is None else _loss(out, self.output_loss_value_spec)
        values |= zip(part.made, out, strict=True)
        sent = [values[name] for name in part.sent]
        self._exchange.send(stage + 1, microbatch, sent, training)
        tensors = [t for t in torch.utils._pytree.tree_leaves(sent) if isinstance(t, torch.Tensor) and t.requires_grad]
        if any(tensor is other for tensor in tensors for other in wanting):
            raise RuntimeError("Does not support tensors that require grads to pass along")
        return wanting, tensors

    def _backward(self, stage, microbatch, inputs, out):
        if self._is_last(stage):
            (out / self.num_microbatches).backward()
        else:
            torch.autograd.backward(out, self._exchange.receive_gradients(stage + 1, microbatch, out))
        if stage:
            self._exchange.send_gradients(stage, microbatch, inputs)

    def _reduce_gradients(self):
        if not self.use_zero1_optimizer and not self.use_optimizer_wrapper:
            bucket_allreduce_gradients([p.grad for p in self.local_parameters() if p.grad is not None])
        for name, parameter in self.local_named_parameters():
            if name in self._shared:
                gradient = parameter.grad if parameter.grad is not None else parameter.main_grad
                dist.all_reduce(gradient, group=self._shared[name])

    def _mean_loss(self, losses):
        if not losses and not self.broadcast_and_average_loss:
            return None
        loss = torch.stack(losses).mean() if losses else torch.zeros(())
        if self.broadcast_and_average_loss:
            group = ps.get_expert_data_parallel_group()
            loss = all_reduce(loss, group) / group.size()
            group = ps.get_pipeline_model_parallel_group()
            dist.broadcast(loss, dist.get_global_rank(group, group.size() - 1), group)
        return loss.detach()


def _loss(out, spec):
    """The value that the specification marks True."""
    if spec is True:
        return out
    found = [value for value, wanted in zip(out, spec, strict=True) if wanted]
    if len(found) != 1:
        raise RuntimeError(f"Did not find loss value in specification {spec}")
    return found[0]
