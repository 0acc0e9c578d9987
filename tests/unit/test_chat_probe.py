"""What templates of several families write around turns, and that turns are told by it."""

from __future__ import annotations

from typing import Any

import pytest

from trainer.data.chat.marking import marked_spans, prefix_spans
from trainer.data.chat.probe import around_of, tools_of
from trainer.data.chat.template import ChatTemplate

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
SPECIALS = [
    *("<s>", "</s>", "[INST]", "[/INST]", "<|im_start|>", "<|im_end|>", "<|user|>", "<|assistant|>", "<|end|>"),
    *("<|system|>", "<|start|>", "<|message|>", "<|return|>", "<|close|>"),
]
EACH = "{% for m in messages %}"
CHATML = EACH + "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>{{ '\n' }}{% endfor %}"
SPEAKS = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
PROMPTED = "{% if add_generation_prompt %}<|assistant|>{{ '<think>\n' }}{% endif %}"
THOUGHT = (
    EACH + "{% set said = m.content.split('</think>')[-1].lstrip('\n') %}<|{{ m.role }}|>"
    "{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}{{ said }}<|end|>{% endfor %}"
)
HARMONY = (
    "<|start|>system<|message|>You are it.<|end|>" + EACH + "<|start|>{{ m.role }}<|message|>{{ m.content }}"
    "{{ '<|return|>' if loop.last else '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)
FAMILIES: dict[str, tuple[str, list[str]]] = {
    "chatml": (CHATML + SPEAKS, ["one<|im_end|>", "two<|im_end|>"]),
    "with words of its own": (
        "{% if messages[0].role != 'system' %}<|im_start|>system\nYou help.<|im_end|>\n{% endif %}" + CHATML + SPEAKS,
        ["one<|im_end|>", "two<|im_end|>"],
    ),
    "always prompting": (CHATML + "<|im_start|>assistant\n", ["one<|im_end|>", "two<|im_end|>"]),
    "no header": (
        "{{ bos_token }}" + EACH + "{% if m.role == 'user' %}[INST] {{ m.content | trim }} [/INST]{% else %}"
        "{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}",
        ["one</s>", "two</s>"],
    ),
    "no end": (EACH + "<|{{ m.role }}|>{{ '\n' + m.content }}{% endfor %}", ["one", "two"]),
    "text only": (EACH + "### {{ m.role }}:\n{{ m.content }}\n\n{% endfor %}", ["one", "two"]),
    "thoughts dropped, and a thought prompted": (
        THOUGHT + PROMPTED,
        ["one<|end|>", "\n</think>\n\ntwo<|end|>"],
    ),
    "two ends": (
        EACH + "<|{{ m.role }}|>{{ m.content }}<|end|><|close|>{% endfor %}",
        ["one<|end|><|close|>", "two<|end|><|close|>"],
    ),
    "another end at the end": (HARMONY, ["<|message|>one<|end|>", "<|message|>two<|return|>"]),
    "words altered": (
        EACH + "<|{{ m.role }}|>{{ m.content | tojson }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}",
        ['"one"<|end|>', '"two"<|end|>'],
    ),
}


def turns(first: str = "one", second: str = "two") -> list[dict[str, Any]]:
    said = [("user", "<|end|> asks?"), ("assistant", first), ("user", "again </s>"), ("assistant", second)]
    return [{"role": role, "content": text} for role, text in said]


def said(text: str, every: list[dict[str, Any]]) -> tuple[list[str], bool]:
    """What is told as the assistant's, and whether by markers."""
    template = ChatTemplate(text, SPECIAL)
    around = around_of(template, SPECIALS, "</s>")
    whole = template.render(every)
    spans = marked_spans(template, around, every, [], whole)
    told = spans or prefix_spans(template, around, every, [], whole)
    assert told is not None
    return [whole[begin:end] for begin, end in told], spans is not None


@pytest.mark.parametrize("name", FAMILIES)
def test_turns_begin_behind_the_prompt_and_end_with_their_token(name: str) -> None:
    text, expected = FAMILIES[name]
    assert said(text, turns()) == (expected, True)


def test_a_thought_that_is_dropped_is_not_looked_for() -> None:
    every = turns("<think>\nhm\n</think>\n\none", "<think>\nwell\n</think>\n\n two ")
    text, _ = FAMILIES["thoughts dropped, and a thought prompted"]
    assert said(text, every) == (["one<|end|>", "\n</think>\n\n two <|end|>"], True)


def test_words_that_a_template_alters_are_told_by_prefixes() -> None:
    every = turns('say "one"', "two")
    found, by_markers = said(FAMILIES["words altered"][0], every)
    assert found == ['"say \\"one\\""<|end|>', '"two"<|end|>']
    assert not by_markers


def test_whether_tools_are_written_is_tried() -> None:
    plain = tools_of(ChatTemplate(CHATML, SPECIAL))
    assert (plain.described, plain.called, plain.returned) == (False, False, True)
    some = "{{ tools | tojson }}" + EACH + "{{ m.tool_calls | tojson if m.tool_calls }}{{ m.content }}{% endfor %}"
    every = tools_of(ChatTemplate(some, SPECIAL))
    assert every.described
    assert every.called
    assert every.returned
