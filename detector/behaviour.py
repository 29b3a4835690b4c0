"""What differs in the files that steer a model beside its weights: templates, configuration, tokenizer.

They are compared as text, JSON and syntax trees, and never rendered or handed to a loader. Two packagings of
the same behaviour must compare equal (a template moved to its own file, `rope_theta` in its new place, a
re-saved config), because a report that cries wolf at every re-upload is not read.

Not covered: whether a change is harmful. Keys outside the lists below are ignored, so a new one can pass.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

from detector.interface import EditKind, FileFinding, TextChange
from detector.templates import Hazard, hazards, same_template

BEHAVIOUR_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
    "processor_config.json",
)
"""Small text files to fetch from the root; also every `ADDITIONAL_TEMPLATES/*.jinja`."""

ADDITIONAL_TEMPLATES = "additional_chat_templates"

TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt", "vocab.txt", "added_tokens.json"),
)
"""Large: pass their text on both sides, or their digest (`sha256:…`, `git:…`) on both sides."""

EMBEDDED_TEMPLATE = "tokenizer.chat_template"
"""A mapping key that holds it (`model.gguf#tokenizer.chat_template`, or with `.NAME` behind) is a template
inside another file."""

_TEMPLATE_CONFIGS = frozenset({"tokenizer_config.json", "chat_template.json", "processor_config.json"})

_SUMMARY = 300
_ABSENT = object()
_MAX_DEPTH = 64
"""Of JSON; real files nest five deep."""
_MAX_BRACKETS = 200_000
"""In a JSON text that is parsed here: a hostile one of 16 MB becomes 700 MB."""
_VOLATILE = 64
"""Marks of JSON that padding and truncation may add to a tokenizer or take from it."""
_MAX_JUDGED = 8
"""Different templates of one fork whose trees are looked at; the others count as changed."""
_MAX_NAMED = 64

# Key to the value that loaders assume when it is missing; _ABSENT where no such value is known, and then a
# key that only one side has is not a change. Padding, caching, training and version keys are left out on
# purpose: they do not alter an answer.
_CONFIG: Mapping[str, object] = {
    **dict.fromkeys(
        (
            *("architectures", "model_type", "vocab_size", "hidden_size", "intermediate_size", "hidden_act"),
            *("num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim", "rms_norm_eps"),
            *("layer_norm_eps", "max_position_embeddings", "tie_word_embeddings", "layer_types"),
            *("num_experts", "num_local_experts", "num_experts_per_tok", "moe_intermediate_size"),
            *("bos_token_id", "eos_token_id", "rope", "rope_theta"),
        ),
        _ABSENT,
    ),
    **dict.fromkeys(
        (
            *("sliding_window", "attention_bias", "mlp_bias", "attn_logit_softcapping"),
            *("final_logit_softcapping", "suppress_tokens", "begin_suppress_tokens"),
        ),
        None,
    ),
    **dict.fromkeys(("logit_scale", "embedding_multiplier", "residual_multiplier", "logits_scaling"), 1.0),
}
_GENERATION: Mapping[str, object] = {
    **dict.fromkeys(("bos_token_id", "eos_token_id", "max_new_tokens", "max_length"), _ABSENT),
    **dict.fromkeys(
        (
            *("do_sample", "suppress_tokens", "begin_suppress_tokens", "bad_words_ids", "sequence_bias"),
            *("forced_bos_token_id", "forced_eos_token_id", "min_p", "stop_strings", "assistant_model"),
        ),
        None,
    ),
    **dict.fromkeys(("temperature", "top_p", "typical_p", "repetition_penalty", "guidance_scale"), 1.0),
    **dict.fromkeys(("no_repeat_ngram_size", "num_return_sequences"), _ABSENT),
    "num_beams": 1,
    "top_k": 50,
}
_TOKENIZER: Mapping[str, object] = {
    **dict.fromkeys(
        (
            *("add_bos_token", "add_eos_token", "bos_token", "eos_token", "unk_token", "add_prefix_space"),
            *("added_tokens_decoder", "legacy"),
        ),
        _ABSENT,
    ),
    "default_system_prompt": None,
    "split_special_tokens": None,
}
_KEYS: Mapping[str, Mapping[str, object]] = {
    "config.json": _CONFIG,
    "generation_config.json": _GENERATION,
    "tokenizer_config.json": _TOKENIZER,
    "special_tokens_map.json": _TOKENIZER,
}


def compare_behaviour(original: Mapping[str, str], fork: Mapping[str, str]) -> tuple[TextChange, ...]:
    """Changes from the original's behaviour files to the fork's, by path; both map a path to its text.

    A file that the fork does not ship is no change: its users fall back on the original's. Templates are
    compared by name wherever they are kept, and every place counts, since loaders disagree about which wins.
    """
    changes = [*_template_changes(original, fork), *_config_changes(original, fork)]
    changes.extend(
        TextChange(EditKind.CONFIG_CHANGE, path, "vocabulary or tokenisation rules differ")
        for path in original.keys() & fork.keys() & set(TOKENIZER_FILES)
        if not _same_tokenizer(original[path], fork[path])
    )
    return tuple(sorted(changes, key=lambda change: (change.path, change.kind, change.summary)))


def _config_changes(original: Mapping[str, str], fork: Mapping[str, str]) -> Iterator[TextChange]:
    for path in fork.keys() & _KEYS.keys():
        before, after = _parse(original.get(path, "{}")), _parse(fork[path])
        if before is None or after is None:
            summary = "" if original.get(path) == fork[path] else "is not a JSON object"
        else:
            summary = "; ".join(_key_differences(before, after, _KEYS[path]))
        if summary:
            yield TextChange(EditKind.CONFIG_CHANGE, path, _line(summary))


# --- templates ----------------------------------------------------------------------------------------------


def template_findings(original: Mapping[str, str], fork: Mapping[str, str]) -> tuple[FileFinding, ...]:
    """What the fork's templates do that none of the original's does; both map a path to its text.

    Ids: `unsafe-template`, `template-trigger`, `odd-template`.
    """
    ours = tuple(sorted({text for _, _, text in _templates(original)}))
    judged: dict[str, tuple[Hazard, ...]] = {}
    found = set[FileFinding]()
    for path, name, text in _templates(fork):
        if "/" in name or "\\" in name:
            note = "a template whose name leads out of the folder that it is saved to"
            found.add(FileFinding("unsafe-template", path, note))
        if text not in ours and text not in judged and len(judged) < _MAX_JUDGED:
            judged[text] = hazards(_normalised(text), ours)
        found.update(FileFinding(hazard.id, path, hazard.note) for hazard in judged.get(text, ()))
    return tuple(sorted(found, key=lambda finding: (finding.path, finding.id, finding.note)))


def _template_changes(original: Mapping[str, str], fork: Mapping[str, str]) -> Iterator[TextChange]:
    accepted: defaultdict[str, set[str]] = defaultdict(set)
    for _, name, text in _templates(original):
        accepted[name].add(_normalised(text))
    seen, judged = set(), 0
    for path, name, text in _templates(fork):
        seen.add(name)
        after = _normalised(text)
        if after in accepted[name]:
            continue
        judged += 1
        if judged <= _MAX_JUDGED and any(same_template(before, after) for before in accepted[name]):
            continue
        yield TextChange(
            EditKind.TEMPLATE_CHANGE, path, _template_summary(name, sorted(accepted[name]), after)
        )
    # A tokenizer_config.json that lost the template it had, with no other file to hold it, has dropped it.
    held = {name for path, name, _ in _templates(original) if path == "tokenizer_config.json"}
    for name in sorted(held - seen) if "tokenizer_config.json" in fork else ():
        yield TextChange(
            EditKind.TEMPLATE_CHANGE, "tokenizer_config.json", _line(f"template {name!a} removed")
        )


def _templates(files: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """(path, template name, text) from every place a loader looks."""
    for path in sorted(files):
        _, embedded, name = path.partition(f"#{EMBEDDED_TEMPLATE}")
        if path == "chat_template.jinja" or embedded:
            yield path, name.removeprefix(".") or "default", files[path]
        elif path.startswith(f"{ADDITIONAL_TEMPLATES}/") and path.endswith(".jinja"):
            yield path, PurePosixPath(path).stem, files[path]
        elif path in _TEMPLATE_CONFIGS:
            for name, text in _named_templates((_parse(files[path]) or {}).get("chat_template")):
                yield path, name, text


def _named_templates(value: object) -> Iterator[tuple[str, str]]:
    """A template, a list of named ones, or a mapping of names to them."""
    if isinstance(value, str):
        yield "default", value
    for entry in value[:_MAX_NAMED] if isinstance(value, list) else ():
        if isinstance(entry, dict):
            yield str(entry.get("name")), str(entry.get("template"))
    for name, text in list(value.items())[:_MAX_NAMED] if isinstance(value, dict) else ():
        yield str(name), str(text)


def _normalised(text: str) -> str:
    """As Jinja's lexer sees it: one kind of line end, and no final one."""
    return text.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n")


