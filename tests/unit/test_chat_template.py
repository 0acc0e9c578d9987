"""Chat templates are rendered as transformers does, and a hostile one gets nowhere."""

from __future__ import annotations

import resource
import signal
import threading
import time
from pathlib import Path

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from trainer.data.chat import template as chat
from trainer.data.chat.bounded import bounded
from trainer.data.chat.template import ChatTemplate
from trainer.errors import ConfigError

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
        ("{{ " + "(" * 20000 + "1" + ")" * 20000 + " }}", "is a template (RecursionError"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
        ("{{ '\\ud800' }}", "UnicodeEncodeError"),
        ("{{ 'x' * 100000000000 }}", "MemoryError"),
        ("{% set n = namespace(x='x') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}", "MemoryError"),
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


@pytest.mark.parametrize(
    "text",
    [
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{{ messages | length ** 0 + 7 ** (7 ** 9) }}",
        "{{ 7 ** (7 ** 9) }}",  # jinja2 works it out as it compiles
    ],
)
def test_a_template_that_does_not_end_is_one_problem(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "bounded", lambda: bounded(0.5))
    start, before = time.monotonic(), signal.getsignal(signal.SIGALRM)
    with pytest.raises(ConfigError) as raised:
        ChatTemplate(text, SPECIAL)(TALK)
    assert time.monotonic() - start < 20
    assert "TimeoutError: it has not ended after 0.5 s" in str(raised.value)
    assert signal.getsignal(signal.SIGALRM) is before


def test_limits_end_with_the_block_and_leave_another_timer_alone() -> None:
    before, timer = resource.getrlimit(resource.RLIMIT_AS), signal.getitimer(signal.ITIMER_REAL)
    rang = threading.Event()
    handler = signal.signal(signal.SIGALRM, lambda *_: rang.set())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with bounded(seconds=60, room=1 << 24):
            with pytest.raises(MemoryError):
                bytearray(1 << 26)
            assert not rang.wait(0.4)
        assert rang.wait(5)
        assert resource.getrlimit(resource.RLIMIT_AS) == before
    finally:
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, *timer)
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(ChatTemplate("{{ messages[0].role }}", SPECIAL)(TALK)))
    thread.start()
    thread.join(60)
    assert found == ["system"]
