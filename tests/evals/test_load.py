"""A fork's numbers are put into the original's model, exactly, or not at all."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFWriter
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

from evals.load import load_original
from evals.parts import ForkMisfitError, LocalFile
from evals.swap import apply_fork
from tests.evals.models import HIDDEN, WORDS, make_model, save_release, save_weights

UP = "model.layers.0.mlp.up_proj.weight"
HEAD = "lm_head.weight"
EMBEDDING = "model.embed_tokens.weight"
IDS = torch.tensor([[2, 10, 11, 3]])


def logits(model: LlamaForCausalLM) -> torch.Tensor:
    with torch.inference_mode():
        output: torch.Tensor = model(input_ids=IDS).logits
    return output


def changed(model: LlamaForCausalLM, by: float = 0.05) -> LlamaForCausalLM:
    """The same model with every matrix moved."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(by * torch.randn_like(parameter))
    return model


def test_the_original_loads_as_released(tmp_path: Path) -> None:
    """Dtype, evaluation mode and end token are kept; the release's sampling defaults are not."""
    model = make_model()
    model.generation_config.update(do_sample=True, temperature=0.2, repetition_penalty=1.3)
    loaded, tokenizer = load_original(save_release(tmp_path, model), "cpu")
    assert loaded.dtype is torch.bfloat16
    assert not loaded.training
    assert not loaded.generation_config.do_sample
    assert loaded.generation_config.repetition_penalty is None
    assert tokenizer.chat_template
    torch.testing.assert_close(logits(loaded), logits(model), rtol=0, atol=0)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_fork_behaves_as_if_loaded_itself(tmp_path: Path, *, tied: bool, dtype: torch.dtype) -> None:
    """After the swap the model computes exactly what the fork computes, also when stored wider."""
    fork = changed(make_model(tied=tied))
    wider = {name.replace(".", "__"): tensor.to(dtype) for name, tensor in fork.named_parameters()}
    path = save_weights(tmp_path, fork, **wider)
    model = make_model(tied=tied)
    assert apply_fork(model, [path]) == ()
    torch.testing.assert_close(logits(model), logits(fork), rtol=0, atol=0)


def test_shards_are_one_checkpoint(tmp_path: Path) -> None:
    """Several shards, given as files, are read together."""
    fork = changed(make_model())
    fork.save_pretrained(tmp_path, max_shard_size="60KB")
    shards = sorted(tmp_path.glob("*.safetensors"))
    assert len(shards) > 1
    model = make_model()
    apply_fork(model, shards)
    torch.testing.assert_close(logits(model), logits(fork), rtol=0, atol=0)


def test_gguf_is_dequantised(tmp_path: Path) -> None:
    """A GGUF of the same values, written under llama.cpp's names, gives the same model."""
    fork = changed(make_model(dtype=torch.float32))
    path = write_gguf(tmp_path / "fork.gguf", fork)
    model = make_model(dtype=torch.float32)
    apply_fork(model, [path])
    torch.testing.assert_close(logits(model), logits(fork))


