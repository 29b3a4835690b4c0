"""An adapter's delta is what the real PEFT library merges; a broken adapter is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from crawler.local import LocalFile
from detector.diff import diff_weights
from detector.errors import MalformedWeightsError, NoWeightsError, UnreadableTensorError
from detector.formats import PeftReader, open_weights
from detector.interface import Certainty, EditKind
from tests.detector import zoo
from tests.detector.zoo import MemoryFile, one_file, safetensors_bytes

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
"""PEFT 0.21 asks transformers 5.23 by a name that the latter deprecates."""


def peft_merge(folder: Path, **options: Any) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """State dicts before and after merging a random adapter, which is saved to `folder`."""
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    model = LlamaForCausalLM(config)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    adapted = get_peft_model(model, LoraConfig(r=4, lora_alpha=12, init_lora_weights=False, **options))
    adapted.save_pretrained(folder, save_embedding_layers=False)
    return before, adapted.merge_and_unload().state_dict()


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["q_proj", "down_proj"]},
        {"target_modules": ["q_proj"], "use_rslora": True},
        {
            "target_modules": ["q_proj", "up_proj"],
            "rank_pattern": {"up_proj": 2},
            "alpha_pattern": {"up_proj": 5},
        },
        {"target_modules": ["embed_tokens"]},
    ],
    ids=["plain", "rslora", "patterns", "embedding"],
)
def test_delta_is_what_peft_merges(options: dict[str, Any], tmp_path: Path) -> None:
    """Scale, rank pattern, alpha pattern and embedding factors are read as PEFT applies them."""
    before, after = peft_merge(tmp_path, **options)
    reader = open_weights({path.name: LocalFile(path) for path in tmp_path.iterdir()})
    assert isinstance(reader, PeftReader)
    changed = {
        name for name in before if name != "lm_head.weight" and not torch.equal(before[name], after[name])
    }
    assert set(reader.targets) == changed
    for target in reader.targets:
        assert reader.shape(target) == tuple(before[target].shape)
        torch.testing.assert_close(reader.delta(target), after[target] - before[target], rtol=1e-4, atol=1e-5)


def test_dora_depends_on_the_base(tmp_path: Path) -> None:
    """The change of a DoRA adapter is not stated without its base; the adapter itself is still recognised."""
    before, _ = peft_merge(tmp_path, target_modules=["q_proj"], use_dora=True)
    files = {path.name: LocalFile(path) for path in tmp_path.iterdir()}
    reader = open_weights(files)
    assert isinstance(reader, PeftReader)
    with pytest.raises(UnreadableTensorError):
        reader.delta(reader.targets[0])
    diff = diff_weights(open_weights(one_file(before)), reader)
    assert [(edit.kind, edit.detail.modules) for edit in diff.edits] == [(EditKind.ADAPTER, ("q_proj",))]


def test_directional_adapter_is_named(tmp_path: Path) -> None:
    """An adapter that projects one direction out of the residual writers is a directional edit as well."""
    weights = {name: value.float() for name, value in zoo.base(5).items()}
    direction = torch.nn.functional.normalize(
        torch.randn(128, generator=torch.Generator().manual_seed(1)), dim=0
    )
    tensors = {}
    for name, value in weights.items():
        if "o_proj" in name or "down_proj" in name:
            stem = f"base_model.model.{name.removesuffix('.weight')}"
            tensors[f"{stem}.lora_A.weight"] = (direction @ value)[None]
            tensors[f"{stem}.lora_B.weight"] = -direction[:, None].contiguous()
    config = {"peft_type": "LORA", "r": 1, "lora_alpha": 1}
    files = {
        "adapter_model.safetensors": MemoryFile(safetensors_bytes(tensors)),
        "adapter_config.json": MemoryFile(json.dumps(config).encode()),
    }
    diff = diff_weights(open_weights(one_file(weights)), open_weights(files))
    assert {edit.kind for edit in diff.edits} == {EditKind.ADAPTER, EditKind.DIRECTIONAL_EDIT}


def test_benign_adapter_is_not_directional() -> None:
    """A random rank-1 adapter is an adapter and nothing else, proved by its own factors."""
    weights = zoo.base(5)
    diff = diff_weights(open_weights(one_file(weights)), open_weights(zoo.adapter_files(weights, 1, 1)))
    assert [(edit.kind, edit.certainty) for edit in diff.edits] == [(EditKind.ADAPTER, Certainty.PROVED)]


GOOD = {"peft_type": "LORA", "r": 2, "lora_alpha": 4}


@pytest.mark.parametrize(
    "config",
    [
        b"{",
        b"[]",
        json.dumps(GOOD | {"r": 0}).encode(),
        json.dumps(GOOD | {"r": True}).encode(),
        json.dumps(GOOD | {"r": 1 << 40}).encode(),
        json.dumps(GOOD | {"lora_alpha": "8"}).encode(),
        b'{"peft_type": "LORA", "r": 2, "lora_alpha": Infinity}',
        json.dumps(GOOD | {"alpha_pattern": [1]}).encode(),
        b" " * (2 << 20),
    ],
)
def test_a_broken_configuration_is_malformed(config: bytes) -> None:
    """A configuration that is not a plain LoRA one is refused; its patterns are never run as expressions."""
    files = zoo.adapter_files(zoo.base(2), 1) | {"adapter_config.json": MemoryFile(config)}
    with pytest.raises(MalformedWeightsError):
        open_weights(files)


@pytest.mark.parametrize(
    "tensors",
    [
        {"a.lora_A.weight": torch.ones(2, 4)},
        {"a.lora_A.weight": torch.ones(2, 4), "a.lora_B.weight": torch.ones(4, 3)},
        {"a.lora_A.weight": torch.ones(2), "a.lora_B.weight": torch.ones(4, 2)},
    ],
    ids=["half", "ranks differ", "vector"],
)
def test_factors_that_do_not_multiply_are_malformed(tensors: dict[str, torch.Tensor]) -> None:
    """Factors must come in pairs whose ranks agree."""
    files = {
        "adapter_model.safetensors": MemoryFile(safetensors_bytes(tensors)),
        "adapter_config.json": MemoryFile(json.dumps(GOOD).encode()),
    }
    with pytest.raises(MalformedWeightsError):
        open_weights(files)


def test_factors_without_configuration_are_malformed() -> None:
    """Without its configuration an adapter's scale is unknown."""
    files = zoo.adapter_files(zoo.base(2), 1)
    del files["adapter_config.json"]
    with pytest.raises(MalformedWeightsError):
        open_weights(files)


def test_configuration_alone_is_no_weights() -> None:
    """A configuration without factors is a repository without weights."""
    files = zoo.adapter_files(zoo.base(2), 1)
    del files["adapter_model.safetensors"]
    with pytest.raises(NoWeightsError):
        open_weights(files)
