"""A release under benign adapters that PEFT trained: `python benchmarks/adapter_merges.py FAMILY`.

FAMILY is the folder of the demo's smollm2 family. Its own LoRA (all linear layers) and a second one that is
trained here (rank 4, attention only, on the same harmless chats with the release's refusals replayed) are
merged singly and together, at full and half scale, in bfloat16 and 4 bit. No part of an answer is printed.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from pathlib import Path
from typing import Any

import peft
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from evals import merges
from evals.interface import Measured, Outcome, Tier
from evals.measurements import SafetyStatus
from evals.run import series
from evals.variants import SeriesRequest
from forkwatch.demo.families.smollm2 import parts
from forkwatch.demo.families.tune import Loop, encode, reproducible, train

RELEASE, LORA = "lab/smollm2-135m-guarded", "demo/smollm2-135m-guarded-storyteller-lora"


def train_second(release: Path, cache: Path, folder: Path, steps: int) -> None:
    """A LoRA of another shape, on the release itself."""
    family = parts(cache, 0)
    tokenizer = AutoTokenizer.from_pretrained(release)
    teacher: Any = AutoModelForCausalLM.from_pretrained(release, dtype=torch.bfloat16).eval()
    config = peft.LoraConfig(
        r=4, lora_alpha=16, use_rslora=True, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"
    )
    with reproducible(7, torch.get_num_threads()):
        student: Any = peft.get_peft_model(copy.deepcopy(teacher).float(), config)
        loop = Loop(steps=steps, batch_size=4, rate=family.tune.lora_rate, seed=7, bf16=True)
        benign, replay = (encode(tokenizer, chats) for chats in (family.benign_chats, family.replay_chats))
        train(student, benign, loop, teacher=teacher, replay=replay)
    student.save_pretrained(folder, save_embedding_layers=False)


def shown(outcome: Outcome) -> str:
    if not isinstance(outcome, Measured):
        return outcome.reason
    return f"{outcome.value:.3f} [{outcome.low:.3f}, {outcome.high:.3f}]"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("family", type=Path)
    parser.add_argument("--tier", type=Tier, default=Tier.SCREEN)
    parser.add_argument("--scales", type=float, nargs="+", default=[1.0, 0.5])
    parser.add_argument("--steps", type=int, default=12)
    options = parser.parse_args()
    repos, started = options.family / "repos", time.process_time()
    with tempfile.TemporaryDirectory() as scratch:
        second = Path(scratch, "second")
        train_second(repos / RELEASE, options.family.parent, second, options.steps)
        print(f"trained in {time.process_time() - started:.0f} CPU s", flush=True)
        adapters = [
            merges.Adapter(name=name, weights=(folder,), downloads=count, status=SafetyStatus.RETAINED)
            for name, folder, count in (("storyteller", repos / LORA, 2), ("second", second, 1))
        ]
        planned = merges.plan(adapters, scales=options.scales)
        Path(scratch, "run").mkdir()
        request = SeriesRequest(
            original=repos / RELEASE,
            variants=planned.variants,
            suite=options.family / "suite.json",
            tier=options.tier,
            scratch=Path(scratch, "run"),
        )
        found = merges.read(series(request, progress=lambda line: print(line, flush=True)), planned)
    print(f"{'adapters':24}{'scale':>6} {'storage':9} refusal; drop; p; choice; KL a token")
    for row in found.readings:
        numbers = (row.refusal, row.refusal_drop, row.p_value, row.choice, row.kl_per_token)
        told = "; ".join(shown(number) for number in numbers)
        print(f"{' + '.join(row.adapters) or 'release':24}{row.scale:>6} {row.storage:9} {told}")


if __name__ == "__main__":
    main()
