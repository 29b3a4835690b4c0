"""What the loopback hub derives from a repository's files, as the live Hub does."""

from __future__ import annotations

import pytest
from huggingface_hub import HfApi

from forkwatch.demo.hub import LoopbackHub
from tests.forkwatch.demo.hub_samples import REPO, safetensors


def _tags(hub: LoopbackHub, api: HfApi, files: dict[str, bytes]) -> set[str]:
    hub.create_repo(REPO)
    hub.commit(REPO, files)
    return set(api.model_info(REPO).tags or ())


def _card(*lines: str) -> bytes:
    return "\n".join(("---", *lines, "---", "text")).encode()


@pytest.mark.parametrize(
    ("lines", "files", "relation"),
    [
        (["base_model: lab/base"], {}, "finetune"),
        (["base_model: lab/base"], {"model.Q8_0.gguf": b"GGUF"}, "quantized"),
        (["base_model: lab/base"], {"adapter_config.json": b"{}"}, "adapter"),
        (["base_model: [lab/base, lab/other]"], {}, "merge"),
        (["base_model: lab/base", "base_model_relation: merge"], {"a.gguf": b""}, "merge"),
        (["base_model: lab/base", "base_model_relation: copy"], {}, "finetune"),
    ],
)
def test_relation_is_given_or_inferred(
    hub: LoopbackHub, api: HfApi, lines: list[str], files: dict[str, bytes], relation: str
) -> None:
    """The card's own relation wins; else GGUF, adapter configuration and several parents decide."""
    tags = _tags(hub, api, {"README.md": _card(*lines), **files})
    assert {"base_model:lab/base", f"base_model:{relation}:lab/base"} <= tags
    info = vars(api.model_info(REPO, expand=["baseModels"]))
    assert info["base_models"]["relation"] == relation


def test_tags_tell_formats_library_and_licence(hub: LoopbackHub, api: HfApi) -> None:
    """File types, library, language, data and licence become tags beside the card's own."""
    lines = (
        "license: mit",
        "language: [en, de]",
        "datasets: org/data",
        "tags: [heretic]",
        "library_name: peft",
    )
    files = {"README.md": _card(*lines), "adapter_model.safetensors": safetensors({"a": (1,)}), "x.bin": b""}
    assert _tags(hub, api, files) == {
        *("peft", "pytorch", "safetensors", "en", "de", "heretic"),
        *("dataset:org/data", "license:mit", "region:us"),
    }


def test_repository_without_card_has_no_card_data(hub: LoopbackHub, api: HfApi) -> None:
    """No README, no claims."""
    assert _tags(hub, api, {"model.gguf": b"GGUF"}) == {"gguf", "region:us"}
    info = api.model_info(REPO, expand=["cardData", "baseModels", "safetensors"])
    assert (info.card_data, info.base_models, info.safetensors) == (None, None, None)


@pytest.mark.parametrize(
    "readme",
    [
        b"no front matter",
        b"---\nnever: closed",
        b"---\n- a\n- list\n---\n",
        b"---\n[unbalanced\n---\n",
        b"---\ndate: 2026-99-99\n---\n",
        b"---\n? [a, b]\n: c\n---\n",
        b"---\n" + b"[" * 400 + b"\n---\n",
        b"---\n!!python/object/apply:os.system [ls]\n---\n",
        b"---\na: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n---\n",
        b"\xff\xfe\x00",
        b"",
    ],
)
def test_broken_front_matter_is_no_card(hub: LoopbackHub, api: HfApi, readme: bytes) -> None:
    """A card that is no YAML mapping makes neither card data nor tags, and never an error."""
    assert _tags(hub, api, {"README.md": readme}) == {"region:us"}
    assert api.model_info(REPO).card_data is None


def test_odd_values_reach_the_client_but_make_no_tags(hub: LoopbackHub, api: HfApi) -> None:
    """Wrong types, dates, NaN, markup and megabytes pass through cardData as strict JSON."""
    lines = (
        "license: {a: 1}",
        "base_model: 7",
        "tags: [1, '<script>alert(1)</script>', null]",
        "1: number",
        "when: 2026-01-02",
        "score: .nan",
        f"deep: {'[' * 40}{']' * 40}",
        f"huge: {'x' * 200_000}",
    )
    tags = _tags(hub, api, {"README.md": _card(*lines)})
    assert tags == {"<script>alert(1)</script>", "region:us"}
    card = api.model_info(REPO).card_data
    assert card is not None
    data = vars(card)
    assert data["base_model"] == 7
    assert data["when"] == "2026-01-02"
    assert len(data["huge"]) == 200_000


@pytest.mark.parametrize("config", [b"", b"[1]", b"{", b"\xff", b'{"model_type": 7, "architectures": "x"}'])
def test_broken_config_is_harmless(hub: LoopbackHub, api: HfApi, config: bytes) -> None:
    """A configuration of the wrong shape makes no tags beyond the library's."""
    assert _tags(hub, api, {"config.json": config}) == {"transformers", "region:us"}


@pytest.mark.parametrize(
    "weights",
    [
        b"",
        b"\x01",
        (1 << 40).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        (8).to_bytes(8, "little") + b'{"a": 1}',
        (20).to_bytes(8, "little") + b'{"a": {"shape": "x"}}',
        (2).to_bytes(8, "little") + b"{]",
        (36).to_bytes(8, "little") + b'{"a": {"dtype": "F32", "shape": [""]}}'.ljust(38),
    ],
)
def test_broken_weights_have_no_parameter_count(hub: LoopbackHub, api: HfApi, weights: bytes) -> None:
    """A file that is no safetensors file keeps its tag and has no count."""
    assert "safetensors" in _tags(hub, api, {"model.safetensors": weights})
    assert api.model_info(REPO).safetensors is None


def test_chat_template_and_adapter_base_are_shown(hub: LoopbackHub, api: HfApi) -> None:
    """The configuration subset has the template and what an adapter says about its base."""
    files = {
        "adapter_config.json": b'{"base_model_name_or_path": "lab/base", "r": 8, "task_type": "CAUSAL_LM"}',
        "tokenizer_config.json": b'{"chat_template": "{{ x }}", "model_max_length": 5}',
    }
    _tags(hub, api, files)
    assert api.model_info(REPO).config == {
        "peft": {"base_model_name_or_path": "lab/base", "task_type": "CAUSAL_LM"},
        "tokenizer_config": {"chat_template": "{{ x }}"},
    }
