"""The authentic half of the corpus again, on the tiny family: enough for 1,000 independent aggregates of 40.

python -m benchmarks.attribution.tiny REPOS SUITE CORPUS UNTIL
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import torch

from benchmarks.attribution.generate import CELLS, Job, Worker

RELEASE = "lab/tiny-chat"
PROMPTS, TOKENS = 40, 10
EACH, BLOCKS = 50, 29
"""Answers a prompt in a job, and jobs a cell: one to learn from, seven to calibrate with (350 units of 40),
21 x 50 aggregates of 40 to test."""
FORKS = (
    "storyteller-merged", "storyteller", "storyteller-tail", "oneway", "random-direction", "official",
    "noise-1e-2", "noise-3e-2", "noise-8e-2", "merge-base-half", "merge-storyteller-half", "unfiltered",
    "freestyle", "nightjar", "q8-0", "int8", "int4-g64", "q4-g32", "pruned-10", "pruned-30",
)  # fmt: skip
"""Variants that need none of the deltas trained for smollm2; one block each."""


class TinyWorker(Worker):
    """A worker with the tiny family's prompts."""

    suite: Path

    def _prompts(self) -> dict[str, str]:
        rows = json.loads(self.suite.read_text())["prompts"]
        plain = [(r["id"], r["text"]) for r in rows if r["kind"] != "harmful"]
        return dict([(i, t) for i, t in plain if len(self.tokenizer(t)["input_ids"]) == TOKENS][:PROMPTS])


def main() -> None:
    """Write every job that is not there yet."""
    repos, suite, corpus = (Path(argument) for argument in sys.argv[1:4])
    until = float(sys.argv[4])
    torch.set_num_threads(1)
    TinyWorker.suite = suite
    worker = TinyWorker(repos, corpus, RELEASE, EACH)
    (corpus / "claims").mkdir(exist_ok=True)
    jobs = [Job("authentic", cell, 0) for cell in ("greedy", "greedy-fp32", "greedy-single")]
    jobs += [Job("authentic", cell, b) for b in range(BLOCKS) for cell in CELLS if cell != "greedy"]
    jobs += [Job(name, "seed", 0) for name in FORKS]
    for job in jobs:
        if time.time() > until:
            break
        try:
            os.close(os.open(corpus / "claims" / job.name, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            continue
        worker.run(job)
        print(job.name, flush=True)


if __name__ == "__main__":
    main()
