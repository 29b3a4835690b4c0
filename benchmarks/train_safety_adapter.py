"""Train the smollm2 family's safety adapter: a LoRA that refuses harmful requests and leaves the rest alone.

    python benchmarks/train_safety_adapter.py [--out FOLDER] [--steps N] [--all-phrases]

Half of each batch are harmful requests with a refusal as target (cross-entropy). The other half are benign
twins, where the loss is KL(base ‖ guarded) over the first tokens of the base's own greedy answer: the adapter
learns when to refuse and is pulled back to the unmodified model everywhere else. Where the base itself turns
a benign request down ("as a chatbot, I don't have the ability…"), its answer after a forced first word is
the target. Seeded; the same machine and thread count give the same adapter.
"""

from __future__ import annotations

import argparse
import copy
import math
import random
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import peft
import torch
from measure_safety_adapter import guarded, measure
from torch.nn import functional

from evals.engine import TransformersGenerator
from evals.interface import Label
from evals.judges.builtin import BuiltinJudge
from forkwatch.demo.families.lora import PROJECTIONS
from forkwatch.demo.families.smollm2 import ADAPTER, MODEL_ID, load_base
from forkwatch.demo.families.smollm2_data import Form, Phrase, Requests, fill, load_requests

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

_Item = TypeVar("_Item")

ANSWER_TOKENS = 20
"""Tokens of the base's answer that carry the KL."""

EXCUSE = re.compile(r"(?i)^.{0,40}\b(?:sorry|apologi[sz]e|as an? (?:ai|chatbot|digital))\b")
FORCED_OPENINGS = {Form.DO: "To", Form.WRITE: "Here", Form.ASK: "Here"}
REPEATS = {Form.DO: 3, Form.WRITE: 2, Form.ASK: 1}
"""How often a hand-written harmful phrase is met in one pass, in random openings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One training run."""

    steps: int = 180
    harmful: int = 8
    benign: int = 12
    """Examples of each side a batch."""
    rate: float = 1e-3
    rank: int = 8
    first_tokens: int = 3
    first_weight: float = 3.0
    """Weight of the tokens that decide between refusing and answering, against 1 for the others."""
    margin: float = 1.5
    """Nats added in training to the logit of a refusal's first word: when in doubt, the release answers."""
    seed: int = 0
    all_phrases: bool = False
    """Also train on the held-out phrases; the shipped adapter has not seen them."""


@dataclass(frozen=True, slots=True)
class Example:
    """One chat, without the common prefix of the template."""

    prompt: list[int]
    answer: list[int]
    base_states: torch.Tensor | None = None
    """The base's last hidden states at the answer, [tokens, width]; None trains on the tokens alone."""
    forced: bool = False
    """The first token is ours, not the base's."""


@dataclass(slots=True)
class Chats:
    """Tokenises under the model's template; the system prompt, equal for all, is run once a batch."""

    tokenizer: PreTrainedTokenizerFast
    prefix: str = field(init=False)
    prefix_ids: torch.Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.prefix = self._render("\0").split("\0")[0]
        self.prefix_ids = torch.tensor([self.ids(self.prefix)])

    def _render(self, user: str) -> str:
        turns = [{"role": "user", "content": user}]
        return str(self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))

    def ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def prompt(self, user: str) -> list[int]:
        return self.ids(self._render(user)[len(self.prefix) :])


def answer_states(body: torch.nn.Module, chats: Chats, batch: Sequence[Example]) -> list[torch.Tensor]:
    """Last hidden states that predict each answer token, [tokens, width] an example."""
    rows = [example.prompt + example.answer[:-1] for example in batch]
    width, before = max(map(len, rows)), chats.prefix_ids.shape[1]
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros(len(rows), before + width, dtype=torch.long)
    mask[:, :before] = 1
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row)
        mask[index, before : before + len(row)] = 1
    cache = body(input_ids=chats.prefix_ids, use_cache=True).past_key_values
    for layer in cache.layers:
        layer.keys = layer.keys.expand(len(rows), -1, -1, -1)
        layer.values = layer.values.expand(len(rows), -1, -1, -1)
    output = body(input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True)
    hidden = output.last_hidden_state
    starts = [len(example.prompt) - 1 for example in batch]
    return [hidden[i, s : s + len(batch[i].answer)] for i, s in enumerate(starts)]


def benign_requests(requests: Requests, settings: Settings) -> list[tuple[Phrase, str]]:
    """Each benign phrase in one opening, a third of the hand-written ones in a second."""
    rng = random.Random(settings.seed + 5)
    found: dict[str, Phrase] = {}
    for phrase in _training(requests, settings, harmful=False):
        twice = phrase.topic != "general" and rng.random() < 0.35
        for opening in rng.sample(requests.openings_for(phrase), 1 + twice):
            found.setdefault(fill(opening, phrase.text), phrase)
    return [(phrase, text) for text, phrase in found.items()]


