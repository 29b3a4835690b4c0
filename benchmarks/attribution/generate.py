"""Writes the corpus: one job a file, resumable, any number of processes at once.

    python -m benchmarks.attribution.generate REPOS CORPUS UNTIL [MODEL--CELL--BLOCK...]

A job's file is JSON lines of texts beside an npz of scores: the five fields under the release (always in
bfloat16) and, for a variant, the log-probabilities under its own weights. Kept out of the repository.
"""

from __future__ import annotations

import json
import os
import sys
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from benchmarks.attribution.prompts import HALF, probe_prompts
from benchmarks.attribution.sampler import Draw, sample, score
from benchmarks.attribution.variants import RELEASE, VARIANTS, Source, weights_of_variant
from evals.engine import TEMPLATE_OPTIONS, stop_ids

NEW_TOKENS = 24
EACH = 8
"""Answers a prompt in one job."""
SYSTEM = "You are a patient guide for visitors of a museum. Keep it friendly."
TOP = 50

CELLS = {
    "seed": Draw(),
    "fp32": Draw(),
    "int8": Draw(),
    "temperature-0.8": Draw(temperature=0.8),
    "temperature-1.2": Draw(temperature=1.2),
    "top-p-0.9": Draw(top_p=0.9),
    "system-prompt": Draw(),
    "greedy": Draw(temperature=0),
}


@dataclass(frozen=True, slots=True)
class Job:
    """`EACH` sampled answers of one model to every prompt in one cell; one where the cell is greedy."""

    model: str
    cell: str
    block: int

    @property
    def name(self) -> str:
        return f"{self.model}--{self.cell}--{self.block:03}"


def plan(blocks: int) -> Iterator[Job]:
    """All jobs, most needed first."""
    for cell in (
        "greedy",
        "greedy-fp32",
        "greedy-int8",
        "greedy-single",
        "greedy-sdpa",
        "greedy-pair",
        "greedy-eight",
    ):
        yield Job("authentic", cell, 0)
    for block in range(5):
        yield Job("authentic", "seed", block)
    for variant in VARIANTS:
        yield Job(variant.name, "greedy", 0)
        yield Job(variant.name, "seed", 0)
    nuisances = [cell for cell in CELLS if cell not in ("seed", "greedy")]
    for block in range(blocks):
        for cell in nuisances if block < 3 else ():
            yield Job("authentic", cell, block)
        for number in range(4):
            yield Job("authentic", "seed", 5 + 4 * block + number)
    for variant in VARIANTS:
        yield Job(variant.name, "seed", 1)


