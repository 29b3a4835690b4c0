"""Canonical tensor names: what transformers calls a tensor, whatever the file calls it."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping

from detector.errors import MalformedWeightsError

MAX_NAME = 512
"""Characters; the longest real name seen in a checkpoint is under 150."""

_WRAPPERS = ("_orig_mod.", "module.", "base_model.model.")
"""What torch.compile, DistributedDataParallel and PEFT put before a name."""

_PEFT_WRAPPED = re.compile(r"\.(?:modules_to_save(?:\.default)?|base_layer)(?=\.(?:weight|bias)$)")
"""What PEFT puts into the names of modules that it trains whole, or has added factors to."""

_INNER = (
    ("model.language_model.lm_head.", "lm_head."),
    ("model.language_model.", "model."),
    ("language.model.", "model."),
    ("language.lm_head.", "lm_head."),
    ("thinker.lm_head.", "lm_head."),
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
    r"connector|talker|token2wav|code2wav|mtp|nextn|vision|audio|vpm|apm|tts|img_processor|image_embed|"
    r"embed_tokens_extend|image_vit|vision_backbone|visual_tokenizer|vision_tokenizer|gen_vision_model|"
    r"sam_model|qformer|resampler|perceiver|speech_generator|code_predictor)\."
)
"""Other modalities' encoders, and heads that predict later tokens: not the text model's layers."""

_LATER = re.compile(r"\.(?:eh_proj|enorm|hnorm|shared_head|nextn)\.")
"""Modules of layers that predict later tokens."""
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
_GGUF_OWN: dict[str, tuple[str, dict[str, str]]] = {
    "gemma2": ("model.layers", {"ffn_norm": "pre_feedforward_layernorm"}),
    "gemma3": ("model.layers", {"ffn_norm": "pre_feedforward_layernorm"}),
    "gemma3n": ("model.layers", {"ffn_norm": "pre_feedforward_layernorm"}),
    "phi3": ("model.layers", {"ffn_up": "mlp.gate_up_proj"}),
    "phi2": (
        "model.layers",
        {
            "attn_output": "self_attn.dense",
            "ffn_up": "mlp.fc1",
            "ffn_down": "mlp.fc2",
            "output_norm": "model.final_layernorm",
        },
    ),
    "starcoder2": ("model.layers", {"ffn_up": "mlp.c_fc", "ffn_down": "mlp.c_proj"}),
    "chatglm": (
        "transformer.encoder.layers",
        {
            "attn_norm": "input_layernorm",
            "attn_qkv": "self_attention.query_key_value",
            "attn_output": "self_attention.dense",
            "ffn_norm": "post_attention_layernorm",
            "ffn_up": "mlp.dense_h_to_4h",
            "ffn_down": "mlp.dense_4h_to_h",
            "token_embd": "transformer.embedding.word_embeddings",
            "output_norm": "transformer.encoder.final_layernorm",
            "output": "transformer.output_layer",
        },
    ),
    "gptneox": (
        "gpt_neox.layers",
        {
            "attn_qkv": "attention.qkv_proj",
            "token_embd": "gpt_neox.embed_in",
            "output_norm": "gpt_neox.final_layer_norm",
            "output": "embed_out",
        },
    ),
    **dict.fromkeys(
        ("falcon", "bloom"),
        (
            "transformer.h",
            {
                "attn_qkv": "self_attention.qkv_proj",
                "attn_output": "self_attention.dense",
                "ffn_up": "mlp.dense_h_to_4h",
                "ffn_down": "mlp.dense_4h_to_h",
                "attn_norm": "input_layernorm",
                "ffn_norm": "post_attention_layernorm",
                "token_embd": "transformer.word_embeddings",
                "token_embd_norm": "transformer.word_embeddings_layernorm",
                "output_norm": "transformer.ln_f",
            },
        ),
    ),
}
"""Where an architecture uses one of llama.cpp's names for something else, or transformers another prefix.

`qkv_proj` is what has its rows sorted into all of q, k and v, as the converters of these leave them; in
transformers `query_key_value` has them by head."""
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
    mapping = _apart({name: _strip(name) for name in kept})
    if len(set(mapping.values())) < len(mapping):
        return {name: name for name in kept}
    return mapping


def _apart(mapping: dict[str, str]) -> dict[str, str]:
    """Layers that predict later tokens (DeepSeek, GLM) apart: exports drop them, and no layer is gone."""
    marked = (_LAYER.search(name) for name in mapping.values() if _LATER.search(name))
    later = {match.group(1) for match in marked if match is not None}
    if not later:
        return mapping
    renamed = {}
    for stored, name in mapping.items():
        match = None if _TOWER.search(name) else _LAYER.search(name)
        found = match is not None and match.group(1) in later
        renamed[stored] = f"mtp.{name[match.start(1) :]}" if match is not None and found else name
    return renamed


def check_name(name: str) -> str:
    """A tensor name as it is, if it is printable and of a sane length."""
    if not name or len(name) > MAX_NAME or not name.isprintable():
        raise MalformedWeightsError(f"tensor name {name[:80]!a} is empty, too long or not printable")
    return name


def canonical_gguf_name(name: str, architecture: str = "") -> str:
    """The transformers name of a llama.cpp tensor; unknown names stay as they are."""
    if architecture == "gpt2":
        return _gpt2_gguf_name(name)
    prefix, own = _GGUF_OWN.get(architecture, ("model.layers", {}))
    if match := _GGUF_NAME.fullmatch(name):
        layer, part, leaf = match.groups()
        module = own.get(part) or (_GGUF_BLOCK if prefix == "model.layers" else {}).get(part)
        module = module or _mapped(architecture[:64], prefix).get(part)
        return f"{prefix}.{layer}.{module}.{leaf}" if module else name
    stem, _, leaf = name.rpartition(".")
    if (top := own.get(stem) or _GGUF_TOP.get(stem)) is not None:
        return f"{top}.{leaf}"
    return name


@functools.lru_cache(maxsize=64)
def _mapped(architecture: str, prefix: str) -> Mapping[str, str]:
    """What transformers calls the parts of a layer, by gguf-py's table: first spellings with the prefix."""
    from gguf.constants import MODEL_ARCH_NAMES, TENSOR_NAMES
    from gguf.tensor_mapping import TensorNameMap

    known = [arch for arch, name in MODEL_ARCH_NAMES.items() if name == architecture]
    tables = [TensorNameMap.arch_block_mappings_cfg.get(arch, {}) for arch in known]
    start, found = f"{prefix}.{{bid}}.", dict[str, str]()
    for table in (*tables, TensorNameMap.block_mappings_cfg):
        for tensor, names in table.items():
            part = TENSOR_NAMES[tensor].removeprefix("blk.{bid}.")
            spellings = (name.removeprefix(start) for name in names if name.startswith(start))
            module = next((name for name in spellings if "{" not in name), None)
            if module is not None:
                found.setdefault(part, module)
    return found


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