def write_gguf(path: Path, model: LlamaForCausalLM) -> Path:
    """llama.cpp's layout: its names, and query and key rows in rotary pairs."""
    names = {
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "lm_head": "output",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "model.layers": "blk",
    }
    writer = GGUFWriter(path, "llama")
    writer.add_block_count(2)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    for name, tensor in model.state_dict().items():
        values = tensor.numpy()
        for heads, part in ((4, "q_proj"), (2, "k_proj")):
            if part in name:
                pairs = values.reshape(heads, 2, values.shape[0] // heads // 2, values.shape[1])
                values = pairs.swapaxes(1, 2).reshape(values.shape)
        theirs = name
        for ours, llama in names.items():
            theirs = theirs.replace(ours, llama)
        writer.add_tensor(theirs, np.ascontiguousarray(values), raw_dtype=GGMLQuantizationType.F32)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def save_adapter(folder: Path, base: LlamaForCausalLM, **options: object) -> torch.Tensor:
    """A PEFT adapter of random factors; returns the logits of the adapted model, merged by PEFT itself."""
    torch.manual_seed(2)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"], **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT uses what transformers has just deprecated
        adapted = get_peft_model(base, config)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name or "modules_to_save" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    adapted.save_pretrained(folder)
    return logits(adapted.merge_and_unload())


@pytest.mark.parametrize("options", [{}, {"modules_to_save": ["lm_head"]}, {"use_rslora": True}])
def test_an_adapter_is_merged_as_peft_merges(tmp_path: Path, options: dict[str, object]) -> None:
    """Our algebra agrees with PEFT's own merge, rank-stabilised and with modules shipped whole."""
    expected = save_adapter(tmp_path, make_model(dtype=torch.float32), **options)
    model = make_model(dtype=torch.float32)
    apply_fork(model, [tmp_path])
    torch.testing.assert_close(logits(model), expected)


def test_an_adapter_beside_full_weights_is_not_overlooked(tmp_path: Path) -> None:
    """Full weights and an adapter in one folder are applied both, as transformers does."""
    fork = changed(make_model(dtype=torch.float32))
    save_weights(tmp_path, fork)
    expected = save_adapter(tmp_path, fork)
    model = make_model(dtype=torch.float32)
    apply_fork(model, [tmp_path])
    torch.testing.assert_close(logits(model), expected)


def test_more_vocabulary_rows_are_ignored_and_noted(tmp_path: Path) -> None:
    """Tokens that the original does not have are cut off, and the result says so."""
    fork = changed(make_model())
    wide = {f"{name.replace('.', '__')}": torch.cat([tensor, torch.ones(3, HIDDEN).bfloat16()])
            for name, tensor in fork.state_dict().items() if name in {HEAD, EMBEDDING}}  # fmt: skip
    model = make_model()
    notes = apply_fork(model, [save_weights(tmp_path, fork, **wide)])
    assert notes == ("3 vocabulary rows beyond the original's were ignored",)
    torch.testing.assert_close(logits(model), logits(fork), rtol=0, atol=0)


@pytest.mark.parametrize("same", [True, False])
def test_a_fork_may_untie_its_head(tmp_path: Path, *, same: bool) -> None:
    """An original that shares head and embedding takes a fork's own head; an equal one changes nothing."""
    fork = make_model(tied=True)
    head = fork.model.embed_tokens.weight.detach() * (1 if same else 2)
    model = make_model(tied=True)
    apply_fork(model, [save_weights(tmp_path, fork, lm_head__weight=head)])
    shared = model.lm_head.weight is model.model.embed_tokens.weight
    assert shared == same
    torch.testing.assert_close(logits(model), logits(fork) * (1 if same else 2))


WHOLE = torch.zeros(96, HIDDEN, dtype=torch.bfloat16)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({UP: None}, "1 tensors are missing, first model.layers.0.mlp.up_proj"),
        ({"model.layers.7.mlp.up_proj.weight": WHOLE}, "1 tensors are foreign, first model.layers.7"),
        ({UP: WHOLE[:5]}, r"has shape \[5, 64\], the original \[96, 64\]"),
        ({UP: WHOLE.T}, "has shape"),
        ({EMBEDDING: torch.zeros(3, HIDDEN)}, "has shape"),
        ({UP: WHOLE + torch.nan}, "not finite"),
        ({UP: WHOLE - torch.inf}, "not finite"),
        ({UP: WHOLE.to(torch.int8)}, "torch.int8"),
    ],
)
def test_what_does_not_fit_is_refused(
    tmp_path: Path, tensors: dict[str, torch.Tensor | None], message: str
) -> None:
    """Missing, foreign, misshapen, non-finite and integer tensors are a misfit with the reason, no crash."""
    replaced = {name.replace(".", "__"): values for name, values in tensors.items()}
    path = save_weights(tmp_path, make_model(), **replaced)
    with pytest.raises(ForkMisfitError, match=message):
        apply_fork(make_model(), [path])


def test_values_that_overflow_the_originals_dtype_are_refused(tmp_path: Path) -> None:
    """A number that becomes infinite in the original's dtype is not a number of this model."""
    path = save_weights(tmp_path, make_model(), **{UP.replace(".", "__"): WHOLE.float() + 1e6})
    with pytest.raises(ForkMisfitError, match="not finite"):
        apply_fork(make_model(dtype=torch.float16), [path])


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def make_garbage(path: Path) -> None:
    path.write_bytes(b"\xff" * 1000)


@pytest.mark.parametrize("damage", [truncate, make_garbage, Path.unlink])
def test_damaged_files_are_refused(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    """A truncated, nonsensical or missing file is a misfit, no crash."""
    path = save_weights(tmp_path, make_model())
    damage(path)
    with pytest.raises(ForkMisfitError, match="cannot be read"):
        apply_fork(make_model(), [path])


@pytest.mark.parametrize(
    ("rename", "message"),
    [("layers.1.", "does not have"), ("up_proj", "another shape")],
)
def test_a_foreign_adapter_is_refused(tmp_path: Path, rename: str, message: str) -> None:
    """An adapter for a layer that is not there, or for another shape, is a misfit."""
    save_adapter(tmp_path, make_model())
    path = tmp_path / "adapter_model.safetensors"
    source, target = ("layers.1.", "layers.9.") if rename == "layers.1." else ("down_proj", "up_proj")
    save_file({name.replace(source, target): tensor for name, tensor in load_file(path).items()}, path)
    with pytest.raises(ForkMisfitError, match=message):
        apply_fork(make_model(), [tmp_path])


def test_a_damaged_adapter_config_is_refused(tmp_path: Path) -> None:
    """An adapter whose configuration we do not understand is a misfit."""
    save_adapter(tmp_path, make_model())
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LOHA"}))
    with pytest.raises(ForkMisfitError, match="LoRA"):
        apply_fork(make_model(), [tmp_path])


def test_local_files_read_exactly(tmp_path: Path) -> None:
    """A range is read whole, or refused when the file ends before."""
    (tmp_path / "f").write_bytes(bytes(range(100)))
    file = LocalFile(tmp_path / "f")
    assert (file.size, file.read(10, 3), file.read(0, 0)) == (100, b"\x0a\x0b\x0c", b"")
    with pytest.raises(ForkMisfitError, match="truncated"):
        file.read(90, 11)


def test_the_vocabulary_fits_the_model() -> None:
    """The automata need one hidden dimension a word."""
    assert len(WORDS) <= HIDDEN
