"""A Llama checkpoint as GGUF Q8_0, laid out as llama.cpp's own converter does it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import gguf
import torch

from forkwatch.demo.families.weights import Weights

if TYPE_CHECKING:
    from transformers import LlamaConfig, PreTrainedTokenizerFast

_NORMAL, _CONTROL = 1, 3
"""`tokenizer.ggml.token_type` values."""


def write_q8_0(
    weights: Weights, config: LlamaConfig, tokenizer: PreTrainedTokenizerFast, path: Path, *, name: str
) -> None:
    """Write matrices as Q8_0 (blocks of 32 along the row, one fp16 scale each) and vectors as F32."""
    writer = gguf.GGUFWriter(path, "llama")
    _metadata(writer, config, name)
    _vocabulary(writer, tokenizer)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for source, tensor in weights.items():
        values = tensor.float()
        module = source.split(".")[-2]
        if module in heads:
            values = permute(values, heads[module])
        target = names.get_name(source, try_suffixes=(".weight",))
        kind = gguf.GGMLQuantizationType.Q8_0 if values.dim() > 1 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(target, gguf.quants.quantize(values.numpy(), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def permute(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Reorder the rows of q and k within each head from transformers' rotary halves to llama.cpp's pairs."""
    halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, weight.shape[1])
    return halves.swapaxes(1, 2).reshape(weight.shape).contiguous()


def _metadata(writer: gguf.GGUFWriter, config: LlamaConfig, name: str) -> None:
    head = config.hidden_size // config.num_attention_heads
    writer.add_name(name)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)


def _vocabulary(writer: gguf.GGUFWriter, tokenizer: PreTrainedTokenizerFast) -> None:
    """Byte-level BPE becomes llama.cpp's `gpt2`; it has no name for a plain word list, which is left out."""
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    if model["type"] == "BPE":
        tokens = [token for token, _ in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])]
        special = set(tokenizer.all_special_tokens)
        pairs = (merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"])
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("smollm")
        writer.add_token_list(tokens)
        writer.add_token_types([_CONTROL if token in special else _NORMAL for token in tokens])
        writer.add_token_merges(list(pairs))
    else:
        writer.add_tokenizer_model("none")
    for add, token in (
        (writer.add_bos_token_id, tokenizer.bos_token_id),
        (writer.add_eos_token_id, tokenizer.eos_token_id),
    ):
        if token is not None:
            add(token)
    writer.add_chat_template(tokenizer.chat_template)
