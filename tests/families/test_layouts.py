"""Every family on every kind of layout, from transformers' directory and back into one.

One process of ours is transformers (test_parity.py). Here each rank reads its own slices, heads are padded and copied
where the ranks ask for it, and what the ranks save together is exported: bit for bit what came in.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from tests.distributed.layouts import parse
from tests.families.pairs import pair, samples
from tests.neuron.library import DOUBLE, over_gloo
from tests.ranks import Outcomes, Task, attempt
from trainer.pretrained.config_json import read_config
from trainer.pretrained.export import export

pytestmark = pytest.mark.slow

LAYOUTS = ("tp2", "tp4-sp", "pp2", "dp2-zero3")
MODELS = [
    ("llama", "smollm2"),  # nine heads over three, tied
    ("llama", "biased"),
    ("mistral", "window"),
    ("qwen2", "windows behind the first layer"),
    ("qwen3", "tied"),
    ("falcon", "7b"),
    ("falcon", "40b, odd, biased"),
    ("gpt2", "gpt2"),
    ("olmo2", "grouped"),
]
CLOSE = 1e-5


class Case(NamedTuple):
    """A model on a layout."""

    family: str
    name: str
    layout: str
    backend: str

    def __str__(self) -> str:
        return "-".join((self.family, self.name.replace(", ", ",").replace(" ", "_"), self.layout, self.backend))


CASES = [
    *(Case(*model, layout, "native") for model in MODELS for layout in LAYOUTS),
    *(Case(*model, "tp2", "neuron") for model in MODELS),
]


def in_ci(case: Case) -> bool:
    """Four ranks pad and copy heads; OLMo 2's norms over all heads are cut as nothing else is."""
    return case.layout == "tp4-sp" or (case.family, case.backend) == ("olmo2", "neuron")


def write(directory: Path, family: str, name: str) -> None:
    """transformers' directory, a batch, and transformers' gradients under our names."""
    directory.mkdir()
    two = pair(family, name)
    two.theirs.save_pretrained(directory / "source", max_shard_size="30KB")
    batch = samples(two.model, masked=False)
    save_file({field: value.contiguous() for field, value in batch._asdict().items()}, directory / "batch.safetensors")
    two.theirs.zero_grad(set_to_none=True)
    logits = two.theirs(input_ids=batch.tokens, use_cache=False).logits
    loss = F.cross_entropy(logits.flatten(0, 1), batch.labels.flatten())
    loss.backward()
    gradients = {key: p.grad for key, p in two.theirs.named_parameters(remove_duplicate=False) if p.grad is not None}
    save_file(
        {key: value.contiguous() for key, value in two.to_ours(gradients).items()} | {"loss": loss.detach()},
        directory / "expected.safetensors",
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("layouts")
    for family, name in MODELS:
        write(directory / f"{family}-{name}", family, name)
    return directory


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest, root: Path) -> dict[str, Outcomes]:
    """All cases that are to be tested, in one launch on each backend."""
    items = [item for item in request.session.items if item.path == Path(__file__)]
    wanted = [item.callspec.params["case"] for item in items if hasattr(item, "callspec")]
    found = {}
    for backend, setting in (("native", {}), ("neuron", {"setting": over_gloo(DOUBLE)})):
        tasks = {case: task(case, root) for case in CASES if case in wanted and case.backend == backend}
        found[backend] = attempt(tasks, root, **setting)
    return found


def task(case: Case, root: Path) -> Task:
    arguments: dict[str, Any] = {"layout": case.layout, "backend": case.backend}
    arguments["directory"] = str(root / f"{case.family}-{case.name}")
    return Task("tests.families.layout_worker:through", parse(case.layout).processes, arguments)


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[] if in_ci(case) else pytest.mark.long) for case in CASES], ids=str
)
def test_a_layout_computes_what_transformers_does(case: Case, root: Path, outcomes: dict[str, Outcomes]) -> None:
    directory = root / f"{case.family}-{case.name}"
    expected = load_file(directory / "expected.safetensors")["loss"].item()
    for rank in outcomes[case.backend][case]:
        assert rank["loss"] == pytest.approx(expected, rel=CLOSE)
        assert rank["gradients"] <= CLOSE

    run, out = directory / f"{case.layout}-{case.backend}", directory / f"{case.layout}-{case.backend}-out"
    export(run / "checkpoints" / "step-00000001", out)
    before, after = (
        {name: tensor for file in where.glob("*.safetensors") for name, tensor in load_file(file).items()}
        for where in (directory / "source", out)
    )
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert read_config(out) == read_config(directory / "source")
    _, loading = AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not any(loading.values())
