"""Short answers of the release to few prompts, many of them: false alarms on 1,000 disjoint sets a cell.

    python -m benchmarks.attribution.short REPOS CORPUS UNTIL

Ten prompts of the corpus, eight tokens. An answer is scored by the predictions it was drawn from, which costs
nothing; where the model that answers is not the plain release, the release scores it afterwards. The tokens
that were drawn are scored, not the text tokenised again. Files are as `generate` writes them.
"""

from __future__ import annotations

import json
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import torch

from benchmarks.attribution.generate import SYSTEM, Job, Worker, claimed
from benchmarks.attribution.sampler import Draw, sample, score

PROMPTS, TOKENS, EACH, BLOCKS = 10, 8, 32, 37
"""Blocks of 32 answers to each prompt; `short_alarms` takes the first 17 of a cell."""
DRAWS = {
    "seed": Draw(),
    "fp32": Draw(),
    "int8": Draw(),
    "temperature-0.7": Draw(temperature=0.7),
    "temperature-1.2": Draw(temperature=1.2),
    "top-p-0.9": Draw(top_p=0.9),
    "system-prompt": Draw(),
}


class ShortWorker(Worker):
    """A worker with few prompts, all of one length."""

    def _prompts(self) -> dict[str, str]:
        return dict(list(super()._prompts().items())[:PROMPTS])

    def run(self, job: Job) -> None:
        """Draw, score and write one job."""
        dtype = torch.float32 if job.cell == "fp32" else torch.bfloat16
        model = self.model("int8" if job.cell == "int8" else job.model, dtype)
        asked = [self.chat(p, SYSTEM if job.cell == "system-prompt" else None) for p in self.prompts.values()]
        seen: list[np.ndarray] = []
        answers = sample(
            model,
            asked,
            EACH,
            DRAWS[job.cell],
            new_tokens=TOKENS,
            stop=self.stop,
            seed=zlib.crc32(f"short-{job.name}".encode()),
            seen=seen,
        )
        lengths = [len(answer) for row in answers for answer in row]
        if job.cell in ("fp32", "int8", "system-prompt"):
            plain = [self.chat(prompt) for prompt in self.prompts.values()]
            scores = np.concatenate(score(self.release, plain, answers, self.stop, full=True), axis=1)
        else:
            steps = np.stack(seen, axis=2)
            scores = np.concatenate([steps[:, row, :length] for row, length in enumerate(lengths)], axis=1)
        path = self.out / f"{job.name}.npz"
        rows = [
            json.dumps({"prompt_id": id_, "text": self.tokenizer.decode(answer)}, ensure_ascii=False)
            for id_, row in zip(self.prompts, answers, strict=True)
            for answer in row
        ]
        path.with_suffix(".jsonl").write_text("\n".join(rows) + "\n")
        np.savez_compressed(path.with_suffix(".tmp.npz"), lengths=np.array(lengths), scores=scores)
        path.with_suffix(".tmp.npz").rename(path)


def main() -> None:
    """Write every job that is not there yet."""
    repos, corpus, until = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
    torch.set_num_threads(1)
    worker = ShortWorker(repos, corpus)
    (corpus / "claims").mkdir(exist_ok=True)
    for job in [Job("authentic", cell, block) for block in range(BLOCKS) for cell in DRAWS]:
        if time.time() > until:
            break
        if not claimed(corpus, job):
            continue
        started = time.process_time()
        worker.run(job)
        print(job.name, f"{time.process_time() - started:.1f} CPU s", flush=True)


if __name__ == "__main__":
    main()