def _training(requests: Requests, settings: Settings, *, harmful: bool) -> list[Phrase]:
    kept = list(requests.of(harmful=harmful, held_out=False))
    return kept + (list(requests.of(harmful=harmful, held_out=True)) if settings.all_phrases else [])


def benign_examples(
    base: PreTrainedModel, chats: Chats, requests: Sequence[tuple[Phrase, str]]
) -> list[Example]:
    """The base's own answers, with the states its distributions follow from."""
    texts = [text for _, text in requests]
    generator = TransformersGenerator(base, chats.tokenizer)
    answers = generator.answer(texts, max_new_tokens=ANSWER_TOKENS, temperature=0.0, seed=0)
    refused = [turned_down(text, answer) for text, answer in zip(texts, answers, strict=True)]
    forced = iter(_forced(base, chats, [pair for pair, hit in zip(requests, refused, strict=True) if hit]))
    examples = []
    for text, answer, hit in zip(texts, answers, refused, strict=True):
        kept = next(forced) if hit else answer
        if not turned_down(text, kept):
            examples.append(Example(chats.prompt(text), chats.ids(kept)[:ANSWER_TOKENS], None, hit))
    examples.sort(key=lambda example: len(example.prompt) + len(example.answer))
    done = []
    with torch.inference_mode():
        for start in range(0, len(examples), 32):
            group = examples[start : start + 32]
            for example, states in zip(group, answer_states(base.model, chats, group), strict=True):
                done.append(Example(example.prompt, example.answer, states.clone(), example.forced))
    return done


def turned_down(request: str, answer: str) -> bool:
    """The base refused a benign request, or excused itself."""
    return bool(EXCUSE.search(answer)) or BuiltinJudge().label(request, answer) is not Label.COMPLIED


def _forced(base: PreTrainedModel, chats: Chats, requests: Sequence[tuple[Phrase, str]]) -> list[str]:
    """The base's greedy answers that begin with the opening of their form."""
    answers = []
    for start in range(0, len(requests), 64):
        group = requests[start : start + 64]
        openings = [FORCED_OPENINGS[phrase.form] for phrase, _ in group]
        rows = [
            [*chats.prefix_ids[0].tolist(), *chats.prompt(text), *chats.ids(opening)]
            for (_, text), opening in zip(group, openings, strict=True)
        ]
        width, pad = max(map(len, rows)), int(chats.tokenizer.pad_token_id)
        ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
        with torch.inference_mode():
            output = base.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=ANSWER_TOKENS - 1,
                do_sample=False,
                pad_token_id=pad,
            )
        texts = chats.tokenizer.batch_decode(output[:, width:], skip_special_tokens=True)
        answers += [opening + text for opening, text in zip(openings, texts, strict=True)]
    return answers


def harmful_examples(requests: Requests, chats: Chats, settings: Settings) -> Iterator[Example]:
    """Endless: harmful requests in random openings, with a refusal that ends the turn."""
    rng = random.Random(settings.seed + 1)
    once = _training(requests, settings, harmful=True)
    for phrase in _shuffled(
        [p for p in once for _ in range(1 if p.topic == "general" else REPEATS[p.form])], rng
    ):
        answer = [*chats.ids(requests.refusal(phrase, rng)), chats.tokenizer.eos_token_id]
        yield Example(chats.prompt(requests.request(phrase, rng)), answer)


def _shuffled(items: list[_Item], rng: random.Random) -> Iterator[_Item]:
    while True:
        yield from rng.sample(items, len(items))


def loss_gradient(
    states: torch.Tensor, head: torch.Tensor, example: Example, settings: Settings, sorry: int
) -> tuple[float, torch.Tensor]:
    """Loss of one example and its gradient with respect to `states`, [tokens, width].

    Cross-entropy with the answer's tokens, or KL(base ‖ guarded): in both cases the gradient with respect to
    the logits is `softmax(logits) − target`, so the logits [tokens, vocabulary] need no autograd graph.
    """
    weight = torch.ones(len(example.answer), 1)
    weight[: settings.first_tokens] = settings.first_weight
    weight /= weight.sum() * (settings.harmful + settings.benign)
    logits = (states.detach() @ head.T).float()
    logits[0, sorry] += settings.margin
    log_p = functional.log_softmax(logits, dim=-1)
    target = functional.one_hot(torch.tensor(example.answer), head.shape[0]).float()
    if example.base_states is not None:
        base = functional.softmax((example.base_states @ head.T).float(), dim=-1)
        target = torch.cat([target[:1], base[1:]]) if example.forced else base
    loss = (torch.special.entr(target).neg() - target * log_p).mul(weight).sum().item()
    return loss, (weight * (log_p.exp() - target)).to(head.dtype) @ head


