"""A rank that is not as the others: the launch ends with a documented code that names ranks and cause, nothing saved.

Codes: 3 what ranks start from differs; 15 what they hold differs; 12 a rank does not arrive.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests import harness
from tests.faults.injected import STOPPED
from tests.ranks import Outcomes, Task, attempt
from tests.selection import in_ci
from tests.unit.test_data_support import byte_tokenizer, random_documents, write_documents

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]  # the first test waits for all the launches

LONGEST = 60.0
"""Seconds until everybody has ended: a limit, and what finding out and reporting takes on a busy machine."""
SAVED_BEFORE = ["step-00000002"]

KINDS: dict[str, tuple[int, str, list[str]]] = {
    # kind: exit code, what the report says, what was saved before
    "lr": (3, "optim.lr = 0.05", []),
    "seed": (3, "seed = 7", []),
    "precision": (3, "precision.mode = 'bf16_mixed'", []),
    "steps": (3, "train.steps = 7", []),
    "layers": (3, "model.layers = 2", []),
    "layout": (3, "parallel.tp = 2", []),
    "code": (3, "code of the trainer", []),
    "torch version": (3, "version of torch = '2.8.0'", []),
    "device": (3, "kind of device = 'neuron'", []),
    "text": (3, "text of source c", []),
    "shard": (3, "text of shard 1 of source c", []),
    "tokenizer": (3, "data.tokenizer.vocab = 400", []),
    "run.root": (3, "the same directory on every node; rank 1 on", []),
    "weight": (15, "weights of model.layers.0.mlp.up_proj.weight: rank 0 against rank 1", SAVED_BEFORE),
    "mixed weight": (15, "weights of model.layers.0.mlp.up_proj.weight: rank 0 against rank 1", SAVED_BEFORE),
    "moment": (15, "moments exp_avg of model.layers.0.mlp.up_proj.weight: rank 0 against rank 1", SAVED_BEFORE),
    "norm": (15, "of model.norm.weight: rank 0 against rank 1", SAVED_BEFORE),
    "tied weight": (15, "of model.embed_tokens.weight: rank 0 against rank 1", SAVED_BEFORE),
    "order": (15, "the same step and place in the data", []),
    "never starts": (12, "rank 1 did not", []),
    "stopped in set-up": (12, "no sign of life from rank 1", []),
    "stopped in data": (12, "rank 1 (", []),
    "stuck in data": (12, "rank 1 (", []),
    "stopped in a step": (12, "no sign of life from rank 1", SAVED_BEFORE),
    "stuck in a step": (12, "behind the others: rank 1 on", SAVED_BEFORE),
    "stuck in a batch": (12, "rank 1 on", SAVED_BEFORE),
    "stopped in evaluation": (12, "no sign of life from rank 1", SAVED_BEFORE),
    "stopped in a save": (12, "no sign of life from rank 1", SAVED_BEFORE),
    "killed": (12, "no sign of life from rank 1", SAVED_BEFORE),
}
IN_CI = ("text", "weight", "stuck in a step")
"""One of each code; a process that is stopped, as by a debugger, is waited for and costs a minute."""
LAYOUTS = {
    "shard": [
        "data.sources=[{name: c, kind: indexed, paths: [shard-0, shard-1]}]",
        "data.tokenizer={kind: file, path: tokenizer.json}",
    ],
    "norm": ["parallel.tp=2"],
    "tied weight": ["parallel.pp=2", "model.tied=true", "model.layers=2"],
    "mixed weight": ["precision=bf16_mixed", "precision.cpu_fallback=null"],
}


def _overrides(kind: str) -> list[str]:
    return [
        *harness.SMALL,
        "model.layers=1",
        "train.steps=6",
        "train.microbatch=2",
        "precision=fp32",
        "evaluation.every_steps=4",
        "checkpoint.every_steps=2",
        "checkpoint.mode=sync",  # what was saved before is then no matter of time
        "data.sources=[{name: c, paths: [corpus]}]",
        f"run.name={_name(kind)}",
        *_limits(kind),
        *LAYOUTS.get(kind, []),
    ]


def _limits(kind: str) -> list[str]:
    """Short where the fault is to be found by them; elsewhere a busy machine must not meet one first."""
    waits = KINDS[kind][0] == 12
    return [
        f"backend.timeout_seconds={8 if waits else 50}",
        f"reliability.setup_seconds={12 if kind in ('never starts', 'stopped in set-up') else 50}",
        f"reliability.data_seconds={12 if 'data' in kind else 50}",
        f"reliability.save_seconds={8 if waits else 50}",
    ]


def _name(kind: str) -> str:
    return kind.replace(" ", "-")


@pytest.fixture(scope="module")
def cwd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("disagreements")
    harness.write_corpus(directory / "corpus")
    harness.write_corpus(directory / "other", 50)
    byte_tokenizer().save(directory / "tokenizer.json")
    for number in range(3):
        write_documents(directory / f"shard-{number}", random_documents(number, 200, 40))
    return directory


@pytest.fixture(scope="module")
def outcomes(selected: list[dict[str, str]], cwd: Path) -> Outcomes:
    """All launches that tests ask for, one after the other in forks of one process."""
    kinds = [params["kind"] for params in selected]
    tasks = {
        kind: Task(
            "tests.faults.injected:launch",
            2,
            {"kind": kind, "overrides": _overrides(kind), "seconds": LONGEST + 10},
            seconds=LONGEST + 30,
        )
        for kind in kinds
    }
    return attempt(tasks, cwd)


@pytest.mark.parametrize("kind", in_ci(KINDS, IN_CI))
def test_it_ends_with_its_code_and_names_ranks_and_cause(kind: str, outcomes: Outcomes, cwd: Path) -> None:
    code, says, saved = KINDS[kind]
    ranks: list[dict[str, Any]] = outcomes[kind]
    print(kind, [(rank["code"], round(rank["seconds"], 1)) for rank in ranks], sep="\t")
    assert ranks[0]["code"] == code, ranks[0]["output"]
    assert ranks[1]["code"] in (code, STOPPED, -9), ranks[1]["output"]
    assert ranks[0]["seconds"] < LONGEST
    told = ranks[0]["output"] + ranks[1]["output"]
    assert says in told, told
    assert "Traceback" not in told, told
    found = sorted(path.name for path in (cwd / "runs" / _name(kind) / "checkpoints").glob("step-*"))
    assert found == saved
