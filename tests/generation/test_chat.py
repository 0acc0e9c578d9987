"""Chat templates are rendered as transformers does, and a hostile one gets nowhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from trainer.errors import ConfigError
from trainer.generation.chat import ChatTemplate

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
TALK = [
    {"role": "system", "content": "Be <brief> & 'kind'."},
    {"role": "user", "content": "naïve?\n  two lines "},
    {"role": "assistant", "content": "日本"},
    {"role": "user", "content": "{{ bos_token }}"},
]
CHATML = """{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system
You are helpful<|im_end|>
' }}{% endif %}{{'<|im_start|>' + message['role'] + '
' + message['content'] + '<|im_end|>' + '
'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant
' }}{% endif %}"""
TEMPLATES = {
    "chatml": CHATML,
    "blocks": """{{ bos_token }}
{% for m in messages %}
    {%- if m.role == 'user' %}
    [INST] {{ m.content | trim }} [/INST]
    {% else %}
{{ m.content }}{{ eos_token }}
    {% endif %}
{% endfor %}
""",
    "json": "{% for m in messages %}{{ m | tojson }}{{ m | tojson(indent=2, sort_keys=true) }}{% endfor %}",
    "generation": "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}\n{% endfor %}end",
    "loops": "{% for m in messages %}{% if loop.index == 2 %}{% continue %}{% elif loop.index == 4 %}{% break %}"
    "{% endif %}{{ loop.index0 }}{{ m.role }}{% endfor %}",
    "namespace": "{% set n = namespace(count=0, found={'a': 1}) %}{% for m in messages %}{% set n.count = n.count + 1"
    " %}{% endfor %}{{ n.count }}{{ dict(a=1) }}{{ dict.fromkeys(['x'], 2) }}",
    "year": "{{ strftime_now('%Y %d') }}",
    "absent": "{{ tools is none }}{{ documents }}{{ unknown }}{% if tools %}x{% endif %}",
    "macro": "{% macro said(m) %}<{{ m.role }}>{{ m['content'] }}{% endmacro %}{% for m in messages %}{{ said(m) }}"
    "{% endfor %}",
}


@pytest.mark.parametrize("answer", [False, True])
@pytest.mark.parametrize("name", TEMPLATES)
def test_the_text_is_transformers(name: str, answer: bool) -> None:
    text = TEMPLATES[name]
    (expected,), _ = render_jinja_template(
        conversations=[TALK], chat_template=text, add_generation_prompt=answer, **SPECIAL
    )
    assert ChatTemplate(text, SPECIAL)(TALK, answer) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{% for m in messages %}", "is a template (TemplateSyntaxError"),
        ("{{ raise_exception('only user and assistant roles') }}", "only user and assistant roles"),
        ("{{ messages[9].content }}", "UndefinedError"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{{ ''.__class__.__mro__ }}", "SecurityError"),
        ("{{ dict.__class__.__subclasses__() }}", "SecurityError"),
        ("{% set n = namespace(_a=1) %}", "SecurityError"),
        ("{{ messages.append(1) }}", "SecurityError"),
        ("{{ range(1000000) | list }}", "OverflowError"),
        ("{% include 'secrets' %}", "TypeError"),
    ],
)
def test_a_template_that_fails_is_one_problem(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        ChatTemplate(text, SPECIAL)(TALK)
    (problem,) = raised.value.problems
    assert problem.key == "chat_template"
    assert said in problem.rule
    assert "\n" not in problem.rule


def test_nothing_of_the_machine_is_reachable(tmp_path: Path) -> None:
    target = tmp_path / "made"
    for call in (f"open('{target}', 'w')", f"lipsum.__globals__.os.mkdir('{target}')", "cycler.__init__.__globals__"):
        with pytest.raises(ConfigError):
            ChatTemplate("{{ " + call + " }}", {})(TALK)
    assert not target.exists()
