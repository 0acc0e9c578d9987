"""EleutherAI's harness on a run of ours says what its HFLM says of the exported directory, item for item.

lm-eval is no dependency of the tests: they are skipped where it is not installed (the extra ``eval``).
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from tests.end_to_end.test_smollm2_round_trip import from_gguf
from tests.evaluation.test_text import write
from tests.families import tokenizers_of
from tests.families.checkpoints import save_run
from tests.families.mapping import to_ours
from trainer.commands.export_hf import export_hf
from trainer.config.groups.model import ModelConfig
from trainer.errors import ConfigError
from trainer.evaluation.choices import score_choices
from trainer.evaluation.tasks import Choice, Task, read_tasks
from trainer.generation.opened import Opened, opened_model
from trainer.pretrained.config_json import format_of, read_config
from trainer.pretrained.shapes import parameter_shapes

lm_eval: Any = pytest.importorskip("lm_eval", reason="the extra `eval` is not installed")

ITEMS = 100
CAPITALS = {
    **{"France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid", "Japan": "Tokyo"},
    **{"Russia": "Moscow", "Egypt": "Cairo", "Peru": "Lima", "Greece": "Athens", "Denmark": "K\u00f8benhavn"},
}
FRAMES = [
    *("The capital of {} is", "{}'s capital city is called ", "Q: What is the capital of {}?\nA:", "In {}, fly to\n"),
    *("The government of {} sits in", "The largest city of {} is", "{}:", "Capital of {}:  ", "{} - capital -"),
    "Countries and capitals. {},",
]
WORDS = ("the", "cat", "sat", "on", "mat", "hello", "world", "\u00fcber", "catmat")


class Both(NamedTuple):
    """opened: the run. ours, theirs: for the harness; theirs on what was exported."""

    opened: Opened
    ours: Any
    theirs: Any


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "bos"])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    from lm_eval.models.huggingface import HFLM

    from trainer.evaluation.harness import TrainerLM

    path = tmp_path_factory.mktemp("harness")
    theirs = write(path / "model", "llama", "grouped")
    family, fields = read_config(theirs.config.to_dict())
    model = ModelConfig(family=family, **fields)
    weights = to_ours(theirs.state_dict(), format_of(family).tensors(model), parameter_shapes(model))
    save_run(path / "run", model, weights)
    tokenizers_of.by_five(path / "run" / "tokenizer", request.param)
    list(export_hf(str(path / "run"), str(path / "exported"), None, None))
    with opened_model(str(path / "run")) as opened:
        hflm = HFLM(pretrained=str(path / "exported"), device="cpu", batch_size=4)
        yield Both(opened, TrainerLM(opened, 4), hflm)


def text(draw: random.Random, most: int) -> str:
    return " ".join(draw.choices(WORDS, k=draw.randint(1, most)))


def items(path: Path) -> Path:
    """Questions of many lengths, some longer than the window, some empty, some that end with white space."""
    draw = random.Random(3)
    with path.open("w") as file:
        for number in range(ITEMS):
            question = text(draw, 12) * (20 if number % 10 == 5 else 1) + draw.choice(["", " ", "\n"])
            question = "" if number % 17 == 0 else question
            choices = list({text(draw, 4): None for _ in range(8)})[:4]
            item = {"question": question, "choices": choices, "answer": draw.randrange(len(choices))}
            file.write(json.dumps(item) + "\n")
    return path


def instances(kind: str, arguments: list[tuple[Any, ...]]) -> list[Any]:
    from lm_eval.api.instance import Instance

    return [Instance(kind, {}, one, number) for number, one in enumerate(arguments)]


def test_multiple_choice_is_hflms_to_the_item(both: Both, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lm_eval.tasks import TaskManager

    file = items(tmp_path / "items.jsonl")
    task = {
        "task": "synthetic",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(file)}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "choices",
        "doc_to_target": "answer",
        "metric_list": [{"metric": name} for name in ("acc", "acc_norm", "acc_bytes")],
    }
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    manager = TaskManager(include_defaults=False)  # thousands of files that nobody asks for

    def run(model: Any) -> Any:
        return lm_eval.simple_evaluate(model=model, tasks=[dict(task)], bootstrap_iters=0, task_manager=manager)

    found = [run(both.ours), run(both.theirs)]
    ours, theirs = (one["samples"]["synthetic"] for one in found)
    assert len(ours) == ITEMS
    for one, other in zip(ours, theirs, strict=True):
        for name in ("acc", "acc_norm", "acc_bytes"):
            assert one[name] == other[name]
        for (mine, greedy), (their, also) in zip(one["filtered_resps"], other["filtered_resps"], strict=True):
            assert float(mine) == pytest.approx(float(their), abs=1e-3)
            assert greedy == also
    assert both.opened.words is not None
    (read,) = read_tasks([str(file)])
    alone = score_choices(both.opened, both.opened.words, read)
    assert alone.truncated > 0
    for name in ("acc", "acc_norm", "acc_bytes"):
        right = [float(one == item.right) for one, item in zip(alone.picked[name], read.choices, strict=True)]
        assert right == [one[name] for one in sorted(theirs, key=lambda one: one["doc_id"])]
        assert getattr(alone, name) == pytest.approx(found[1]["results"]["synthetic"][f"{name},none"])


def test_rolling_is_hflms(both: Both) -> None:
    draw = random.Random(4)
    asked = [(text(draw, size),) for size in (1, 20, 90, 400)]
    ours, theirs = (
        model.loglikelihood_rolling(instances("loglikelihood_rolling", asked)) for model in (both.ours, both.theirs)
    )
    assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-3)


def test_what_is_generated_is_hflms(both: Both) -> None:
    draw = random.Random(5)
    plain = {"until": ["\n\n", "a"], "max_gen_toks": 12}
    asked = [(text(draw, 9), given) for given in (plain, {"until": "e", "max_new_tokens": 5}) for _ in range(4)]
    ours, theirs = ([], [])
    for one in asked:  # HFLM cuts and pads a batch as a whole
        ours += both.ours.generate_until(instances("generate_until", [one]))
        theirs += both.theirs.generate_until(instances("generate_until", [one]))
    assert ours == theirs
    assert ours == both.ours.generate_until(instances("generate_until", asked))


def test_settings_that_nobody_knows_are_refused(both: Both) -> None:
    with pytest.raises(ConfigError, match="num_beams"):
        both.ours.generate_until(instances("generate_until", [("the", {"num_beams": 4})]))


def test_an_empty_continuation_is_certain(both: Both) -> None:
    assert both.ours.loglikelihood(instances("loglikelihood", [("the", "")])) == [(0.0, True)]


def test_chats_are_hflms(both: Both) -> None:
    chat = [{"role": "user", "content": "the cat"}, {"role": "assistant", "content": "sat on"}]
    assert both.ours.apply_chat_template(chat[:1]) == both.theirs.apply_chat_template(chat[:1])
    going = [both_.apply_chat_template(chat, add_generation_prompt=False) for both_ in (both.ours, both.theirs)]
    assert going[0] == going[1]


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(1500)
def test_smollm2_knows_the_capitals_that_hflm_finds(tmp_path: Path) -> None:
    from lm_eval.models.huggingface import HFLM

    draw = random.Random(6)
    items: list[Choice] = []
    for frame in FRAMES:
        for country, capital in CAPITALS.items():
            choices = [*draw.sample([name for name in CAPITALS.values() if name != capital], 3), capital]
            draw.shuffle(choices)
            items.append(Choice(frame.format(country), tuple(choices), choices.index(capital)))
    assert len(items) == ITEMS
    from_gguf(tmp_path)
    with opened_model(str(tmp_path), "float32") as opened:
        assert opened.words is not None
        found = score_choices(opened, opened.words, Task("capitals", "", choices=tuple(items)))
    asked = [(item.context, f" {choice}") for item in items for choice in item.choices]
    told = HFLM(pretrained=str(tmp_path), device="cpu", batch_size=8, dtype="float32").loglikelihood(
        instances("loglikelihood", asked)
    )
    scores = [one[0] for one in told]
    picked: dict[str, list[int]] = {"acc": [], "acc_norm": [], "acc_bytes": []}
    for number, item in enumerate(items):
        mine = scores[4 * number : 4 * number + 4]
        for name, sizes in (
            ("acc", [1] * 4),
            ("acc_norm", [len(one) for one in item.choices]),
            ("acc_bytes", [len(one.encode()) for one in item.choices]),
        ):
            picked[name].append(int(np.argmax([score / size for score, size in zip(mine, sizes, strict=True)])))
    assert {name: found.picked[name] for name in picked} == picked
    assert found.acc > 0.5
