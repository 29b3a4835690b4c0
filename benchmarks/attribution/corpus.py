"""Reads the corpus that `generate` wrote, and cuts it into aggregates of n outputs."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from detector.outputs.interface import Output, Sampling, ScoredOutput, TokenScores, Transcript

SIZES = (1, 5, 10, 20, 40)
_NONE = np.zeros((5, 0), np.float32)


@dataclass(frozen=True, slots=True)
class Block:
    """One job: answers to every prompt, in order of prompts."""

    model: str
    cell: str
    number: int
    outputs: tuple[ScoredOutput, ...]

    @property
    def by_prompt(self) -> dict[str, list[ScoredOutput]]:
        found: dict[str, list[ScoredOutput]] = {}
        for one in self.outputs:
            found.setdefault(one.output.prompt_id, []).append(one)
        return found


def read_blocks(corpus: Path, model: str, cell: str) -> list[Block]:
    """All blocks of a model in a cell that are written, in order. The fork's own id is its name."""
    paths = sorted((corpus / "raw").glob(f"{model}--{cell}--[0-9][0-9][0-9].npz"))
    return [_read(path, model, cell) for path in paths]


def _read(path: Path, model: str, cell: str) -> Block:
    rows = [json.loads(line) for line in path.with_suffix(".jsonl").read_text().split("\n") if line]
    with np.load(path) as arrays:
        ends = np.cumsum(arrays["lengths"])[:-1]
        scores = np.split(arrays["scores"], ends, axis=1) if "scores" in arrays else [_NONE] * len(rows)
        own = np.split(arrays["own"], ends) if "own" in arrays else [None] * len(rows)
    greedy = cell.startswith("greedy")
    outputs = tuple(
        ScoredOutput(
            Output(
                prompt_id=row["prompt_id"],
                text=row["text"],
                sampling=Sampling(temperature=0.0 if greedy else 1.0, top_p=1.0),
            ),
            TokenScores(*part),
            {} if q is None else {model: q},
        )
        for row, part, q in zip(rows, scores, own, strict=True)
    )
    return Block(model, cell, int(path.stem.rpartition("--")[2]), outputs)


def transcript(corpus: Path, model: str, cell: str) -> Transcript:
    """Greedy answers of a model; `cell` names the numerics."""
    (block,) = read_blocks(corpus, model, cell)
    answers = {one.output.prompt_id: one.output.text or "" for one in block.outputs}
    return Transcript(model=model, engine=cell, dtype=cell, answers=answers)


def aggregates(blocks: Sequence[Block], n: int, seed: int = 0) -> Iterator[tuple[ScoredOutput, ...]]:
    """Disjoint sets of n outputs to n different prompts; no output is used twice for one n."""
    rng = random.Random(f"{seed}-{n}")
    for block in blocks:
        answers = block.by_prompt
        prompts = list(answers)
        for number in range(min(map(len, answers.values()))):
            rng.shuffle(prompts)
            for start in range(0, len(prompts) - n + 1, n):
                found = [answers[prompt][number] for prompt in prompts[start : start + n]]
                yield tuple(one for one in found if len(one.authentic.logp))


def halves(block: Block) -> tuple[Block, Block]:
    """The first half of the answers to every prompt, and the second."""
    first, second = [], []
    for those in block.by_prompt.values():
        first += those[: len(those) // 2]
        second += those[len(those) // 2 :]
    return replace(block, outputs=tuple(first)), replace(block, outputs=tuple(second))
