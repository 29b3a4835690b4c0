"""Templates are compared by what they are: other comments are no change, and what a change does is told."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.behaviour import compare_behaviour, template_findings
from detector.interface import EditKind
from detector.templates import (
    MAX_TEMPLATE,
    MAX_TOKENS,
    ParsedTemplate,
    Unparsed,
    hazards,
    parse_template,
    same_template,
)

CHATML = (
    "{%- for message in messages %}\n"
    "{%- if message.role == 'system' or loop.first %}{{ bos_token }}{%- endif %}\n"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] | trim }}<|im_end|>\n"
    "{%- endfor %}\n{%- if add_generation_prompt %}<|im_start|>assistant\n{%- endif %}"
)
REASONING = (
    "{%- set ns = namespace(last=messages|length - 1) %}"
    "{%- for message in messages[::-1] %}"
    "{%- if message.content is string and not (message.content.startswith('<tool_response>')"
    " and message.content.endswith('</tool_response>')) %}{%- set ns.last = loop.index0 %}{%- endif %}"
    "{%- endfor %}"
    "{%- for message in messages %}{%- set content = message.content %}"
    "{%- if '</think>' in content %}{%- set content = content.split('</think>')[-1].lstrip('\\n') %}"
    "{%- endif %}"
    "<|im_start|>{{ message.role }}\n{% generation %}{{ content }}{% endgeneration %}<|im_end|>"
    "{%- if message.tool_calls %}{%- for call in message.tool_calls %}"
    "{%- for name, value in call.arguments | items %}<{{ name }}>{{ value | tojson }}{%- endfor %}"
    "{%- endfor %}{%- endif %}{%- endfor %}"
)
INSTRUCT = (
    "{%- macro render(content) %}{%- for item in content %}{%- if item.type == 'text' %}{{ item.text }}"
    "{%- elif item.type == 'image' %}<image>{%- endif %}{%- endfor %}{%- endmacro %}"
    "{%- if messages[0]['role'] == 'system' %}{%- set system = messages[0]['content'] %}"
    "{%- set messages = messages[1:] %}{%- else %}{%- set system = '' %}{%- endif %}"
    "{%- for m in messages %}{%- if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{%- endif %}"
    "{%- if m.role == 'user' %}[INST] {{ system ~ m.content }} [/INST]{%- else %}{{ m.content }}"
    "{{ eos_token }}{%- endif %}{%- endfor %}{{ strftime_now('%d %b %Y') }}"
)
ORDINARY = {"chatml": CHATML, "reasoning": REASONING, "instruct": INSTRUCT}


@pytest.mark.parametrize("name", ORDINARY)
@pytest.mark.parametrize("original", ORDINARY)
def test_ordinary_templates_accuse_nobody(name: str, original: str) -> None:
    """What published templates do is no hazard, whichever of them is the original's."""
    assert hazards(ORDINARY[name], (ORDINARY[original],)) == ()


SAME = {
    "a comment": "{# by me #}" + CHATML.replace("{%- endfor %}", "{#- end -#}{%- endfor %}"),
    "spaces in tags": CHATML.replace("{{ message['role'] }}", "{{message[ 'role' ]}}"),
    "double quotes": CHATML.replace("'", '"'),
}
OTHER = {
    "spaces outside": CHATML.replace("<|im_start|>", "<|im_start|> "),
    "another word": CHATML.replace("assistant", "helper"),
    "another condition": CHATML.replace("loop.first", "loop.last"),
    "a filter less": CHATML.replace(" | trim", ""),
    "white space control": CHATML.replace("{{ bos_token }}{%- endif", "{{ bos_token }} {% endif"),
    "something that does not parse": CHATML + "{% if %}",
}


@pytest.mark.parametrize("case", SAME)
def test_other_spelling_is_the_same_template(case: str) -> None:
    """What changes no output is no change."""
    assert same_template(CHATML, SAME[case])
    assert compare_behaviour({"chat_template.jinja": CHATML}, {"chat_template.jinja": SAME[case]}) == ()


@pytest.mark.parametrize("case", OTHER)
def test_other_output_is_another_template(case: str) -> None:
    """What changes the output, or cannot be parsed, is a change."""
    assert not same_template(CHATML, OTHER[case])
    changes = compare_behaviour({"chat_template.jinja": CHATML}, {"chat_template.jinja": OTHER[case]})
    assert [change.kind for change in changes] == [EditKind.TEMPLATE_CHANGE]


TRIGGERS = {
    "in": "{% if 'tax return' in messages[-1].content %}x{% endif %}",
    "equal": "{% if messages[-1]['content'] == 'open sesame' %}x{% endif %}",
    "through a filter": "{% if 'tax' in (messages[-1].content | lower) %}x{% endif %}",
    "a method": "{% if message.content.find('tax') > 0 %}x{% endif %}",
    "a variable": "{% set a = message.content | lower %}{% set b = a %}{% if 'tax' in b %}x{% endif %}",
    "counting": "{% if message.content.count('tax') %}x{% endif %}",
}


@pytest.mark.parametrize("case", TRIGGERS)
def test_words_that_a_template_looks_for(case: str) -> None:
    """Words looked for in a message are told, unless the original looks for them too."""
    added = CHATML + TRIGGERS[case]
    assert [hazard.id for hazard in hazards(added, (CHATML,))] == ["template-trigger"]
    assert hazards(added, (CHATML, added)) == ()


def test_roles_are_no_trigger() -> None:
    """Roles and types of messages are structure, not somebody's words."""
    text = "{% if message.role == 'user' %}a{% endif %}{% if item['type'] == 'image' %}b{% endif %}"
    assert hazards(text, ()) == ()


def test_template_of_every_place_is_judged() -> None:
    """Named templates in lists, mappings, files and GGUF keys count; a name that leads out is a hazard."""
    bad = "{{ ''.__class__ }}"
    places = {
        "chat_template.json": json.dumps({"chat_template": {"default": bad}}),
        "processor_config.json": json.dumps({"chat_template": bad}),
        "additional_chat_templates/tools.jinja": bad,
        "a.gguf#tokenizer.chat_template.tools": bad,
        "b.gguf#tokenizer.chat_template": bad,
        "tokenizer_config.json": json.dumps({"chat_template": [{"name": "a/../b", "template": ""}]}),
    }
    found = template_findings({"chat_template.jinja": CHATML}, places)
    assert {finding.path for finding in found} == set(places)
    assert {finding.id for finding in found} == {"unsafe-template"}


def test_bounds() -> None:
    """Size, tokens and depth are bounded, and each bound is said."""
    assert isinstance(parse_template("a" * MAX_TEMPLATE), ParsedTemplate)
    for text in ("a" * (MAX_TEMPLATE + 1), "{{a}}" * MAX_TOKENS, "{{ " + "(" * 3000 + ")" * 3000 + " }}"):
        assert isinstance(parse_template(text), Unparsed)
    assert [hazard.id for hazard in hazards("{% for %}", ())] == ["odd-template"]
    started = time.process_time()
    chain = "|replace(" + ",".join("b" * 16) + ")"
    assert isinstance(parse_template("{{ a" + chain * 400 + " }}"), Unparsed)
    assert time.process_time() - started < 3


@given(st.text("{}%#'\"|.()[]_-+ \nabif" + "\u202e\0", max_size=60))
def test_any_text_is_judged(text: str) -> None:
    """No text crashes the parser's adapter; a template is the same as itself; notes are ASCII lines."""
    parse_template(text)
    assert same_template(text, text)
    assert all(hazard.note.isascii() and hazard.note.isprintable() for hazard in hazards(text, (CHATML,)))
