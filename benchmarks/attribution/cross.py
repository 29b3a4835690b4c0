"""Scores authentic outputs under some forks: what the likelihood ratio says where nothing was modified.

    python -m benchmarks.attribution.cross REPOS CORPUS UNTIL [SUITE]

With a suite it is the tiny family's corpus. Writes `<block>.under-<fork>.npz`, `logp` of all tokens.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.attribution import tiny
from benchmarks.attribution.generate import HALF, Worker
from benchmarks.attribution.sampler import score

FORKS = {"smollm2": ("lora-pirate", "storyteller", "unfiltered"), "tiny": ("storyteller",)}
FIRST = {"smollm2": {"seed": 5}, "tiny": {}}
"""First block by cell that no test uses as its reference; else `OTHERWISE`."""
OTHERWISE = {"smollm2": 1, "tiny": 8}


def family(corpus: Path) -> str:
    """Which of the two corpora this is."""
    return "tiny" if corpus.name == "tiny" else "smollm2"


def main() -> None:
    """Write what is not there yet."""
    repos, corpus, until = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
    torch.set_num_threads(1)
    name = family(corpus)
    if name == "tiny":
        tiny.TinyWorker.suite = Path(sys.argv[4])
        worker: Worker = tiny.TinyWorker(repos, corpus, tiny.RELEASE, tiny.EACH)
    else:
        worker = Worker(repos, corpus)
    chats = [worker.chat(prompt) for prompt in worker.prompts.values()]
    for fork in FORKS[name]:
        for path in tested(corpus):
            out = path.with_suffix(f".under-{fork}.npz")
            if time.time() > until:
                return
            try:
                os.close(os.open(corpus / "claims" / out.name, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                continue
            rows = [
                json.loads(line)["text"]
                for line in path.with_suffix(".jsonl").read_text().split("\n")
                if line
            ]
            ids = [worker.tokens(text) for text in rows]
            each = len(rows) // len(chats)
            grouped = [ids[i : i + each] for i in range(0, len(ids), each)]
            parts = []
            for start in range(0, len(chats), HALF):
                half = slice(start, start + HALF)
                parts += score(worker.model(fork), chats[half], grouped[half], worker.stop, full=False)
            np.savez_compressed(out, logp=np.concatenate(parts, axis=1)[0])


def tested(corpus: Path) -> list[Path]:
    """Scored authentic blocks that no reference holds."""
    name = family(corpus)
    found = []
    for path in sorted((corpus / "raw").glob("authentic--*--[0-9][0-9][0-9].npz")):
        _, cell, number = path.stem.split("--")
        if not cell.startswith("greedy") and int(number) >= FIRST[name].get(cell, OTHERWISE[name]):
            found.append(path)
    return found


if __name__ == "__main__":
    main()
