"""What a tensor is for, whatever its checkpoint calls it: how two checkpoints are paired."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from detector.interface import TensorInfo

_PREFIX = re.compile(
    r"(?:(?:transformer\.encoder|base_model|language_model|text_model|transformer|gpt_neox|backbone|decoder|model|thinker|llm)\.)+"
    r"(?=\w+\.)"
)
_EXPERT = re.compile(r"(.+\.experts)\.(\d{1,5})\.(\w+)\.weight")
_MIXTRAL = {"w1": "gate_proj", "w3": "up_proj", "w2": "down_proj"}
_ATTENTION = re.compile(r"\.(?:self_attention|attention)\.")
_SPELLINGS = (
    (".self_attn.wo.", ".self_attn.o_proj."),
    (".self_attn.dense.", ".self_attn.o_proj."),
    (".feed_forward.w1.", ".mlp.gate_proj."),
    (".feed_forward.w3.", ".mlp.up_proj."),
    (".feed_forward.w2.", ".mlp.down_proj."),
    (".mlp.dense_4h_to_h.", ".mlp.down_proj."),
    (".attention_norm.", ".input_layernorm."),
    (".ffn_norm.", ".post_attention_layernorm."),
)
"""What InternLM2, ChatGLM and Falcon call what others call otherwise. `wq` and `wk` are not among them: the
files of Meta and Mistral have their rows in another order."""
_STACKS = ("gate_up_proj", "down_proj", "gate_proj", "up_proj")

FUSED: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "qkv_proj": (("q_proj", "k_proj", "v_proj"),),
    "Wqkv": (("q_proj", "k_proj", "v_proj"),),
    "W_pack": (("q_proj", "k_proj", "v_proj"),),
    "kv_proj": (("k_proj", "v_proj"),),
    "gate_up_proj": (("gate_proj", "up_proj"),),
    "dense_h_to_4h": (("gate_proj", "up_proj"),),
}
"""Projections whose rows are those of others, one after the other. `query_key_value` is not among them: its
rows are laid out in as many ways as there are architectures, and only its content tells which."""

CONV1D = frozenset({"c_attn", "c_proj", "c_fc", "q_attn"})
"""Modules that GPT-2 stores input first, and that some conversions turn."""


def role_key(name: str) -> str:
    """A name without the prefixes that wrappers add, and with one spelling for each expert's projections."""
    key = _PREFIX.sub("", name, count=1) if _PREFIX.match(name) else name
    key = _ATTENTION.sub(".self_attn.", key)
    for spelling, usual in _SPELLINGS:
        key = key.replace(spelling, usual)
    key = key.replace(".block_sparse_moe.", ".mlp.").replace(".switch_mlp.", ".experts.")
    key = key.replace(".shared_experts.", ".shared_expert.").replace(
        ".e_score_correction.bias", ".e_score_correction_bias"
    )
    if (match := _EXPERT.fullmatch(key)) and match[3] in _MIXTRAL:
        key = f"{match[1]}.{match[2]}.{_MIXTRAL[match[3]]}.weight"
    return key


def unique_roles(infos: Mapping[str, TensorInfo]) -> dict[str, str]:
    """Role → name, for the roles that exactly one tensor has."""
    found: dict[str, str] = {}
    doubled = set()
    for name in infos:
        key = role_key(name)
        if key in found:
            doubled.add(key)
        found[key] = name
    return {key: name for key, name in found.items() if key not in doubled}


@dataclass(frozen=True, slots=True)
class Slot:
    """Where a split tensor lies in a fused one."""

    fused: str
    """Role of the fused tensor."""
    parts: tuple[str, ...]
    """Roles of all its parts, in order."""
    index: int
    """Which of them is meant."""


def slots(key: str) -> Iterable[Slot]:
    """The fused tensors that a role may be part of."""
    stem, module, leaf = split_role(key)
    for fused, orders in FUSED.items():
        for order in orders:
            if module in order:
                parts = tuple(f"{stem}.{part}.{leaf}" for part in order)
                yield Slot(f"{stem}.{fused}.{leaf}", parts, order.index(module))


def parts_of(key: str) -> Iterable[tuple[str, ...]]:
    """Roles of the parts that a fused role may consist of."""
    stem, module, leaf = split_role(key)
    for order in FUSED.get(module, ()):
        yield tuple(f"{stem}.{part}.{leaf}" for part in order)


def split_role(key: str) -> tuple[str, str, str]:
    """`layers.0.mlp`, `gate_proj`, `weight`."""
    rest, _, leaf = key.rpartition(".")
    stem, _, module = rest.rpartition(".")
    return stem, module, leaf


def expert(key: str) -> tuple[str, int, str] | None:
    """Stem, number and projection of a single expert's weight: `layers.0.mlp.experts`, 3, `up_proj`."""
    match = _EXPERT.fullmatch(key)
    return (match[1], int(match[2]), match[3]) if match else None


def stack(key: str) -> tuple[str, str] | None:
    """Stem and projection of a tensor that holds all experts: `layers.0.mlp.experts`, `gate_up_proj`."""
    stem, _, module = key.removesuffix(".weight").rpartition(".")
    return (stem, module) if stem.endswith(".experts") and module in _STACKS else None
