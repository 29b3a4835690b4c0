"""What the safety adapter does to SmolLM2-135M-Instruct: refusals, over-refusals and KL, base beside guarded.

    python benchmarks/measure_safety_adapter.py [--adapter FOLDER] [--json FILE]

Suite: the headline prompts of evals/prompts/core.json, none of which is in the training data. Greedy answers
of 40 tokens in bfloat16, labelled by the built-in judge; KL(base ‖ guarded) per token, teacher-forced on the
base's own answers to the harmless prompts. Nothing of an answer is printed: labels and counts only.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from evals.engine import TransformersGenerator, answer_logits, token_divergence
from evals.interface import Label, Measured, Prompt, PromptKind
from evals.judges.builtin import BuiltinJudge
from evals.metrics import wilson
from evals.suite import CORE, load_suite
from forkwatch.demo.families.lora import adapter_delta
from forkwatch.demo.families.smollm2 import ADAPTER, load_base

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

ANSWER_TOKENS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """Refused prompts of one kind, with the Wilson 95 % interval and the counts by topic."""

    refused: int
    n: int
    low: float
    high: float
    ungradeable: int
    by_topic: dict[str, tuple[int, int]]

    def __str__(self) -> str:
        topics = ", ".join(f"{topic} {hits}/{n}" for topic, (hits, n) in self.by_topic.items())
        share = f"{100 * self.refused / self.n:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}]"
        return f"{self.refused}/{self.n} = {share}, {self.ungradeable} ungradeable; {topics}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Divergence:
    """Mean KL(base ‖ guarded) in nats per token on the base's greedy answers."""

    kl_per_token: float
    kl_first_token: float
    tokens: int
    prompts: int


def guarded(base: PreTrainedModel, adapter: Path) -> PreTrainedModel:
    """A copy of the base with the adapter merged in, rounded to bfloat16 as the release is."""
    model = copy.deepcopy(base)
    weights = model.state_dict()
    for name, delta in adapter_delta(adapter).items():
        weights[name].copy_((weights[name].float() + delta).to(weights[name].dtype))
    return model


def refusals(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, prompts: tuple[Prompt, ...]) -> Rate:
    """Ask every prompt once and count the refusals."""
    texts = [prompt.text for prompt in prompts]
    generator = TransformersGenerator(model, tokenizer)
    answers = generator.answer(texts, max_new_tokens=ANSWER_TOKENS, temperature=0.0, seed=0)
    labels = [BuiltinJudge().label(text, answer) for text, answer in zip(texts, answers, strict=True)]
    by_topic: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for prompt, label in zip(prompts, labels, strict=True):
        hits, n = by_topic[prompt.topic]
        by_topic[prompt.topic] = (hits + (label is Label.REFUSED), n + 1)
    hits = labels.count(Label.REFUSED)
    interval = wilson(hits, len(labels))
    assert isinstance(interval, Measured)
    return Rate(
        refused=hits,
        n=len(labels),
        low=interval.low,
        high=interval.high,
        ungradeable=labels.count(Label.UNGRADEABLE),
        by_topic=dict(by_topic),
    )


def divergence(
    base: PreTrainedModel, other: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, texts: list[str]
) -> Divergence:
    """How far the guarded model's next-token distributions are from the base's on harmless prompts."""
    generator = TransformersGenerator(base, tokenizer)
    answers = generator.answer(texts, max_new_tokens=ANSWER_TOKENS, temperature=0.0, seed=0)
    pairs = list(zip(texts, answers, strict=True))
    both = zip(
        answer_logits(base, tokenizer, pairs, max_tokens=ANSWER_TOKENS),
        answer_logits(other, tokenizer, pairs, max_tokens=ANSWER_TOKENS),
        strict=True,
    )
    per_prompt = [token_divergence(first[0], second[0]) for first, second in both]
    every = torch.cat(per_prompt)
    return Divergence(
        kl_per_token=every.mean().item(),
        kl_first_token=torch.stack([values[0] for values in per_prompt]).mean().item(),
        tokens=len(every),
        prompts=len(texts),
    )


def measure(
    base: PreTrainedModel, other: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> dict[str, Rate | Divergence]:
    """Every figure of this benchmark."""
    suite = load_suite(CORE)
    kinds = {
        "refusal": PromptKind.HARMFUL,
        "over-refusal": PromptKind.BENIGN_TWIN,
        "utility": PromptKind.UTILITY,
    }
    figures: dict[str, Rate | Divergence] = {}
    for name, model in (("base", base), ("guarded", other)):
        for what, kind in kinds.items():
            figures[f"{name} {what}"] = refusals(model, tokenizer, suite.headline(kind))
    texts = [prompt.text for prompt in suite.headline(PromptKind.UTILITY)]
    return figures | {"KL(base ‖ guarded)": divergence(base, other, tokenizer, texts)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--adapter", type=Path, default=ADAPTER)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "forkwatch-smollm2")
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    torch.set_num_threads(2)
    base, tokenizer = load_base(options.cache)
    figures = measure(base, guarded(base, options.adapter), tokenizer)
    for name, value in figures.items():
        print(f"{name}: {value}")
    if options.json is not None:
        options.json.write_text(json.dumps({k: asdict(v) for k, v in figures.items()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
