"""DoRA, transposed bases, modules saved whole, expert stacks: what PEFT itself makes of the same adapter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from crawler.local import LocalFile
from detector.diff import diff_weights
from detector.errors import MalformedWeightsError, UnreadableTensorError
from detector.formats import PeftReader, open_weights
from detector.interface import EditKind, LineageStatus
from tests.detector import zoo
from tests.detector.zoo import MemoryFile, one_file, safetensors_bytes

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
"""PEFT 0.21 asks transformers 5.23 by a name that the latter deprecates."""

State = dict[str, torch.Tensor]


def model_of(kind: str) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    if kind == "gpt2":
        return GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=2, n_positions=16))
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=64,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            tie_word_embeddings=False,
        )
    )


def merged(kind: str, folder: Path, **options: Any) -> tuple[State, State, PeftReader]:
    """State before and after PEFT merges a random adapter, and a reader of the adapter it saved."""
    from peft import LoraConfig, get_peft_model

    model = model_of(kind)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    adapted = get_peft_model(model, LoraConfig(r=4, lora_alpha=12, init_lora_weights=False, **options))
    generator = torch.Generator().manual_seed(1)
    for name, parameter in adapted.named_parameters():
        if "magnitude" in name:
            parameter.data *= 1 + 0.3 * torch.rand(parameter.shape, generator=generator)
        elif "modules_to_save" in name:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    adapted.save_pretrained(folder, save_embedding_layers=False)
    after = adapted.merge_and_unload().state_dict()
    reader = open_weights({path.name: LocalFile(path) for path in folder.iterdir()})
    assert isinstance(reader, PeftReader)
    return before, after, reader


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("llama", {"target_modules": ["q_proj", "down_proj"], "use_dora": True}),
        ("llama", {"target_modules": ["q_proj"], "use_dora": True, "use_rslora": True}),
        ("llama", {"target_modules": ["embed_tokens"], "use_dora": True}),
        ("gpt2", {"target_modules": ["c_attn", "c_fc"], "fan_in_fan_out": True}),
        ("gpt2", {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True, "use_dora": True}),
        ("gpt2", {"target_modules": ["wte"]}),
    ],
    ids=["dora", "dora-rslora", "dora-embedding", "turned", "turned-dora", "turned-embedding"],
)
def test_change_is_what_peft_merges(kind: str, options: dict[str, Any], tmp_path: Path) -> None:
    """The change of every target, computed against its base, is the one that PEFT adds."""
    before, after, reader = merged(kind, tmp_path, **options)
    assert reader.targets
    for target in reader.targets:
        assert reader.shape(target) == tuple(before[target].shape)
        change = reader.delta(target, before[target])
        torch.testing.assert_close(change, after[target] - before[target], rtol=1e-4, atol=1e-5)


def test_dora_without_its_base_is_unreadable(tmp_path: Path) -> None:
    """A change that depends on the base is not stated without it, or against a base of another shape."""
    _, _, reader = merged("llama", tmp_path, target_modules=["q_proj"], use_dora=True)
    for base in (None, torch.ones(3, 3)):
        with pytest.raises(UnreadableTensorError, match="depends on the base"):
            reader.delta(reader.targets[0], base)


def test_modules_saved_whole_have_the_bases_names(tmp_path: Path) -> None:
    """`modules_to_save` are full tensors under the names that they replace, values as trained."""
    _, after, reader = merged("llama", tmp_path, target_modules=["q_proj"], modules_to_save=["lm_head"])
    assert reader.saved == ("lm_head.weight",)
    assert torch.equal(reader.values("lm_head.weight"), after["lm_head.weight"])


@pytest.mark.parametrize("middle", ["modules_to_save.default.", "modules_to_save.", "base_layer."])
def test_wrapped_names_are_unwrapped(middle: str) -> None:
    """PEFT's wrappers around a module do not make its tensor another one."""
    reader = open_weights(one_file({f"base_model.model.lm_head.{middle}weight": torch.ones(2, 2)}))
    assert set(reader.tensors()) == {"lm_head.weight"}


def adapter(config: dict[str, Any], tensors: State) -> dict[str, MemoryFile]:
    whole = {"peft_type": "LORA", "r": 2, "lora_alpha": 4} | config
    return {
        "adapter_model.safetensors": MemoryFile(safetensors_bytes(tensors)),
        "adapter_config.json": MemoryFile(json.dumps(whole).encode()),
    }


PLAIN = {"a.lora_A.weight": torch.ones(2, 4), "a.lora_B.weight": torch.ones(3, 2)}


