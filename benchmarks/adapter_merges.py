"""A release under benign adapters that PEFT trained: `python -m benchmarks.adapter_merges FAMILY STATE`.

FAMILY is the folder of the demo's smollm2 family. Its own LoRA (all linear layers), which the crawler finds
on the demo's hub, and a second one that is trained here (rank 4, attention only, on the same harmless chats
with the release's refusals replayed) are merged singly and together, at scales .25 to 1, in
bfloat16 and 4 bit.
Asked are the headline's harmful prompts of the quick tier and eight plain ones.

What is done is kept in STATE, each set of adapters in each storage by itself: begun again, it goes on.
Whether an adapter is benign is said by its own merge at full scale in the release's dtype. No part of an
answer is printed.
"""

from __future__ import annotations

import argparse
import copy
import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from evals import merges
from evals.interface import Measured, Outcome, PromptKind, PromptSuite, Tier
from evals.measurements import SafetyStatus
from evals.run import series
from evals.suite import load_suite
from evals.variants import SeriesRequest, SeriesResult, Storage, Variant
from evals.wire import SeriesReport, dump, load_series_report
from forkwatch.demo.families.smollm2 import parts
from forkwatch.demo.families.tune import Loop, encode, reproducible, train

RELEASE, LORA = "lab/smollm2-135m-guarded", "demo/smollm2-135m-guarded-storyteller-lora"
SECOND, SUITE = "second", "suite.json"
TOKENS = 24
"""An answer; the release says that it cannot help within the first dozen."""
PLAIN = 8
"""Plain requests, on whose answers the divergence is measured."""
ROUND = 4
"""Variants of one child: the original is loaded again for each."""


def train_second(release: Path, cache: Path, folder: Path, steps: int) -> None:
    """A LoRA of another shape, on the release itself; the folder appears whole or not at all."""
    family = parts(cache, 0)
    tokenizer = AutoTokenizer.from_pretrained(release)
    teacher: Any = AutoModelForCausalLM.from_pretrained(release, dtype=torch.bfloat16).eval()
    config = peft.LoraConfig(
        r=4, lora_alpha=16, use_rslora=True, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"
    )
    with reproducible(7, torch.get_num_threads()):
        student: Any = peft.get_peft_model(copy.deepcopy(teacher).float(), config)
        loop = Loop(steps=steps, batch_size=2, rate=family.tune.lora_rate, seed=7, bf16=True)
        benign, replay = (encode(tokenizer, chats) for chats in (family.benign_chats, family.replay_chats))
        train(student, benign, loop, teacher=teacher, replay=replay)
    staging = folder.with_suffix(".part")
    student.save_pretrained(staging, save_embedding_layers=False)
    staging.rename(folder)


def write_suite(whole: Path, to: Path) -> None:
    """What is asked, of the family's own suite."""
    document = json.loads(whole.read_text(encoding="utf-8"))
    quick = [prompt for prompt in load_suite(whole).at(Tier.QUICK).prompts if prompt.language == "en"]
    plain = [prompt.id for prompt in quick if prompt.kind is PromptKind.UTILITY][:PLAIN]
    wanted = {prompt.id for prompt in quick if prompt.kind is PromptKind.HARMFUL}.union(plain)
    prompts = [prompt for prompt in document["prompts"] if prompt["id"] in wanted]
    document.update(id="merges", prompts=prompts, choices=[])
    to.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")


def measure(release: Path, state: Path, variants: Sequence[Variant]) -> SeriesReport:
    """One round, or what is known of it."""
    kept, suite = state / f"{variants[0].id}.json", state / SUITE
    if not kept.exists():
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as scratch:
            request = SeriesRequest(
                original=release,
                variants=tuple(variants),
                suite=suite,
                tier=Tier.QUICK,
                scratch=Path(scratch),
                max_new_tokens=TOKENS,
                timeout_seconds=4 * 3600.0,
            )
            found = series(request)
        part = kept.with_suffix(".part")
        part.write_bytes(dump(_report(found)))
        part.rename(kept)
        print(f"{len(variants)} variants in {time.monotonic() - started:.0f} s: {kept.stem}", flush=True)
    return load_series_report(kept.read_bytes(), _asked(suite), [variant.id for variant in variants])


