"""`open_weights` opens the files that transformers would load, and says so when there are none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from crawler.local import LocalFile
from detector.errors import MalformedWeightsError, NoWeightsError
from detector.formats import open_adapter, open_weights
from detector.formats.names import canonical_names, layer_of, module_of, with_layer
from tests.detector import zoo
from tests.detector.zoo import MemoryFile, one_file, safetensors_bytes


def test_shards_hold_the_same_tensors() -> None:
    """A sharded checkpoint reads like the single file."""
    weights = zoo.base(2)
    whole, parts = open_weights(one_file(weights)), open_weights(zoo.sharded(weights))
    assert whole.tensors() == parts.tensors()
    assert all(torch.equal(whole.values(name), parts.values(name)) for name in weights)
    assert whole.headers != parts.headers


def test_local_files_are_read(tmp_path: Path) -> None:
    """The crawler's local files serve as sources."""
    (tmp_path / "model.safetensors").write_bytes(safetensors_bytes({"a.weight": torch.ones(2, 2)}))
    reader = open_weights({"model.safetensors": LocalFile(tmp_path / "model.safetensors")})
    assert torch.equal(reader.values("a.weight"), torch.ones(2, 2))


def test_a_missing_shard_is_malformed() -> None:
    """An index that names a shard which is not there is refused before anything is compared."""
    files = zoo.sharded(zoo.base(2))
    del files["model-00002-of-00003.safetensors"]
    with pytest.raises(MalformedWeightsError, match="missing"):
        open_weights(files)


@pytest.mark.parametrize("index", [b"{", b"[]", b'{"weight_map": {}}', b'{"weight_map": {"a": 1}}'])
def test_a_broken_index_is_malformed(index: bytes) -> None:
    """An index that is not one is refused."""
    files = zoo.sharded(zoo.base(2)) | {"model.safetensors.index.json": MemoryFile(index)}
    with pytest.raises(MalformedWeightsError):
        open_weights(files)


def test_a_tensor_in_two_files_is_malformed() -> None:
    """Two shards with the same tensor leave it open which one counts, so neither does."""
    data = MemoryFile(safetensors_bytes({"a.weight": torch.ones(2, 2)}))
    with pytest.raises(MalformedWeightsError, match="two files"):
        open_weights({"model-1.safetensors": data, "model-2.safetensors": data})


@pytest.mark.parametrize("names", [[], ["README.md"], ["pytorch_model.bin"], ["model.gguf.txt"]])
def test_no_weights(names: list[str]) -> None:
    """A repository without a readable weight file is an error of its own."""
    with pytest.raises(NoWeightsError):
        open_weights({name: MemoryFile(b"x") for name in names})


def test_the_single_file_wins_over_an_index() -> None:
    """transformers looks for model.safetensors first, so do we."""
    files = zoo.sharded(zoo.base(2)) | one_file({"a.weight": torch.ones(1, 1)})
    assert set(open_weights(files).tensors()) == {"a.weight"}


def test_the_largest_gguf_is_opened(tmp_path: Path) -> None:
    """Of several quantisations the one with most of the values is compared."""
    weights = zoo.base(2)
    files = zoo.gguf_file(weights, "Q4_0", tmp_path) | zoo.gguf_file(weights, "F16", tmp_path)
    assert open_weights(files).tensors()["model.embed_tokens.weight"].dtype == "F16"


def test_weights_in_a_subfolder_are_found() -> None:
    """The shallowest folder that holds weights counts."""
    files = {f"checkpoint/{path}": data for path, data in one_file({"a.weight": torch.ones(1, 1)}).items()}
    assert set(open_weights(files).tensors()) == {"a.weight"}


def test_an_adapter_beside_full_weights_is_found() -> None:
    """Full weights are opened, and the adapter beside them is not overlooked."""
    weights = zoo.base(2)
    files = one_file(weights) | zoo.adapter_files(weights, 3)
    assert open_weights(files).format == "safetensors"
    assert open_adapter(files) is not None


@pytest.mark.parametrize(
    ("stored", "canonical"),
    [
        ("base_model.model.model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight"),
        ("_orig_mod.module.lm_head.weight", "lm_head.weight"),
        ("layers.7.input_layernorm.weight", "model.layers.7.input_layernorm.weight"),
        ("language_model.model.embed_tokens.weight", "model.embed_tokens.weight"),
        ("model.language_model.norm.weight", "model.norm.weight"),
        ("model.layers.3.self_attn.q_proj.bias", "model.layers.3.self_attn.q_proj.bias"),
    ],
)
def test_prefixes_are_stripped(stored: str, canonical: str) -> None:
    """Wrapper prefixes do not make a tensor another one."""
    assert canonical_names([stored]) == {stored: canonical}


def test_buffers_are_left_out() -> None:
    """Rotary frequencies are not parameters."""
    assert canonical_names(["model.layers.0.self_attn.rotary_emb.inv_freq"]) == {}


def test_colliding_names_are_kept_apart() -> None:
    """If stripping made two tensors one, nothing is stripped."""
    names = ["module.a.weight", "a.weight"]
    assert canonical_names(names) == {name: name for name in names}


def test_name_parts() -> None:
    """Layer and module are read off a name, and the layer can be exchanged."""
    name = "model.layers.12.mlp.experts.3.down_proj.weight"
    assert (layer_of(name), module_of(name)) == (12, "down_proj")
    assert with_layer(name, 4) == "model.layers.4.mlp.experts.3.down_proj.weight"
    assert (layer_of("lm_head.weight"), with_layer("lm_head.weight", 1)) == (None, "lm_head.weight")
