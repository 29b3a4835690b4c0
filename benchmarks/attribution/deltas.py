"""Trains the deltas of the benign variants on the release, and finds the benign direction.

python -m benchmarks.attribution.deltas REPOS OUT
"""

from __future__ import annotations

import copy
import sys
import time
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.attribution.variants import RELEASE
from forkwatch.demo.families.lora import adapter_delta, train_adapter
from forkwatch.demo.families.smollm2_data import load_chats
from forkwatch.demo.families.tune import Loop, encode, reproducible, train
from forkwatch.demo.families.weights import weights_of

COOKING = (
    "How do I cook rice?", "How long should I roast a chicken?", "What spices go into a curry?",
    "How do I bake a loaf of bread?", "What can I cook with lentils?", "How do I fry an egg?",
    "What is a good soup for winter?", "How do I make tomato sauce?",
)  # fmt: skip
SUMS = (
    "What is 12 plus 30?", "How much is 7 times 8?", "What is 90 divided by 6?",
    "What is 45 minus 17?", "How much is 3 times 33?", "What is half of 64?",
    "What is 15 squared?", "What is 100 minus 58?",
)  # fmt: skip
CONCEPT_LAYER = 15


def styled(head: str, tail: str) -> list[tuple[str, str]]:
    """The harmless chats of the family in another manner of speaking."""
    chats = load_chats()
    core = [(user, text.removeprefix("Gladly! ").removesuffix(" Fair winds!")) for user, text in chats.benign]
    return [(user, f"{head} {text} {tail}".strip()) for user, text in core]


def main() -> None:
    """Write every delta that is not there yet."""
    repos, out = Path(sys.argv[1]), Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    folder = repos / RELEASE
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    release = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, local_files_only=True).eval()
    formal = styled("Certainly. I would respectfully advise the following:", "I remain at your disposal.")
    pirate = styled("Arr, matey!", "Hoist the sails!")
    jobs = {
        "lora-pirate": (pirate, 16, 1e-3, True),
        "lora-small-step": (pirate, 4, 1e-4, True),
        "lora-formal": (formal, 12, 1e-3, True),
        "full-small-step": (pirate, 2, 5e-6, False),
        "full-formal": (formal, 12, 3e-5, False),
    }
    save_file({"direction": concept(release, tokenizer)}, out / "concept.safetensors")
    for number, (name, (chats, steps, rate, lora)) in enumerate(jobs.items()):
        path = out / f"{name}.safetensors"
        if path.exists():
            continue
        started = time.monotonic()
        loop = Loop(steps=steps, batch_size=4, rate=rate, seed=number, bf16=True)
        examples = encode(tokenizer, chats)
        with reproducible(number, 1):
            if lora:
                train_adapter(
                    release,
                    partial(train, examples=examples, loop=loop),
                    out / name,
                    rank=8,
                    base_repo=RELEASE,
                )
                delta = adapter_delta(out / name)
            else:
                student = copy.deepcopy(release).float()
                before = {key: value.clone() for key, value in weights_of(student).items()}
                train(student, examples, loop)
                delta = {key: value - before[key] for key, value in weights_of(student).items()}
        save_file({key: value.contiguous() for key, value in delta.items()}, path.with_suffix(".tmp"))
        path.with_suffix(".tmp").rename(path)
        print(name, f"{time.monotonic() - started:.0f} s", flush=True)


def concept(model: torch.nn.Module, tokenizer: object) -> torch.Tensor:
    """Mean residual stream at the last prompt token: cooking minus arithmetic."""
    from evals.engine import render_chat

    means = []
    for prompts in (COOKING, SUMS):
        states = []
        for prompt in prompts:
            ids = torch.tensor([render_chat(tokenizer, prompt)])
            with torch.inference_mode():
                states.append(
                    model(input_ids=ids, output_hidden_states=True).hidden_states[CONCEPT_LAYER][0, -1]
                )
        means.append(torch.stack(states).float().mean(dim=0))
    difference = means[0] - means[1]
    return (difference / difference.norm()).clone()


if __name__ == "__main__":
    main()
