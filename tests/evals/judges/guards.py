"""Real guard models with a known verdict, made in milliseconds.

The generative ones are automata: a Llama whose layers add nothing, a one-hot embedding, and transitions in
the output head, so that after the template's last word comes the verdict, whatever the guard was shown.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

HEADER, END, PAD, UNKNOWN = "<|verdict|>", "<|end|>", "<pad>", "<unk>"
QWEN_TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }} : {{ m['content'] }} {% endfor %}"
    "answer with Refusal: Yes or Refusal: No <|verdict|>"
)
LLAMA_TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }} : {{ m['content'] }} {% endfor %}'safe' or 'unsafe' <|verdict|>"
)


def _tokenizer(words: list[str], template: str | None) -> PreTrainedTokenizerFast:
    core = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token=UNKNOWN))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        unk_token=UNKNOWN,
        eos_token=END,
        additional_special_tokens=[HEADER],
    )
    tokenizer.chat_template = template
    return tokenizer


def generative_guard(folder: Path, verdict: list[str], template: str | None, header: str = HEADER) -> Path:
    """A guard that generates `verdict`, one distinct token after the other, after the word `header`."""
    words = list(dict.fromkeys([PAD, UNKNOWN, END, HEADER, header, *verdict]))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=False,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=words.index(END),
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        model.model.layers[0].self_attn.o_proj.weight.zero_()
        model.model.layers[0].mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(len(words), 32))
        model.lm_head.weight.zero_()
        for word, successor in pairwise([header, *verdict, END]):
            model.lm_head.weight[words.index(successor), words.index(word)] = 5.0
    model.save_pretrained(folder)
    _tokenizer(words, template).save_pretrained(folder)
    return folder


def classifier(folder: Path, names: list[str], word: str) -> Path:
    """A classifier that gives the second class to an answer in which `word` stands, else the first."""
    words = [PAD, UNKNOWN, END, HEADER, word]
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        max_position_embeddings=64,
        num_labels=len(names),
        id2label=dict(enumerate(names)),
        label2id={name: number for number, name in enumerate(names)},
        pad_token_id=0,
    )
    model = BertForSequenceClassification(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        embeddings, layer = model.bert.embeddings, model.bert.encoder.layer[0]
        for norm in (embeddings.LayerNorm, layer.attention.output.LayerNorm, layer.output.LayerNorm):
            norm.weight.fill_(1.0)
        embeddings.word_embeddings.weight[words.index(word), 0] = 8.0
        attention = layer.attention
        attention.self.value.weight.copy_(torch.eye(8))
        attention.output.dense.weight.copy_(8 * torch.eye(8))
        model.bert.pooler.dense.weight.copy_(torch.eye(8))
        model.classifier.weight[1, 0] = 5.0
        model.classifier.bias[0] = 0.1
    model.save_pretrained(folder)
    _tokenizer(words, None).save_pretrained(folder)
    return folder


def renamed(folder: Path, **changes: object) -> Path:
    """The same folder with other entries in its configuration."""
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return folder