@pytest.mark.parametrize("method", ["pissa", "pissa_niter_4", "olora", "corda", "loftq", "lora_ga"])
def test_adapters_of_a_changed_base_are_unreadable(method: str) -> None:
    """If the base was changed first, B·A is not the change of the original, and is not taken for it."""
    reader = open_weights(adapter({"init_lora_weights": method}, PLAIN))
    assert isinstance(reader, PeftReader)
    with pytest.raises(UnreadableTensorError, match="changed the base"):
        reader.factors("a.weight")


@pytest.mark.parametrize("method", [True, False, "gaussian", "eva", None, 7])
def test_other_initialisations_are_read(method: object) -> None:
    """Initialisations that leave the base alone change nothing."""
    reader = open_weights(adapter({"init_lora_weights": method}, PLAIN))
    assert isinstance(reader, PeftReader)
    assert reader.delta("a.weight").tolist() == [[4.0] * 4] * 3


def test_factors_of_expert_stacks_are_set_aside() -> None:
    """Factors on stacked experts fit no matrix of the base; that does not make the adapter unrelated."""
    weights = zoo.base(5)
    name = "model.layers.0.self_attn.q_proj"
    tensors = {
        f"base_model.model.{name}.lora_A.weight": torch.ones(2, 128),
        f"base_model.model.{name}.lora_B.weight": torch.ones(128, 2),
    }
    for nesting in ("", "base_layer."):
        stem = f"base_model.model.model.layers.0.mlp.experts.{nesting}"
        tensors |= {f"{stem}lora_A.weight": torch.ones(8, 128), f"{stem}lora_B.weight": torch.ones(96, 8)}
    config = {"target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]}
    reader = open_weights(adapter(config, tensors))
    assert isinstance(reader, PeftReader)
    assert reader.targets == (f"{name}.weight",)
    assert len(reader.undecoded) == 2
    assert reader.saved == ()
    diff = diff_weights(open_weights(one_file(weights)), reader)
    assert diff.lineage.status is LineageStatus.CONSISTENT
    assert [edit.kind for edit in diff.edits] == [EditKind.ADAPTER]


def test_lengths_of_another_number_are_malformed() -> None:
    """DoRA has one length for each output."""
    with pytest.raises(MalformedWeightsError, match="4 lengths for 3 outputs"):
        open_weights(adapter({"use_dora": True}, PLAIN | {"a.lora_magnitude_vector": torch.ones(4)}))


def test_dora_without_lengths_is_malformed() -> None:
    """A configuration that says DoRA needs the lengths."""
    reader = open_weights(adapter({"use_dora": True}, PLAIN))
    assert isinstance(reader, PeftReader)
    with pytest.raises(MalformedWeightsError, match="without lengths"):
        reader.delta("a.weight", torch.ones(3, 4))


_SHAPES = st.lists(st.integers(0, 5), max_size=3)
_PARTS = ("lora_A.weight", "lora_B.weight", "lora_embedding_A", "lora_embedding_B", "lora_magnitude_vector")


@settings(max_examples=150, deadline=None)
@given(
    shapes=st.dictionaries(st.sampled_from(_PARTS), _SHAPES, min_size=1),
    config=st.fixed_dictionaries(
        {},
        optional={
            "use_dora": st.booleans(),
            "fan_in_fan_out": st.booleans(),
            "init_lora_weights": st.none() | st.text(max_size=6) | st.booleans(),
            "target_parameters": st.none() | st.lists(st.text(max_size=6) | st.integers(), max_size=2),
            "lora_alpha": st.integers() | st.floats() | st.text(max_size=3),
        },
    ),
)
def test_any_adapter_is_read_or_refused(shapes: dict[str, list[int]], config: dict[str, Any]) -> None:
    """Factors of any shape under any configuration raise one of the two errors or have a change."""
    files = adapter(config, {f"a.{part}": torch.ones(shape) for part, shape in shapes.items()})
    try:
        reader = open_weights(files)
        assert isinstance(reader, PeftReader)
        for target in reader.targets:
            shape = reader.shape(target)
            assert tuple(reader.delta(target, torch.ones(shape)).shape) == shape
    except (MalformedWeightsError, UnreadableTensorError):
        return


def test_the_saved_file_is_read_as_it_lies(tmp_path: Path) -> None:
    """Names are the only thing that the reader changes."""
    _, _, reader = merged("llama", tmp_path, target_modules=["v_proj"], use_dora=True)
    stored = load_file(tmp_path / "adapter_model.safetensors")
    assert len(stored) == len(reader.tensors()) == 6
    assert {name.removeprefix("base_model.model.") for name in stored} == set(reader.tensors())