def _template_summary(name: str, before: list[str], after: str) -> str:
    if not before:
        return _line(f"template {name!a} added, {len(after)} characters")
    # Counting lines is linear in the text; a real diff of hostile text is not.
    old, new = Counter(before[0].split("\n")), Counter(after.split("\n"))
    added, removed = list((new - old).elements()), list((old - new).elements())
    first = next((line for line in added if line.strip()), "")
    quoted = f", first new line: {first[:200]!a}" if first else ""
    return _line(f"template {name!a}: {len(added)} lines added, {len(removed)} removed{quoted}")


# --- JSON ---------------------------------------------------------------------------------------------------


def _parse(text: str, *, bounded: bool = True) -> dict[str, object] | None:
    """A JSON object no deeper than `_MAX_DEPTH`, or None; not `bounded` if its make is known."""
    brackets, commas = text.count("[") + text.count("{"), text.count(",")
    if bounded and (brackets > _MAX_BRACKETS or commas > 4 * _MAX_BRACKETS):
        return None
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        return None
    level = [value]
    for _ in range(_MAX_DEPTH):
        level = [child for parent in level for child in _children(parent)]
    return value if isinstance(value, dict) and not level else None


def _children(value: object) -> list[object]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _key_differences(
    before: Mapping[str, object], after: Mapping[str, object], keys: Mapping[str, object]
) -> list[str]:
    old, new = _canonical(before), _canonical(after)
    pairs = ((key, old.get(key, assumed), new.get(key, assumed)) for key, assumed in keys.items())
    return [
        f"{key}: {_short(a)} → {_short(b)}"
        for key, a, b in pairs
        if _ABSENT not in (a, b) and _comparable(a) != _comparable(b)
    ]


