"""All the rules that a configuration must keep, checked at once and before anything heavy starts. No torch.

Each rule yields a Problem with its key, value, rule and remedy. Add a rule beside its kin and a row to
tests/unit/test_validate.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from trainer.config.schema import Config
from trainer.errors import ConfigError, Problem
from trainer.rules.adapters import adapters
from trainer.rules.evaluation import evaluation
from trainer.rules.families import families
from trainer.rules.grace import grace
from trainer.rules.mixing import mixing
from trainer.rules.names import doors, plugins, recipe, secrets, tracker
from trainer.rules.nearest import layouts
from trainer.rules.neuron import neuron, neuron_machine
from trainer.rules.places import data_places, register, run_root
from trainer.rules.processes import batch, layout, rehearsal, tensor_parallel
from trainer.rules.tasks import tasks
from trainer.rules.text import sources, tokenizer
from trainer.rules.values import choices, length, model, ranges
from trainer.run.world import World

Rule = Callable[[Config, World], Iterator[Problem]]
RULES: tuple[Rule, ...] = (
    choices,
    ranges,
    model,
    families,
    adapters,
    length,
    batch,
    layout,
    tensor_parallel,
    layouts,
    tasks,
    neuron,
    neuron_machine,
    grace,
    rehearsal,
    recipe,
    run_root,
    register,
    data_places,
    plugins,
    doors,
    tracker,
    secrets,
    sources,
    mixing,
    tokenizer,
    evaluation,
)
ABOUT_THIS_LAUNCH: tuple[Rule, ...] = (batch, layout, tasks, neuron_machine, grace, rehearsal)
"""Rules about the processes and the machine at hand, rather than the configuration alone."""


def problems_of(config: Config, world: World, rules: Iterable[Rule] | None = None) -> list[Problem]:
    """What is wrong by every rule, or by those given."""
    return [problem for rule in (RULES if rules is None else rules) for problem in rule(config, world)]


def validate(config: Config, world: World, rules: Iterable[Rule] | None = None) -> None:
    """Check every rule, or those given. Raises ConfigError with all problems at once."""
    if problems := problems_of(config, world, rules):
        raise ConfigError(problems)
