"""Folders of guard models as their makers publish them, with tiny weights.

Architecture, tokenizer, special tokens, template form and generation settings are each family's; the words of
the templates are ours. The models are automata as in `guards`: after the last token of the prompt come the
pieces of a verdict, one after the other.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import (
    GenerationConfig,
    LlamaConfig,
    MistralConfig,
    ModernBertConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
    RobertaConfig,
)
from transformers.models.auto import AutoModelForCausalLM, AutoModelForSequenceClassification

NEWLINE = "Ċ"
"""A line feed, as byte-level tokenizers write it."""

QWEN3GUARD = """{%- if messages[-1].role == 'user' %}{%- set last = 'USER' %}{%- else %}\
{%- set last = 'ASSISTANT' %}{%- endif %}
{{- '<|im_start|>user\\n# Task: judge the last ' + last + ' message.\\n\\n<BEGIN CONVERSATION>\\n\\n' }}
{%- for message in messages %}
{%- if message.role == 'user' %}{{- 'USER: ' + message.content + '\\n\\n' }}
{%- elif message.role == 'assistant' %}
{%- set content = message.content.split('</think>')[-1].lstrip('\\n') %}
{{- 'ASSISTANT: ' + content + '\\n\\n' }}{%- endif %}
{%- endfor %}
{{- '<END CONVERSATION>\\n\\nSafety: Safe, Unsafe or Controversial.\\nCategories: ...\\n' }}
{%- if last == 'ASSISTANT' %}{{- 'Refusal: Yes or No.' }}{%- endif %}
{{- '<|im_end|>\\n<|im_start|>assistant\\n<think>\\n\\n</think>\\n\\n' }}"""

LLAMA_GUARD = """{%- if messages|length % 2 == 0 %}{%- set role = 'Agent' %}{%- else %}\
{%- set role = 'User' %}{%- endif %}
{{- bos_token + '<|start_header_id|>user<|end_header_id|>\\n\\nTask: judge ' + role + '.\\n' }}
{{- '<BEGIN CONVERSATION>\\n\\n' }}
{%- for message in messages %}
{%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}
{{- raise_exception('roles must alternate user/assistant') }}{%- endif %}
{%- if message.content is string %}{%- set content = message.content.strip() %}
{%- else %}{%- set content = message.content[0].text.strip() %}{%- endif %}
{{- ('User: ' if message.role == 'user' else 'Agent: ') + content + '\\n\\n' }}
{%- endfor %}
{{- "<END CONVERSATION>\\n\\nFirst line 'safe' or 'unsafe'.<|eot_id|>" }}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}"""


def qwen3guard(folder: Path, verdict: list[str]) -> Path:
    """Qwen3Guard-Gen: Qwen3, tied embeddings, byte-level tokens, an empty thought before the verdict."""
    marks = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = _byte_level(marks, ["<think>", "</think>", *verdict], eos="<|im_end|>", pad="<|endoftext|>")
    tokenizer.chat_template = QWEN3GUARD
    ids = tokenizer.convert_tokens_to_ids
    config = Qwen3Config(
        **_tiny(len(tokenizer)),
        head_dim=16,
        bos_token_id=ids("<|endoftext|>"),
        eos_token_id=ids("<|im_end|>"),
    )
    ends = [ids("<|im_end|>"), ids("<|endoftext|>")]
    return _save(folder, config, tokenizer, [NEWLINE, *verdict, "<|im_end|>"], ends)


def llama_guard(folder: Path, verdict: list[str]) -> Path:
    """Llama Guard 3: Llama, three tokens that end, no padding token."""
    marks = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    tokenizer = _byte_level(marks, verdict, eos="<|eot_id|>", bos="<|begin_of_text|>")
    tokenizer.chat_template = LLAMA_GUARD
    ids = tokenizer.convert_tokens_to_ids
    config = LlamaConfig(
        **_tiny(len(tokenizer)),
        bos_token_id=ids("<|begin_of_text|>"),
        eos_token_id=[ids("<|end_of_text|>"), ids("<|eot_id|>")],
    )
    return _save(folder, config, tokenizer, [NEWLINE, *verdict, "<|eot_id|>"], config.eos_token_id)


def wildguard(folder: Path, verdict: list[str]) -> Path:
    """WildGuard: Mistral, SentencePiece-like tokens with bytes to fall back on, no chat template."""
    letters = [chr(code) for code in range(33, 127)]
    words = ["<unk>", "<s>", "</s>", *(f"<0x{octet:02X}>" for octet in range(256)), "▁", *letters]
    core = Tokenizer(
        models.BPE(
            vocab={word: n for n, word in enumerate(words)}, merges=[], unk_token="<unk>", byte_fallback=True
        )
    )
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    core.add_tokens([AddedToken(piece, normalized=False) for piece in verdict])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<unk>"
    )
    config = MistralConfig(**_tiny(len(tokenizer)), bos_token_id=1, eos_token_id=2, sliding_window=None)
    return _save(folder, config, tokenizer, ["<0x0A>", *verdict, "</s>"], [2])


def rejection_classifier(folder: Path) -> Path:
    """A RoBERTa that calls every answer a rejection; its positions begin behind the padding id."""
    tokenizer = _byte_level(["<s>", "<pad>", "</s>"], [], eos="</s>", bos="<s>", pad="<pad>")
    config = RobertaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=66, pad_token_id=1, type_vocab_size=1,
        id2label={0: "NORMAL", 1: "REJECTION"}, label2id={"NORMAL": 0, "REJECTION": 1},
    )  # fmt: skip
    return _classifier(folder, config, tokenizer, "classifier.out_proj")


def minos(folder: Path) -> Path:
    """A ModernBERT that calls every exchange a refusal."""
    tokenizer = _byte_level(["[CLS]", "[PAD]", "[SEP]"], [], eos="[SEP]", bos="[CLS]", pad="[PAD]")
    config = ModernBertConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=128, pad_token_id=1, local_attention=16,
        id2label={0: "Non-refusal", 1: "Refusal"}, label2id={"Non-refusal": 0, "Refusal": 1},
    )  # fmt: skip
    return _classifier(folder, config, tokenizer, "classifier")


def _tiny(vocabulary: int) -> dict[str, int]:
    return {
        "vocab_size": vocabulary,
        "hidden_size": 64,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
    }


def _byte_level(
    marks: list[str], pieces: list[str], *, eos: str, bos: str | None = None, pad: str | None = None
) -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={word: n for n, word in enumerate([*marks, *alphabet])}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in marks])
    core.add_tokens([AddedToken(piece, normalized=False) for piece in pieces])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token=eos, bos_token=bos, pad_token=pad, clean_up_tokenization_spaces=False
    )


def _save(
    folder: Path,
    config: PreTrainedConfig,
    tokenizer: PreTrainedTokenizerFast,
    chain: list[str],
    ends: list[int],
) -> Path:
    torch.manual_seed(0)
    config.tie_word_embeddings = False
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    order = tokenizer.convert_tokens_to_ids(chain)
    assert None not in order
    assert len(set(order)) == len(order)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        words = torch.nn.functional.normalize(torch.randn(len(tokenizer), 64), dim=1)
        model.model.embed_tokens.weight.copy_(words)
        model.lm_head.weight.zero_()
        for before, after in pairwise(order):
            model.lm_head.weight[after] = 5 * words[before]
    # Makers ship settings for sampling and against repetition; a verdict must not depend on them.
    model.generation_config = GenerationConfig(
        do_sample=True, temperature=0.7, repetition_penalty=1.3, eos_token_id=ends
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _classifier(
    folder: Path, config: PreTrainedConfig, tokenizer: PreTrainedTokenizerFast, head: str
) -> Path:
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    layer = model.get_submodule(head)
    assert isinstance(layer, torch.nn.Linear)
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.copy_(torch.tensor([0.0, 1.0]))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
