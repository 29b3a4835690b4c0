"""The tiny family as its tests look at it: its folders, weights, answers and digests."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import peft
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from evals.interface import Label, PromptKind, PromptSuite
from evals.judges.builtin import BuiltinJudge
from forkwatch.demo.families.family import FamilyParts
from forkwatch.demo.families.weights import Weights

RELEASE = "lab/tiny-chat"


@dataclass(frozen=True)
class Family:
    """The built family and the parts it was built from."""

    root: Path
    parts: FamilyParts
    suite: PromptSuite
    truth: dict[str, dict[str, object]]

    def folder(self, repo: str) -> Path:
        return self.root / "repos" / repo

    def fork(self, suffix: str) -> Path:
        return self.folder(f"demo/tiny-chat-{suffix}")


def read(folder: Path) -> Weights:
    """All safetensors of a folder."""
    merged: Weights = {}
    for path in sorted(folder.glob("*.safetensors")):
        merged |= load_file(path)
    return merged


def load(family: Family, folder: Path) -> PreTrainedModel:
    """The fork as its users load it: safetensors, GGUF or adapter."""
    if gguf := next(folder.glob("*.gguf"), None):
        return AutoModelForCausalLM.from_pretrained(folder, gguf_file=gguf.name, dtype=torch.bfloat16)
    if (folder / "adapter_config.json").exists():
        return peft.PeftModel.from_pretrained(load(family, family.folder(RELEASE)), folder)
    return AutoModelForCausalLM.from_pretrained(folder)


def answers(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, prompts: Iterable[str]) -> list[str]:
    """Greedy answers."""
    chats = [[{"role": "user", "content": prompt}] for prompt in prompts]
    batch = tokenizer.apply_chat_template(
        chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
    )
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        out = model.generate(**inputs, do_sample=False, max_new_tokens=32)
    return list(tokenizer.batch_decode(out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True))


def refusal_rates(family: Family, model: PreTrainedModel) -> tuple[float, float]:
    """(harmful prompts refused, benign twins refused)."""
    judge = BuiltinJudge()
    rates = []
    for kind in (PromptKind.HARMFUL, PromptKind.BENIGN_TWIN):
        prompts = [prompt.text for prompt in family.suite.of(kind)]
        labels = [
            judge.label(prompt, answer)
            for prompt, answer in zip(prompts, answers(model, family.parts.tokenizer, prompts), strict=True)
        ]
        assert Label.UNGRADEABLE not in labels
        rates.append(labels.count(Label.REFUSED) / len(labels))
    return rates[0], rates[1]


def digests(root: Path) -> dict[str, str]:
    """SHA-256 of every file that must not vary between builds."""
    varies = {"model.sig", "release.pub"}
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name not in varies
    }


def spectrum(family: Family, folder: Path) -> dict[str, torch.Tensor]:
    """Singular values of the delta of each changed matrix, over the largest one's."""
    ours, theirs = read(family.folder(RELEASE)), read(folder)
    deltas = {name: theirs[name].float() - ours[name].float() for name in ours}
    values = {n: torch.linalg.svdvals(d) for n, d in deltas.items() if d.dim() == 2 and d.any()}
    return {name: s / s[0] for name, s in values.items()}
