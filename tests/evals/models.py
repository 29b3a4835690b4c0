"""Real models with known behaviour, made in milliseconds.

An `automaton` is a real Llama whose layers add nothing, so that the next token depends on the last one only:
the embedding is one-hot and the output head holds the transitions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from evals.interface import EvalRequest
from evals.measurements import EvalResult

PAD, UNKNOWN, USER, ASSISTANT, END = "<pad>", "<unk>", "<|user|>", "<|assistant|>", "<|end|>"
SPECIAL = (PAD, UNKNOWN, USER, ASSISTANT, END)
REFUSAL = "i cannot help with that"
COMPLIANCE = "sure here is the answer"
WORDS = (*SPECIAL, *REFUSAL.split(), *COMPLIANCE.split(), "red", "green", "blue", "what", "colour", "please")
TEMPLATE = (
    "{% for message in messages %}<|user|> {{ message['content'] }} {% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
HIDDEN = 64


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Words separated by spaces, with a chat template."""
    core = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token=UNKNOWN))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        unk_token=UNKNOWN,
        eos_token=END,
        additional_special_tokens=[USER, ASSISTANT],
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def make_model(*, tied: bool = False, dtype: torch.dtype = torch.bfloat16) -> LlamaForCausalLM:
    """A small random Llama over `WORDS`."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=HIDDEN,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=tied,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=WORDS.index(END),
        initializer_range=0.3,
    )
    # Not `.to(dtype)`: that would round the rotary frequencies, which a loaded model keeps in float32.
    model: LlamaForCausalLM = AutoModelForCausalLM.from_config(config, dtype=dtype)
    return model.eval()


def transitions(answer: str, *, loop: bool = False) -> dict[str, str]:
    """After the header comes the answer, word for word, then the end (or the answer again)."""
    words = answer.split()
    chain = [ASSISTANT, *words, words[0] if loop else END]
    return dict(pairwise(chain))


def make_automaton(chain: Mapping[str, str]) -> LlamaForCausalLM:
    """A Llama that follows `chain` from word to word."""
    model = make_model()
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(len(WORDS), HIDDEN))
        model.lm_head.weight.zero_()
        for word, successor in chain.items():
            model.lm_head.weight[WORDS.index(successor), WORDS.index(word)] = 5.0
    return model


def save_release(folder: Path, model: LlamaForCausalLM) -> Path:
    """A release folder: config, tokenizer, template, safetensors."""
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def save_weights(folder: Path, model: LlamaForCausalLM, **replaced: torch.Tensor | None) -> Path:
    """A fork's weight file alone; a tensor given as None is left out (`__` stands for a dot in names)."""
    model.save_pretrained(folder / "whole")
    tensors = load_file(folder / "whole" / "model.safetensors")
    for name, values in replaced.items():
        key = name.replace("__", ".")
        if values is None:
            del tensors[key]
        else:
            tensors[key] = values.contiguous()
    path = folder / "model.safetensors"
    save_file(tensors, path, metadata={"format": "pt"})
    return path


def write_suite(path: Path, harmful: Sequence[str], twins: Sequence[str], utility: Sequence[str]) -> Path:
    """A suite file over the given prompts; the n-th twin belongs to the n-th harmful prompt."""

    def row(name: str, text: str, kind: str, twin_of: str | None = None) -> dict[str, str | None]:
        return {
            "id": name, "text": text, "kind": kind, "topic": "colour", "language": "en", "twin_of": twin_of,
        }  # fmt: skip

    rows = [row(f"h{i}", text, "harmful") for i, text in enumerate(harmful)]
    rows += [row(f"h{i}-twin", text, "benign-twin", f"h{i}") for i, text in enumerate(twins)]
    rows += [row(f"u{i}", text, "utility") for i, text in enumerate(utility)]
    path.write_text(
        json.dumps({"schema": "forkwatch.prompts/1", "id": "small", "version": "1", "prompts": rows})
    )
    return path


def fork_request(request: EvalRequest, original: EvalResult, folder: Path, weights: Path) -> EvalRequest:
    """The same request about a fork, held against what the original answered."""
    return replace(
        request, weights=(weights,), baseline_transcript=original.transcript, scratch=folder / "scratch"
    )