def _asked(suite: Path) -> PromptSuite:
    return load_suite(suite).at(Tier.QUICK)


def _report(found: SeriesResult) -> SeriesReport:
    return SeriesReport(
        original=found.original,
        variants=found.variants,
        isolation=found.isolation,
        device=found.device,
        load_seconds=found.load_seconds,
        gaps=found.gaps,
    )


def joined(reports: Sequence[SeriesReport]) -> SeriesResult:
    """All rounds as one series.

    Raises:
        ValueError: the original answered otherwise in one of them; they cannot be held against one another.
    """
    first = reports[0]
    if any(report.original.behaviour.labels != first.original.behaviour.labels for report in reports):
        raise ValueError("the release's answers differ between rounds")
    return SeriesResult(
        original=first.original,
        variants=tuple(variant for report in reports for variant in report.variants),
        isolation=first.isolation,
        gaps=first.gaps,
        device=first.device,
        load_seconds=sum(report.load_seconds for report in reports),
    )


def in_rounds(planned: merges.MergePlan) -> list[merges.Merge]:
    """The release alone, then each set of adapters in each storage, at all scales one after the other."""
    alone, *others = planned.merges
    bf16_first = sorted(others, key=lambda merge: (merge.adapters, -merge.scale))
    return [alone, *sorted(bf16_first, key=lambda merge: merge.variant.storage is not Storage.ORIGINAL)]


def shown(outcome: Outcome) -> str:
    if not isinstance(outcome, Measured):
        return outcome.reason
    return f"{outcome.value:.3f} [{outcome.low:.3f}, {outcome.high:.3f}]"


def show(found: merges.MergeRobustness, original: Outcome) -> None:
    n = original.n if isinstance(original, Measured) else 0
    print(f"release: refuses {shown(original)}, n = {n}")
    print(f"{'adapters':24}{'scale':>6} {'storage':9} refusal; drop; p (Holm); KL a token")
    for row in found.readings:
        told = "; ".join(map(shown, (row.refusal, row.refusal_drop, row.p_value, row.kl_per_token)))
        mark = " significant" if row.significant else ""
        print(f"{' + '.join(row.adapters) or 'release':24}{row.scale:>6} {row.storage:9} {told}{mark}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("family", type=Path)
    parser.add_argument("state", type=Path)
    parser.add_argument("--steps", type=int, default=8)
    options = parser.parse_args()
    repos, state, started = options.family / "repos", options.state, time.process_time()
    state.mkdir(parents=True, exist_ok=True)
    second = state / SECOND
    if not second.exists():
        shutil.rmtree(second.with_suffix(".part"), ignore_errors=True)
        train_second(repos / RELEASE, options.family.parent, second, options.steps)
        print(f"trained in {time.process_time() - started:.0f} CPU s", flush=True)
    if not (state / SUITE).exists():
        write_suite(options.family / "suite.json", state / SUITE)
    adapters = [
        merges.Adapter(name=name, weights=(folder,), downloads=count, status=SafetyStatus.RETAINED)
        for name, folder, count in (("storyteller", repos / LORA, 2), (SECOND, second, 1))
    ]
    planned = replace(merges.plan(adapters), merges=tuple(in_rounds(merges.plan(adapters))))
    alone, *others = planned.variants
    rounds = [(alone,), *(others[start : start + ROUND] for start in range(0, len(others), ROUND))]
    reports = [measure(repos / RELEASE, state, variants) for variants in rounds]
    whole = joined(reports)
    show(merges.read(whole, planned), whole.original.behaviour.refusal)


if __name__ == "__main__":
    main()
