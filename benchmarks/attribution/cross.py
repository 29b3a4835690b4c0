"""Scores authentic outputs under some forks: what the likelihood ratio says where nothing was modified.

    python -m benchmarks.attribution.cross REPOS CORPUS UNTIL
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.attribution.generate import HALF, Worker
from benchmarks.attribution.sampler import score

FORKS = ("lora-pirate", "storyteller", "unfiltered", "noise-8e-2", "int4-g64", "concept-direction-mild")
BLOCKS = (
    "seed--008", "seed--009", "seed--010", "temperature-0.8--001", "temperature-1.2--001", "top-p-0.9--001",
    "system-prompt--001", "fp32--001", "int8--001",
)  # fmt: skip


def main() -> None:
    """Write `<block>.under-<fork>.npz` with the log-probabilities of all tokens in `logp`."""
    repos, corpus, until = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
    torch.set_num_threads(1)
    worker = Worker(repos, corpus)
    for fork in FORKS:
        for block in BLOCKS:
            path = corpus / "raw" / f"authentic--{block}.npz"
            out = path.with_suffix(f".under-{fork}.npz")
            claim = corpus / "claims" / out.name
            if not path.exists() or time.time() > until:
                continue
            try:
                os.close(os.open(claim, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                continue
            rows = [json.loads(line)["text"] for line in path.with_suffix(".jsonl").read_text().split("\n") if line]
            ids = [worker.tokens(text) for text in rows]
            chats = [worker.chat(prompt) for prompt in worker.prompts.values()]
            each = len(rows) // len(chats)
            grouped = [ids[i : i + each] for i in range(0, len(ids), each)]
            parts = []
            for start in range(0, len(chats), HALF):
                half = slice(start, start + HALF)
                parts += score(worker.model(fork), chats[half], grouped[half], worker.stop, full=False)
            np.savez_compressed(out, logp=np.concatenate(parts, axis=1)[0])
            print(out.name, flush=True)


if __name__ == "__main__":
    main()
