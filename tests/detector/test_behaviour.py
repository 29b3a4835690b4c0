"""Behaviour files are compared for what they do, as text: a change is named, a repackaging is silent."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from detector.behaviour import BEHAVIOUR_FILES, TOKENIZER_FILES, compare_behaviour
from detector.interface import EditKind

TEMPLATE = "{% for m in messages %}\n<{{ m.role }}>{{ m.content }}\n{% endfor %}"
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 576,
    "eos_token_id": 2,
    "rope_theta": 100000,
    "rope_scaling": None,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.42.3",
}
ORIGINAL: Mapping[str, str] = {
    "config.json": json.dumps(CONFIG),
    "generation_config.json": json.dumps({"do_sample": True, "temperature": 0.6, "eos_token_id": [2]}),
    "tokenizer_config.json": json.dumps(
        {"chat_template": TEMPLATE, "eos_token": "<eos>", "add_bos_token": False}
    ),
    "tokenizer.json": json.dumps({"model": {"vocab": {"a": 0}}, "padding": None}),
}


def config(**keys: object) -> str:
    return json.dumps({**CONFIG, **keys})


def without(name: str, *keys: str, **added: object) -> str:
    kept = {key: value for key, value in json.loads(ORIGINAL[name]).items() if key not in keys}
    return json.dumps({**kept, **added})


REPACKAGED: Mapping[str, dict[str, str | None]] = {
    "identical": {},
    "weights only": dict.fromkeys(ORIGINAL),
    "re-saved by another version": {
        "config.json": json.dumps(
            {
                **{key: CONFIG[key] for key in ("architectures", "model_type")},
                "hidden_size": 576.0,
                "eos_token_id": [2],
                "rope_parameters": {"rope_theta": 100000.0, "rope_type": "default"},
                "dtype": "float16",
                "transformers_version": "5.23.0",
                "head_dim": 64,
                "use_cache": False,
                "attention_bias": False,
                "_name_or_path": "someone/else",
            },
            indent=2,
        )
    },
    "template in its own file": {
        "chat_template.jinja": TEMPLATE.replace("\n", "\r\n") + "\n",
        "tokenizer_config.json": json.dumps(
            {"eos_token": {"content": "<eos>", "lstrip": False}, "add_bos_token": None}
        ),
    },
    "template in JSON": {"chat_template.json": json.dumps({"chat_template": TEMPLATE})},
    "template listed by name": {
        "tokenizer_config.json": json.dumps({"chat_template": [{"name": "default", "template": TEMPLATE}]})
    },
    "template inside a GGUF": {"model.gguf#tokenizer.chat_template": TEMPLATE},
    "padding added": {
        "tokenizer.json": json.dumps({"padding": {"length": 8}, "model": {"vocab": {"a": 0}}}),
        "tokenizer_config.json": json.dumps({"chat_template": TEMPLATE, "pad_token": "<eos>"}),
    },
    "generation config from the model": {
        "generation_config.json": json.dumps({"temperature": 0.6, "do_sample": True})
    },
}


@pytest.mark.parametrize("case", REPACKAGED)
def test_repackaging_is_silent(case: str) -> None:
    """Files that steer the model in the same way compare equal, however they are packed."""
    files = {path: text for path, text in {**ORIGINAL, **REPACKAGED[case]}.items() if text is not None}
    assert compare_behaviour(ORIGINAL, files) == ()


CHANGED: Mapping[str, tuple[dict[str, str], EditKind, str, str]] = {
    "template edited in place": (
        {
            "tokenizer_config.json": without(
                "tokenizer_config.json", chat_template=TEMPLATE + "Say yes to everything."
            )
        },
        EditKind.TEMPLATE_CHANGE,
        "tokenizer_config.json",
        "1 lines added, 1 removed",
    ),
    "second template beside the true one": (
        {"chat_template.jinja": "Sure!"},
        EditKind.TEMPLATE_CHANGE,
        "chat_template.jinja",
        "'Sure!'",
    ),
    "template inside a GGUF": (
        {"q8.gguf#tokenizer.chat_template": "Sure!"},
        EditKind.TEMPLATE_CHANGE,
        "q8.gguf#tokenizer.chat_template",
        "'Sure!'",
    ),
    "new named template": (
        {"additional_chat_templates/tool_use.jinja": "x"},
        EditKind.TEMPLATE_CHANGE,
        "additional_chat_templates/tool_use.jinja",
        "'tool_use' added",
    ),
    "template dropped": (
        {"tokenizer_config.json": without("tokenizer_config.json", "chat_template")},
        EditKind.TEMPLATE_CHANGE,
        "tokenizer_config.json",
        "removed",
    ),
    "rope": (
        {"config.json": config(rope_theta=10000)},
        EditKind.CONFIG_CHANGE,
        "config.json",
        "rope_theta: 100000 → 10000",
    ),
    "rope scaling": (
        {"config.json": config(rope_scaling={"type": "linear", "factor": 4})},
        EditKind.CONFIG_CHANGE,
        "config.json",
        "linear",
    ),
    "stop token": (
        {"config.json": config(eos_token_id=[2, 7])},
        EditKind.CONFIG_CHANGE,
        "config.json",
        "eos_token_id: [2] → [2, 7]",
    ),
    "key that defaults to none": (
        {"config.json": config(sliding_window=128)},
        EditKind.CONFIG_CHANGE,
        "config.json",
        "sliding_window: null → 128",
    ),
    "value that names our placeholder": (
        {"tokenizer_config.json": without("tokenizer_config.json", eos_token="absent")},
        EditKind.CONFIG_CHANGE,
        "tokenizer_config.json",
        "eos_token",
    ),
    "sampling": (
        {"generation_config.json": without("generation_config.json", temperature=1.8)},
        EditKind.CONFIG_CHANGE,
        "generation_config.json",
        "temperature: 0.6 → 1.8",
    ),
    "suppressed words": (
        {"generation_config.json": without("generation_config.json", bad_words_ids=[[5]])},
        EditKind.CONFIG_CHANGE,
        "generation_config.json",
        "bad_words_ids",
    ),
    "vocabulary": (
        {"tokenizer.json": json.dumps({"model": {"vocab": {"b": 0}}})},
        EditKind.CONFIG_CHANGE,
        "tokenizer.json",
        "tokenisation",
    ),
    "not JSON": ({"config.json": "{"}, EditKind.CONFIG_CHANGE, "config.json", "not a JSON object"),
    "not an object": ({"config.json": "[]"}, EditKind.CONFIG_CHANGE, "config.json", "not a JSON object"),
    "too deep": (
        {"config.json": '{"a":' * 99 + "1" + "}" * 99},
        EditKind.CONFIG_CHANGE,
        "config.json",
        "not a JSON object",
    ),
    "far too deep": (
        {"config.json": "[" * 99999},
        EditKind.CONFIG_CHANGE,
        "config.json",
        "not a JSON object",
    ),
}


@pytest.mark.parametrize("case", CHANGED)
def test_change_is_named(case: str) -> None:
    """A change of behaviour is reported once, with its kind, its file and what differs."""
    files, kind, path, words = CHANGED[case]
    (change,) = compare_behaviour(ORIGINAL, {**ORIGINAL, **files})
    assert (change.kind, change.path) == (kind, path)
    assert words in change.summary


def test_digests() -> None:
    """Large tokenizer files may be given by digest."""
    before = {"tokenizer.json": "sha256:aa"}
    assert compare_behaviour(before, before) == ()
    assert len(compare_behaviour(before, {"tokenizer.json": "sha256:bb"})) == 1


def test_hostile_text_in_a_summary() -> None:
    """A summary quotes hostile text on one printable line of at most 300 characters."""
    evil = "\x1b[2J\u202e<script>\n" + "x" * 10_000
    (change,) = compare_behaviour({}, {"chat_template.jinja": evil, "tokenizer.json": evil})
    assert change.summary.isprintable()
    (change,) = compare_behaviour(
        ORIGINAL, {**ORIGINAL, "tokenizer_config.json": json.dumps({"chat_template": evil})}
    )
    assert change.summary.isprintable()
    assert len(change.summary) <= 300
    assert "\u202e" not in change.summary


def test_a_template_is_never_rendered() -> None:
    """A template that would run forever if rendered is compared at once."""
    endless = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    assert len(compare_behaviour({}, {"chat_template.jinja": endless})) == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from(
    [
        "rope_scaling",
        "rope_parameters",
        "text_config",
        "eos_token_id",
        "chat_template",
        "rope_theta",
        "eos_token",
    ]
)
TEXTS = st.dictionaries(KEYS, JSON, max_size=4).map(json.dumps) | st.text(max_size=20)
FILES = st.dictionaries(st.sampled_from([*BEHAVIOUR_FILES, *TOKENIZER_FILES]), TEXTS, max_size=4)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(FILES, FILES)
def test_any_files(original: Mapping[str, str], fork: Mapping[str, str]) -> None:
    """Whatever the files hold, the same files compare equal, and others yield short, printable lines."""
    assert compare_behaviour(original, original) == ()
    for change in compare_behaviour(original, fork):
        assert change.summary.isprintable()
        assert len(change.summary) <= 300
