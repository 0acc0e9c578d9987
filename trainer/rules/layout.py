"""Which products of the parallel axes make sense: rules about config.parallel. trainer.rules.processes has those on
the number of processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from trainer.config.arithmetic import head_dim
from trainer.config.schema import Config
from trainer.errors import Problem
from trainer.parallel.heads import Heads, lay_out
from trainer.rules.quantities import model_parallel_size
from trainer.run.world import World

SCHEDULES = ("1f1b", "interleaved_1f1b", "interleaved_zero_bubble")
RECOMPUTE = ("none", "selective", "full")


def sequence(config: Config, world: World) -> Iterator[Problem]:
    """Context and sequence parallelism cut a sample evenly."""
    p, seq = config.parallel, config.data.seq_len
    if p.cp > 1 and seq % (2 * p.cp):
        rule = f"two chunks for each of the {p.cp} context-parallel ranks: a divisor of data.seq_len ({seq}) / 2"
        yield Problem("parallel.cp", p.cp, rule, f"data.seq_len={-(-seq // (2 * p.cp)) * 2 * p.cp}")
    elif p.sp and (seq // p.cp) % p.tp:
        rule = f"parallel.tp ({p.tp}) divides the {seq // p.cp} positions of a rank (data.seq_len / parallel.cp)"
        yield Problem(
            "parallel.sp", p.sp, rule, f"parallel.sp=false, or data.seq_len={-(-seq // (p.cp * p.tp)) * p.cp * p.tp}"
        )


def pipeline(config: Config, world: World) -> Iterator[Problem]:
    """Stages, their schedule and their cuts."""
    p = config.parallel
    pipe, key, stages = p.pipeline, "parallel.pipeline", p.pp * p.pipeline.virtual_stages
    if pipe.schedule not in SCHEDULES:
        yield Problem(f"{key}.schedule", pipe.schedule, f"one of: {', '.join(SCHEDULES)}", f"{key}.schedule=1f1b")
        return
    if p.pp == 1:
        for name, idle in (("schedule", "1f1b"), ("virtual_stages", 1), ("cuts", [])):
            if (value := getattr(pipe, name)) != idle:
                yield Problem(f"{key}.{name}", value, "used only with parallel.pp above 1", f"leave {key}.{name} out")
        return
    if pipe.schedule == "1f1b" and pipe.virtual_stages > 1:
        rule, remedy = "1: 1f1b has one stage a rank", f"{key}.schedule=interleaved_1f1b"
        yield Problem(f"{key}.virtual_stages", pipe.virtual_stages, rule, remedy)
    elif pipe.schedule != "1f1b" and pipe.virtual_stages == 1:
        rule = f"2 or more: {pipe.schedule} interleaves the stages of a rank"
        yield Problem(f"{key}.virtual_stages", 1, rule, f"{key}.virtual_stages=2, or {key}.schedule=1f1b")
    layers = config.model.layers
    if stages > layers:
        rule = f"every stage has a layer; model.layers is {layers}, and there are {stages} stages"
        yield Problem("parallel.pp", p.pp, rule, f"parallel.pp={max(1, layers // pipe.virtual_stages)} or less")
    elif pipe.cuts and (len(pipe.cuts) != stages or sum(pipe.cuts) != layers or min(pipe.cuts) < 1):
        rule = f"{stages} numbers above 0 (pp x virtual_stages) that add up to the {layers} layers of the model"
        yield Problem(f"{key}.cuts", pipe.cuts, rule, f"leave {key}.cuts out: they are then balanced by cost")


def microbatches(config: Config, world: World) -> Iterator[Problem]:
    """A pipeline wants a microbatch for each rank; the interleaved schedules run in rounds of about pp of them."""
    p, size = config.parallel, model_parallel_size(config)
    per_step, seq, micro = config.train.tokens_per_step, config.data.seq_len, config.train.microbatch
    if p.pp == 1 or min(per_step, micro) <= 0 or world.size % size or per_step % seq:
        return
    count, left_over = divmod(per_step // seq, micro * (world.size // size))
    rounds = max(1, count // p.pp)
    if left_over:
        return
    if count < p.pp:
        rule = (
            f"at most the number of microbatches that a rank takes a step ({count}): the others would never have work"
        )
        yield Problem(
            "parallel.pp",
            p.pp,
            rule,
            f"a smaller train.microbatch, or train.tokens_per_step={per_step * -(-p.pp // count)}",
        )
    elif p.pipeline.schedule != "1f1b" and count % rounds:
        rule = f"its {count} microbatches a step make {rounds} equal rounds (one for each {p.pp} of them)"
        yield Problem(
            "parallel.pipeline.schedule", p.pipeline.schedule, rule, f"a number of microbatches that {p.pp} divides"
        )


def zero(config: Config, world: World) -> Iterator[Problem]:
    """What ZeRO can be combined with."""
    p = config.parallel
    if not 0 <= p.zero <= 3:
        yield Problem("parallel.zero", p.zero, "0, 1, 2 or 3", "parallel.zero=1 is usual")
        return
    if p.zero > 1 and p.pp > 1:
        rule = (
            "0 or 1 with a pipeline: a stage would reduce (3: also gather) all its layers for every microbatch, while"
            " its neighbours wait"
        )
        yield Problem("parallel.zero", p.zero, rule, "parallel.zero=1")
    if p.zero and (apart := copies_apart(config)) is not None:
        rule = (
            f"0 where copies of a key-value head lie at different places of their ranks ({apart}): their slices would"
            " not meet"
        )
        yield Problem("parallel.zero", p.zero, rule, "parallel.zero=0")


def copies_apart(config: Config) -> str | None:
    """How, where tensor-parallel ranks hold copies of a key-value head at different places; None where they do not."""
    heads = Heads(config.model.heads, config.model.kv_heads, head_dim(config.model))
    if config.parallel.tp <= 1 or heads.query % heads.key_value:
        return None
    held = lay_out(heads, config.parallel.tp)
    if held.copies == 1 or held.slots_per_rank == 1:
        return None
    return f"{held.slots_per_rank} heads a rank, up to {held.copies} copies of each"


def recompute(config: Config, world: World) -> Iterator[Problem]:
    """Modes of recomputation."""
    p = config.parallel
    if p.recompute not in RECOMPUTE:
        yield Problem("parallel.recompute", p.recompute, f"one of: {', '.join(RECOMPUTE)}", "parallel.recompute=full")
    if p.recompute in ("selective", "full") and p.pp > 1 and p.pipeline.schedule == "interleaved_zero_bubble":
        rule = "none with interleaved_zero_bubble: its split backward pass would make a layer's activations many times"
        yield Problem("parallel.recompute", p.recompute, rule, "parallel.recompute=none, or another schedule")
    if p.recompute != "none" and p.recompute_every > config.model.layers:
        rule = f"at most the {config.model.layers} layers of the model"
        yield Problem(
            "parallel.recompute_every", p.recompute_every, rule, "parallel.recompute=none for no recomputation"
        )


Rule = Callable[[Config, World], Iterator[Problem]]
RULES: tuple[Rule, ...] = (sequence, pipeline, microbatches, zero, recompute)