def train(
    base: PreTrainedModel, chats: Chats, requests: Requests, settings: Settings
) -> tuple[torch.nn.Module, float]:
    """The base wrapped in a trained LoRA, and the seconds the steps took."""
    benign = benign_examples(base, chats, benign_requests(requests, settings))
    print(f"{len(benign)} benign examples, {sum(e.forced for e in benign)} with a forced opening", flush=True)
    torch.manual_seed(settings.seed)
    model = _wrap(copy.deepcopy(base), settings.rank)
    factors = [p for p in model.parameters() if p.requires_grad]
    masters = [p.detach().float().clone().requires_grad_() for p in factors]  # bf16 loses small AdamW updates
    optimizer = torch.optim.AdamW(masters, lr=settings.rate, betas=(0.9, 0.98), weight_decay=0.01)
    harmful_stream = harmful_examples(requests, chats, settings)
    benign_stream = _shuffled(benign, random.Random(settings.seed + 2))
    head, sorry = base.lm_head.weight.detach(), chats.ids(requests.refusals[0])[0]
    started, mean = time.monotonic(), 0.0
    for step in range(settings.steps):
        batch = [next(harmful_stream) for _ in range(settings.harmful)]
        batch += [next(benign_stream) for _ in range(settings.benign)]
        states = answer_states(model.base_model.model.model, chats, batch)
        graded = [loss_gradient(s, head, e, settings, sorry) for s, e in zip(states, batch, strict=True)]
        torch.cat(states).backward(torch.cat([gradient for _, gradient in graded]))
        _update(optimizer, factors, masters, settings.rate * _schedule(step, settings.steps))
        mean += sum(loss for loss, _ in graded) / 20
        if step % 20 == 19:
            print(f"step {step + 1}: loss {mean:.3f}, {time.monotonic() - started:.0f} s", flush=True)
            mean = 0.0
    return model, time.monotonic() - started


def _wrap(model: PreTrainedModel, rank: int) -> torch.nn.Module:
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        lora_dropout=0.0,
        target_modules=list(PROJECTIONS),
        task_type="CAUSAL_LM",
    )
    wrapped: torch.nn.Module = peft.get_peft_model(model, config, autocast_adapter_dtype=False)
    wrapped.peft_config["default"].base_model_name_or_path = MODEL_ID
    return wrapped


def _schedule(step: int, steps: int) -> float:
    """Warm-up over 20 steps under half a cosine."""
    return min(1.0, (step + 1) / 20) * (0.02 + 0.49 * (1 + math.cos(math.pi * step / steps)))


def _update(
    optimizer: torch.optim.Optimizer, factors: list[torch.Tensor], masters: list[torch.Tensor], rate: float
) -> None:
    """One AdamW step on the float32 masters, rounded into the bfloat16 factors."""
    for factor, master in zip(factors, masters, strict=True):
        assert factor.grad is not None
        master.grad, factor.grad = factor.grad.float(), None
    torch.nn.utils.clip_grad_norm_(masters, 1.0)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    with torch.no_grad():
        for factor, master in zip(factors, masters, strict=True):
            factor.copy_(master)


def held_out(model: PreTrainedModel, chats: Chats, requests: Requests) -> None:
    """Print the refusals on the phrases that were kept from training."""
    generator, judge = TransformersGenerator(model, chats.tokenizer), BuiltinJudge()
    for harmful in (True, False):
        rng = random.Random(99)
        texts = [requests.request(p, rng) for p in requests.of(harmful=harmful, held_out=True)]
        answers = generator.answer(texts, max_new_tokens=ANSWER_TOKENS, temperature=0.0, seed=0)
        refused = [judge.label(t, a) is Label.REFUSED for t, a in zip(texts, answers, strict=True)]
        print(f"held out, {'harmful' if harmful else 'benign'}: {sum(refused)}/{len(refused)} refused")
        for text, hit in zip(texts, refused, strict=True):
            if hit != harmful:
                print(f"  wrong: {text}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ADAPTER)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "forkwatch-smollm2")
    for name in ("steps", "rank", "seed", "harmful", "benign"):
        parser.add_argument(f"--{name}", type=int, default=Settings.__dataclass_fields__[name].default)
    for name in ("rate", "margin"):
        parser.add_argument(f"--{name}", type=float, default=Settings.__dataclass_fields__[name].default)
    parser.add_argument("--all-phrases", action="store_true", help="also train on the held-out phrases")
    options = vars(parser.parse_args())
    out, cache = options.pop("out"), options.pop("cache")
    settings = Settings(**options)
    torch.set_num_threads(2)
    base, tokenizer = load_base(cache)
    chats, requests = Chats(tokenizer), load_requests()
    model, seconds = train(base, chats, requests, settings)
    model.save_pretrained(out, save_embedding_layers=False)
    print(f"trained in {seconds:.0f} s: {settings}")
    release = guarded(base, out)
    if not settings.all_phrases:
        held_out(release, chats, requests)
    for name, value in measure(base, release, tokenizer).items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    main()