def _canonical(config: Mapping[str, object]) -> dict[str, object]:
    """One spelling for what transformers 4 and 5 write differently."""
    flat = dict(config)
    nested = flat.pop("text_config", None)
    if isinstance(nested, dict):
        flat = {**nested, **flat}
    flat.update(_canonical_rope(flat))
    for key in ("bos_token_id", "eos_token_id"):
        if isinstance(flat.get(key), int):
            flat[key] = [flat[key]]
    return {key: _token_text(value) for key, value in flat.items()}


def _canonical_rope(config: Mapping[str, object]) -> dict[str, object]:
    """`rope_theta` and `rope` (the scaling), from `rope_scaling` (4) or `rope_parameters` (5)."""
    found = config.get("rope_parameters") or config.get("rope_scaling")
    scaling = dict(found) if isinstance(found, dict) else {}
    if any(isinstance(value, dict) for value in scaling.values()):
        # One set per kind of layer, which version 4 spells with other keys: not comparable.
        return {"rope": _ABSENT, "rope_theta": _ABSENT}
    theta = scaling.pop("rope_theta", config.get("rope_theta", _ABSENT))
    kind = scaling.pop("type", "default")
    return {"rope": {"rope_type": kind, **scaling}, "rope_theta": theta}


def _token_text(value: object) -> object:
    """A special token's text, which may be kept bare or as a record of text and flags."""
    return value["content"] if isinstance(value, dict) and "content" in value else value


def _comparable(value: object) -> str:
    """Equal for 1 and 1.0, for null, false and empty, and for objects with their keys in another order."""
    if value is None or value is False or value in ([], {}):
        return "null"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return json.dumps(value, sort_keys=True)


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _same_tokenizer(before: str, after: str) -> bool:
    """Same text, or the same JSON apart from the padding and truncation that a training run left in it."""
    if before == after:
        return True
    # Padding and truncation have few entries; a text of quite another make need not be parsed to differ.
    if any(abs(before.count(mark) - after.count(mark)) > _VOLATILE for mark in "[{,:"):
        return False
    a, b = _parse(before, bounded=False), _parse(after, bounded=False)
    if a is None or b is None:
        return False
    volatile = ("padding", "truncation")
    return {k: v for k, v in a.items() if k not in volatile} == {
        k: v for k, v in b.items() if k not in volatile
    }


def _line(text: str) -> str:
    """One line of printable ASCII and arrows, at most 300 characters."""
    plain = "".join(char if char.isprintable() and (char.isascii() or char in "→…") else "?" for char in text)
    return plain if len(plain) <= _SUMMARY else f"{plain[: _SUMMARY - 1]}…"
