"""What backend=neuron takes: of a configuration, and of the machine under it. No torch.

What the backend cannot do is neuronx-distributed's limit unless said otherwise; its source is 0.17.0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from trainer.config.schema import Config
from trainer.errors import Problem
from trainer.rules.layout import copies_apart
from trainer.rules.quantities import backend_name, model_parallel_size, precision_mode
from trainer.run.world import World
from trainer.trainium.contradictions import contradictions, visible_cores
from trainer.trainium.environment import Job
from trainer.trainium.host import Host
from trainer.trainium.installed import placeholders
from trainer.trainium.installed import problems as package_problems
from trainer.trainium.topology import CORES_OF_A_NODE, INSTANCES, Instance, Topology, illegal_tensor_parallel
from trainer.trainium.topology import problems as topology_problems

FULL_NODE = INSTANCES[1]
ON_NATIVE = "is the native backend's alone"


def neuron(config: Config, world: World) -> Iterator[Problem]:
    """Every rule below, where the backend is neuron."""
    if backend_name(config, world) == "neuron":
        for rule in RULES:
            yield from rule(config, world)


def zero(config: Config, world: World) -> Iterator[Problem]:
    """ZeRO-1 is all that neuronx-distributed has, and context parallelism needs it."""
    p = config.parallel
    if p.zero in (2, 3):
        rule = f"0 or 1 with backend=neuron: ZeRO {p.zero} {ON_NATIVE}"
        yield Problem("parallel.zero", p.zero, rule, "parallel.zero=1")
    elif p.cp > 1 and p.zero != 1:
        rule = "1 with parallel.cp: neuronx-distributed sums gradients over the context-parallel ranks twice without it"
        yield Problem("parallel.zero", p.zero, rule, _zero_one(config, "parallel.cp=1"))


def rounding(config: Config, world: World) -> Iterator[Problem]:
    """Pure BF16 rounds at random: ranks that each update all weights would drift apart."""
    size = model_parallel_size(config)
    if config.precision.mode == "bf16" and config.parallel.zero == 0 and size > 0 and world.size > size:
        rule = (
            "1 with precision=bf16 and data parallelism: its updates round stochastically, and each rank makes its own"
        )
        yield Problem("parallel.zero", 0, rule, _zero_one(config, "precision=bf16_mixed"))
    if config.precision.mode == "bf16" and config.model.tied and config.parallel.pp > 1:
        rule = (
            "bf16_mixed or fp32 with a tied head in a pipeline: its two copies would round differently and drift apart"
        )
        yield Problem("precision.mode", "bf16", rule, "precision=bf16_mixed, or model.tied=false")


def _zero_one(config: Config, otherwise: str) -> str:
    """The remedy, where ZeRO-1 is to be had: trainer.rules.layout refuses it where copies of heads lie apart."""
    return (
        "parallel.zero=1" if copies_apart(config) is None else f"{otherwise}, or a parallel.tp that divides the heads"
    )


def schedule(config: Config, world: World) -> Iterator[Problem]:
    """Its pipeline has 1F1B and interleaved 1F1B; the latter wants a multiple of pp microbatches (scheduler.py)."""
    p, pipe = config.parallel, config.parallel.pipeline
    if pipe.schedule == "interleaved_zero_bubble":
        rule = f"1f1b or interleaved_1f1b with backend=neuron: the zero bubble {ON_NATIVE}"
        yield Problem("parallel.pipeline.schedule", pipe.schedule, rule, "parallel.pipeline.schedule=interleaved_1f1b")
        return
    if pipe.virtual_stages <= 1 or p.pp <= 1:
        return
    if (count := microbatches(config, world)) is not None and count % p.pp:
        rule = f"parallel.pp ({p.pp}) divides the {count} microbatches of a step under interleaved_1f1b"
        step = config.train.tokens_per_step // count * -(-count // p.pp) * p.pp
        remedy = f"train.tokens_per_step={step}, or parallel.pipeline.schedule=1f1b parallel.pipeline.virtual_stages=1"
        yield Problem("train.tokens_per_step", config.train.tokens_per_step, rule, remedy)


def microbatches(config: Config, world: World) -> int | None:
    """Microbatches of a rank and step; None where the batch does not divide (trainer.rules.check says so)."""
    size, seq, micro = model_parallel_size(config), config.data.seq_len, config.train.microbatch
    if min(size, seq, micro) <= 0 or world.size % size or config.train.tokens_per_step % seq:
        return None
    count, rest = divmod(config.train.tokens_per_step // seq, micro * (world.size // size))
    return None if rest or count <= 0 else count


def recompute(config: Config, world: World) -> Iterator[Problem]:
    """A whole layer or nothing: torch_xla.utils.checkpoint is reentrant and takes no policy."""
    if config.parallel.recompute == "selective":
        rule = f"none or full with backend=neuron: to choose operations within a layer {ON_NATIVE}"
        remedy = "parallel.recompute=full parallel.recompute_every=2 keeps every second layer's activations"
        yield Problem("parallel.recompute", "selective", rule, remedy)


def sample(config: Config, world: World) -> Iterator[Problem]:
    """The pipeline returns the loss of its last stage; a sample needs logits."""
    prompt, every = config.evaluation.sample_prompt, config.evaluation.every_steps
    if config.parallel.pp > 1 and prompt and every:
        rule = "empty with parallel.pp on backend=neuron: its pipeline returns the loss, and a sample needs logits"
        yield Problem("evaluation.sample_prompt", prompt, rule, 'evaluation.sample_prompt=""')


def optimizer(config: Config, world: World) -> Iterator[Problem]:
    """The update is masked on the device and its scalars are tensors: a plug-in knows nothing of either."""
    if (target := config.optim.name) != "adamw":
        rule = f"adamw with backend=neuron: another optimizer {ON_NATIVE}, for its update would be compiled anew"
        yield Problem("optim.name", target, rule, "optim.name=adamw, or backend.name=native")


def neuron_machine(config: Config, world: World) -> Iterator[Problem]:
    """The machine has Trainium, in a shape that this job can use; or the user asks for the CPU in its place."""
    if backend_name(config, world) != "neuron":
        return
    if world.neuron_on_cpu:
        yield from placeholders(world.host.packages if world.host else {})
    elif not world.trainium:
        yield no_device(config)
    else:
        yield from trainium(config, world)


def no_device(config: Config) -> Problem:
    """What the recipe needs, and what can be done without it."""
    size = model_parallel_size(config)
    nodes = max(1, -(-size // CORES_OF_A_NODE))
    need = f"{nodes} trn1.32xlarge instance{'s' if nodes > 1 else ''} ({size} NeuronCores for one copy of the model)"
    return Problem(
        "backend.name",
        "neuron",
        f"needs Trainium, and this machine has no Neuron device; this recipe: {need}",
        "run it there; to take a whole step of it here, without devices: python scripts/train.py"
        f" recipe={config.recipe} backend=fake ... (and your overrides); to train something here:"
        " python scripts/train.py recipe=tiny",
    )


def trainium(config: Config, world: World) -> Iterator[Problem]:
    """Cores, axes, network, packages and variables of a machine with Trainium."""
    host = world.host
    instance = host.kind if host is not None else FULL_NODE
    if instance is None:
        assert host is not None
        rule = f"one of {', '.join(i.name for i in INSTANCES)}, with all of its Neuron devices"
        found = f"{host.instance or 'unknown'} with {host.devices} Neuron devices"
        yield Problem("instance type", found, rule, "rent one of them; a container gets all of /dev/neuron*")
        return
    p, variables = config.parallel, host.variables if host is not None else {}
    first = visible_cores(variables, world.per_node)
    if isinstance(first, Problem):
        yield first
        first = 0
    topology = Topology(world.size, world.per_node, p.tp, p.pp, p.cp, first)
    if min(p.tp, p.pp, p.cp) > 0 and world.size % model_parallel_size(config) == 0:
        yield from topology_problems(topology, instance)
    elif min(p.tp, p.pp, p.cp) > 0:  # trainer.rules.check says that the axes do not divide the world
        yield from illegal_tensor_parallel(topology)
    if host is not None:
        yield from network(host, instance, topology.nodes)
        yield from package_problems(host.packages)
        yield from contradictions(job(config, world), variables, host.cache_filesystem)


def network(host: Host, instance: Instance, nodes: int) -> Iterator[Problem]:
    """A job on several nodes sees all EFA devices."""
    if nodes > 1 and host.efa < instance.efa:
        rule = f"the {instance.efa} of a {instance.name}: a job on several nodes exchanges over EFA"
        remedy = "launch the instance with all its EFA interfaces and install aws-efa-installer (docs/topology.md)"
        yield Problem("EFA devices", host.efa, rule, remedy)


def job(config: Config, world: World) -> Job:
    """What the environment's variables depend on."""
    host = world.host
    first = visible_cores(host.variables if host is not None else {}, world.per_node)
    return Job(
        nodes=-(-world.size // world.per_node),
        first_core=first if isinstance(first, int) else 0,
        precision=precision_mode(config, world),
        timeout_seconds=config.backend.timeout_seconds,
        runtime=host.runtime if host is not None else None,
    )


Rule = Callable[[Config, World], Iterator[Problem]]
RULES: tuple[Rule, ...] = (zero, rounding, schedule, recompute, sample, optimizer)