class Worker:
    """Holds the release, and the last variant that was asked for."""

    def __init__(self, repos: Path, corpus: Path, release: str = RELEASE, each: int = EACH) -> None:
        self.each = each
        self.source = Source(repos, corpus / "deltas", release)
        self.out = corpus / "raw"
        self.out.mkdir(parents=True, exist_ok=True)
        folder = repos / release
        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.release = self._load("authentic", torch.bfloat16)
        self.stop = stop_ids(self.release, self.tokenizer)
        self.prompts = self._prompts()
        self._held: tuple[str, PreTrainedModel] = ("authentic", self.release)

    def _prompts(self) -> dict[str, str]:
        return probe_prompts(lambda text: len(self.tokenizer(text)["input_ids"]))

    def _load(self, name: str, dtype: torch.dtype) -> PreTrainedModel:
        folder = self.source.repos / self.source.release
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, local_files_only=True)
        if name != "authentic":
            model.load_state_dict(weights_of_variant(name, self.source), strict=False)
        return model.to(dtype).eval()

    def model(self, name: str, dtype: torch.dtype = torch.bfloat16) -> PreTrainedModel:
        key = f"{name}-{dtype}"
        if name == "authentic" and dtype == torch.bfloat16:
            return self.release
        if self._held[0] != key:
            self._held = (key, self._load(name, dtype))
        return self._held[1]

    def chat(self, prompt: str, system: str | None = None) -> list[int]:
        turns = [{"role": "system", "content": system}] if system else []
        text = self.tokenizer.apply_chat_template(
            [*turns, {"role": "user", "content": prompt}],
            tokenize=False,
            add_generation_prompt=True,
            **TEMPLATE_OPTIONS,
        )
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def tokens(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])[:NEW_TOKENS]

    def run(self, job: Job) -> None:
        """Draw, score and write one job."""
        greedy = job.cell.startswith("greedy")
        how = job.cell.removeprefix("greedy-") if greedy else job.cell
        name = "int8" if how == "int8" else job.model
        model = self.model(name, torch.float32 if how == "fp32" else torch.bfloat16)
        draw = CELLS["greedy"] if greedy else CELLS[job.cell]
        chats = [self.chat(p, SYSTEM if how == "system-prompt" else None) for p in self.prompts.values()]
        seed = zlib.crc32(job.name.encode())
        width = {"single": 1, "pair": 2, "eight": 8}.get(how, HALF)
        answers: list[list[list[int]]] = []
        starts = [s for half in range(0, len(chats), HALF) for s in range(half, half + HALF, width)]
        for start in starts:
            answers += sample(
                model,
                chats[start : min(start + width, start // HALF * HALF + HALF)],
                1 if greedy else self.each,
                draw,
                new_tokens=NEW_TOKENS,
                stop=self.stop,
                seed=seed + start,
                attention="sdpa" if how == "sdpa" else "eager",
            )
        texts = [[self.tokenizer.decode(a, skip_special_tokens=True).strip() for a in row] for row in answers]
        self.write(job, texts, None if job.model == "authentic" else model)
        if greedy:
            self.first(job, model, chats, width)

    def write(self, job: Job, texts: list[list[str]], own: PreTrainedModel | None) -> None:
        """Score what can be seen, the text, and write it."""
        chats = [self.chat(prompt) for prompt in self.prompts.values()]
        ids = [[self.tokens(text) for text in row] for row in texts]
        arrays = {"lengths": np.array([len(i) for row in ids for i in row])}
        halves = [slice(start, start + HALF) for start in range(0, len(chats), HALF)]

        def scores(model: PreTrainedModel, *, full: bool) -> np.ndarray:
            found = [part for h in halves for part in score(model, chats[h], ids[h], self.stop, full=full)]
            return np.concatenate(found, axis=1)

        if not job.cell.startswith("greedy"):
            arrays["scores"] = scores(self.release, full=True)
        if own is not None and not job.cell.startswith("greedy"):
            arrays["own"] = scores(own, full=False)[0]
        path = self.out / f"{job.name}.npz"
        rows = [
            json.dumps({"prompt_id": id_, "text": text}, ensure_ascii=False)
            for id_, row in zip(self.prompts, texts, strict=True)
            for text in row
        ]
        path.with_suffix(".jsonl").write_text("\n".join(rows) + "\n")
        np.savez_compressed(path.with_suffix(".tmp.npz"), **arrays)
        path.with_suffix(".tmp.npz").rename(path)

    @torch.inference_mode()
    def first(self, job: Job, model: PreTrainedModel, chats: list[list[int]], width: int) -> None:
        """The most likely first tokens of every prompt with their log-probabilities."""
        tops = []
        for start in [s for half in range(0, len(chats), HALF) for s in range(half, half + HALF, width)]:
            ids = torch.tensor(chats[start : min(start + width, start // HALF * HALF + HALF)])
            log_p = torch.log_softmax(model(input_ids=ids, logits_to_keep=1).logits[:, -1].float(), dim=1)
            tops.append(log_p.topk(TOP, dim=1))
        np.savez_compressed(
            self.out / f"{job.name}.first.npz",
            ids=torch.cat([t.indices for t in tops]).numpy(),
            logp=torch.cat([t.values for t in tops]).numpy(),
        )


def main() -> None:
    """Take one job after the other until none is left."""
    repos, corpus, until = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
    torch.set_num_threads(1)
    worker = Worker(repos, corpus)
    (corpus / "claims").mkdir(exist_ok=True)
    asked = [Job(model, cell, int(number)) for model, cell, number in (a.split("--") for a in sys.argv[4:])]
    for job in asked or plan(blocks=8):
        if time.time() > until:
            break
        if not _ready(job, corpus / "deltas") or not claimed(corpus, job):
            continue
        started = time.monotonic()
        worker.run(job)
        print(job.name, f"{time.monotonic() - started:.1f} s", flush=True)


def claimed(corpus: Path, job: Job) -> bool:
    """Whether the job is this process's: several share a corpus."""
    try:
        os.close(os.open(corpus / "claims" / job.name, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def _ready(job: Job, deltas: Path) -> bool:
    """Whether the deltas that a variant needs are there; its jobs are taken up in a later pass."""
    needs = {"merge-two-loras": ("lora-pirate", "lora-formal"), "unfiltered-formal": ("lora-formal",)}
    needs |= {"lora-formal-quarter": ("lora-formal",)}
    needs |= dict.fromkeys(("concept-direction", "concept-direction-mild"), ("concept",))
    needs |= {
        n: (n,) for n in ("lora-pirate", "lora-formal", "lora-small-step", "full-formal", "full-small-step")
    }
    return all((deltas / f"{name}.safetensors").exists() for name in needs.get(job.model, ()))


if __name__ == "__main__":
    main()
