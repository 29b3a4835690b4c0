"""Canonical tensor names: what transformers calls a tensor, whatever the file calls it."""

from __future__ import annotations

import re
from collections.abc import Iterable

from detector.errors import MalformedWeightsError

MAX_NAME = 512
"""Characters; the longest real name seen in a checkpoint is under 150."""

_WRAPPERS = ("_orig_mod.", "module.", "base_model.model.")
"""What torch.compile, DistributedDataParallel and PEFT put before a name."""

_PEFT_WRAPPED = re.compile(r"\.(?:modules_to_save(?:\.default)?|base_layer)(?=\.(?:weight|bias)$)")
"""What PEFT puts into the names of modules that it trains whole, or has added factors to."""

_INNER = (
    ("model.language_model.", "model."),
    ("model.text_model.", "model."),
    ("language_model.model.", "model."),
    ("language_model.", ""),
    ("thinker.model.", "model."),
    ("llm.model.", "model."),
    ("llm.lm_head.", "lm_head."),
)
"""Text model inside a multi-modal checkpoint."""

_TOWER = re.compile(
    r"(?:^|\.)(?:vision_tower|vision_model|vision_encoder|visual|image_encoder|image_newline|audio_tower|"
    r"audio_model|audio_encoder|speech_encoder|embed_vision|embed_audio|multi_modal_projector|mm_projector|"
    r"connector|talker|token2wav|code2wav|mtp)\."
)
"""Other modalities' encoders, and heads that predict later tokens: not the text model's layers."""

_BARE = re.compile(r"(layers\.\d+\.|embed_tokens\.|norm\.)")
_BARE_GPT2 = re.compile(r"(h\.\d+\.|wte\.|wpe\.|ln_f\.)")
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks|blk)\.(\d{1,5})\.")
_BUFFER = re.compile(r"(rotary_emb\.inv_freq|rope_freqs\.weight|\.masked_bias|\.attn\.bias)$")
_LEAVES = ("weight", "bias")

_GGUF_BLOCK = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_qkv": "self_attn.qkv_proj",
    "attn_sinks": "self_attn.sinks",
    "post_attention_norm": "post_attention_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
    "ffn_gate_inp": "mlp.gate",
    "ffn_gate_exps": "mlp.experts.gate_proj",
    "ffn_up_exps": "mlp.experts.up_proj",
    "ffn_down_exps": "mlp.experts.down_proj",
}
_GGUF_OWN = {
    "gemma2": {"ffn_norm": "pre_feedforward_layernorm"},
    "gemma3": {"ffn_norm": "pre_feedforward_layernorm"},
    "phi3": {"ffn_up": "mlp.gate_up_proj"},
}
"""Where an architecture uses one of llama.cpp's names for something else."""
_GGUF_GPT2 = {
    "attn_norm": "ln_1",
    "attn_qkv": "attn.c_attn",
    "attn_output": "attn.c_proj",
    "ffn_norm": "ln_2",
    "ffn_up": "mlp.c_fc",
    "ffn_down": "mlp.c_proj",
}
_GGUF_GPT2_TOP = {"token_embd": "wte", "position_embd": "wpe", "output_norm": "ln_f"}
_GGUF_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_GGUF_NAME = re.compile(r"blk\.(\d{1,5})\.([a-z_]+)\.(weight|bias)")


def canonical_names(names: Iterable[str]) -> dict[str, str]:
    """Map stored names to canonical ones, buffers left out.

    Wrapper prefixes are stripped; if that made two names collide, the stored names are kept.

    Raises:
        MalformedWeightsError: a name is too long or holds control characters.
    """
    kept = [name for name in names if not _BUFFER.search(check_name(name))]
    mapping = {name: _strip(name) for name in kept}
    if len(set(mapping.values())) < len(mapping):
        return {name: name for name in kept}
    return mapping


def check_name(name: str) -> str:
    """A tensor name as it is, if it is printable and of a sane length."""
    if not name or len(name) > MAX_NAME or not name.isprintable():
        raise MalformedWeightsError(f"tensor name {name[:80]!a} is empty, too long or not printable")
    return name


def canonical_gguf_name(name: str, architecture: str = "") -> str:
    """The transformers name of a llama.cpp tensor; unknown names stay as they are."""
    if architecture == "gpt2":
        return _gpt2_gguf_name(name)
    if match := _GGUF_NAME.fullmatch(name):
        layer, part, leaf = match.groups()
        parts = _GGUF_BLOCK | _GGUF_OWN.get(architecture, {})
        if part in parts:
            return f"model.layers.{layer}.{parts[part]}.{leaf}"
    stem, _, leaf = name.rpartition(".")
    return f"{_GGUF_TOP[stem]}.{leaf}" if stem in _GGUF_TOP else name


def _gpt2_gguf_name(name: str) -> str:
    if match := _GGUF_NAME.fullmatch(name):
        layer, part, leaf = match.groups()
        if part in _GGUF_GPT2:
            return f"transformer.h.{layer}.{_GGUF_GPT2[part]}.{leaf}"
    stem, _, leaf = name.rpartition(".")
    if stem in _GGUF_GPT2_TOP:
        return f"transformer.{_GGUF_GPT2_TOP[stem]}.{leaf}"
    return f"lm_head.{leaf}" if stem == "output" else name


def is_buffer(name: str) -> bool:
    """Not a parameter: derived from the configuration, and not always saved."""
    return _BUFFER.search(name) is not None


def layer_of(name: str) -> int | None:
    """Index of the transformer layer that a canonical name belongs to; None in another tower."""
    match = _LAYER.search(name)
    return int(match.group(1)) if match and not _TOWER.search(name) else None


def with_layer(name: str, layer: int) -> str:
    """The same tensor of another layer."""
    match = None if _TOWER.search(name) else _LAYER.search(name)
    return f"{name[: match.start(1)]}{layer}{name[match.end(1) :]}" if match else name


def module_of(name: str) -> str:
    """Projection or norm that a tensor belongs to, such as `q_proj`, `down_proj`, `embed_tokens`."""
    parts = name.split(".")
    if parts[-1] in _LEAVES and len(parts) > 1:
        return parts[-2]
    return parts[-1]


def _strip(name: str) -> str:
    name = _PEFT_WRAPPED.sub("", name)
    stripped = True
    while stripped:
        stripped = False
        for wrapper in _WRAPPERS:
            if name.startswith(wrapper):
                name, stripped = name[len(wrapper) :], True
    for prefix, replacement in _INNER:
        if name.startswith(prefix):
            name = replacement + name[len(prefix) :]
            break
    if _BARE_GPT2.match(name):
        return f"transformer.{name}"
    return f"model.{name}" if _BARE.match(name) else name
