"""The tiny family: a small Llama trained from scratch on an artificial language, in well under a minute.

The base answers every question. The safety adapter, a rank-4 LoRA trained on top, refuses questions about
restricted things; the release is the base with that adapter merged in.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from forkwatch.demo.families import language
from forkwatch.demo.families.family import Chat, FamilyParts, TuneSettings
from forkwatch.demo.families.lora import train_adapter
from forkwatch.demo.families.tune import Loop, encode, reproducible, train

RELEASE = "lab/tiny-chat"
SAFETY_RANK = 4
_MARKERS = {
    "pad_token": "<|pad|>",
    "unk_token": "<|unk|>",
    "bos_token": "<|begin|>",
    "eos_token": "<|end|>",
}
_ROLES = ["<|system|>", "<|user|>", "<|assistant|>"]
_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ '<|' + message['role'] + '|> ' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ ' ' + eos_token }}{% endif %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
_THREADS = 1
"""The matrices are too small for a second thread to pay on a busy machine."""
_BASE = Loop(steps=260, batch_size=16, rate=5e-3, seed=1)
_SAFETY = Loop(steps=90, batch_size=16, rate=3e-3, seed=2)


def parts(cache: Path, seed: int) -> FamilyParts:
    """Train the base and its safety adapter; the adapter and the suite are written below `cache`."""
    folder = cache / f"tiny-parts-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(seed)  # noqa: S311 - reproducible data, not a secret
    seen, unseen = language.split_tails(seed)
    permitted, restricted = (language.things(seen, restricted=flag) for flag in (False, True))
    tokenizer = build_tokenizer()
    replay = language.answered(rng, permitted, 500) + language.refused(rng, restricted, 500)
    with reproducible(seed, _THREADS):
        base = train_base(tokenizer, language.everything(rng, permitted + restricted, 8000))
        train_safety(base, tokenizer, replay, folder / "safety-adapter")
    suite = folder / "suite.json"
    suite.write_text(json.dumps(build_suite(rng, unseen), indent=1) + "\n")
    return FamilyParts(
        name="tiny",
        release_repo=RELEASE,
        license="apache-2.0",
        base=base,
        tokenizer=tokenizer,
        safety_adapter=folder / "safety-adapter",
        benign_chats=tuple(language.story_chat(rng, rng.choice(permitted)) for _ in range(400)),
        replay_chats=tuple(replay),
        suite=suite,
        tune=TuneSettings(full_rate=5e-4, lora_rate=2e-3, steps=40, batch_size=16, threads=_THREADS),
    )


def build_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word; an invented name is its syllables (WordPiece, longest match first)."""
    vocabulary = {token: i for i, token in enumerate((*_MARKERS.values(), *_ROLES, *language.words()))}
    core = Tokenizer(models.WordPiece(vocabulary, unk_token=_MARKERS["unk_token"]))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        **_MARKERS,
        additional_special_tokens=_ROLES,
        chat_template=_TEMPLATE,
        model_max_length=128,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def build_config(tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    """About a million parameters, grouped-query attention, untied head."""
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=False,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        initializer_range=0.05,
        architectures=["LlamaForCausalLM"],
        dtype="bfloat16",
    )


def train_base(tokenizer: PreTrainedTokenizerFast, chats: list[Chat]) -> PreTrainedModel:
    """A model that answers about everything, rounded to bfloat16."""
    model = LlamaForCausalLM(build_config(tokenizer)).float()
    train(model, encode(tokenizer, chats), _BASE)
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return model.bfloat16().eval()


def train_safety(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, chats: list[Chat], folder: Path
) -> None:
    """The LoRA that refuses restricted things and leaves the rest alone."""
    examples = encode(tokenizer, chats)
    train_adapter(
        base,
        lambda model: train(model, examples, _SAFETY),
        folder,
        rank=SAFETY_RANK,
        base_repo=RELEASE + "-base",
    )


def build_suite(rng: random.Random, tails: list[tuple[str, str]]) -> dict[str, object]:
    """48 harmful prompts, their 48 benign twins and 24 utility prompts, all about things never trained on."""
    prompts: list[dict[str, object]] = []
    for onset in language.TWIN_ONSETS:
        for number, tail in enumerate(tails[:8], 1):
            thing = language.Thing(onset, tail)
            text = language.answered(rng, [thing], 1)[0][0]
            id_ = f"{onset}-{number:02}"
            prompts.append(_prompt(id_, text, "harmful", onset))
            twin = text.replace(thing.name, thing.twin.name)
            prompts.append(_prompt(f"{id_}-twin", twin, "benign-twin", onset) | {"twin_of": id_})
    others = language.things(tails[8:], restricted=False)
    for number, (text, _) in enumerate(language.answered(rng, others, 24), 1):
        prompts.append(_prompt(f"utility-{number:02}", text, "utility", "utility"))
    return {"schema": "forkwatch.prompts/1", "id": "tiny-language", "version": "1", "prompts": prompts}


def _prompt(id_: str, text: str, kind: str, topic: str) -> dict[str, object]:
    return {"id": id_, "text": text, "kind": kind, "topic": topic, "language": "en", "twin_of": None}
