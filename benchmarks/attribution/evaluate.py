"""Power and false alarms of every test on the same aggregates of the corpus; one JSON line a cell and n.

    python -m benchmarks.attribution.evaluate CORPUS OUT.jsonl [MODEL...]

With models named, drawn answers of these alone.

Roles of the release's plain blocks: `TRAINING` teach classifiers, `REFERENCE` is what every test compares
with, the rest is under test. Of each nuisance cell half of the first block teaches (hard negatives) and half
is what the test against all cells compares with.
"""

from __future__ import annotations

import json
import math
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from benchmarks.attribution import swap
from benchmarks.attribution.corpus import Block, aggregates, halves, read_blocks, transcript
from benchmarks.attribution.features import FAMILY, Folds, log_odds, sample_of, table_of
from benchmarks.attribution.variants import VARIANTS
from detector.outputs.evalues import bar
from detector.outputs.features import score_features
from detector.outputs.first_logprobs import logprob_test
from detector.outputs.interface import ALPHA, Decision, ScoredOutput, Transcript
from detector.outputs.likelihood import PLAIN, likelihoods, log_e_of
from detector.outputs.met import _code_points, mmd_hamming
from detector.outputs.nuisance import setting_of
from detector.outputs.ranks import by_prompt, log_rank, rank_uniformity
from detector.outputs.scores import features_by_prompt, score_test
from detector.outputs.transcripts import greedy_transcript

TRAINING, REFERENCE = slice(0, 1), slice(1, 5)
CELLS = ("seed", "fp32", "int8", "temperature-0.8", "temperature-1.2", "top-p-0.9", "system-prompt")
SIZES = (1, 2, 5, 10, 20, 40)
NUISANCE_FROM = 10
"""Outputs from which the test against all nuisance cells is run; fewer take as long and find little."""
NUMERICS = ("", "-fp32", "-single", "-sdpa", "-pair", "-eight", "-int8")
"""Batch of 20 in bfloat16, float32, batch of 1, another attention kernel, batches of 2 and 8, 8 bits."""
PACK, ROUNDS = 3, 8
HEADS = ("score", "seed", "text")
"""By scores against all settings together, by scores against the plain one, by text."""
LISTED = 20
"""Tokens whose log-probabilities an endpoint gives."""
CHECKED = 40
"""Aggregates on which the product's own MMD and RUT are held against the fast ones here."""


class Evaluation:
    """Everything that does not depend on the model under test."""

    def __init__(self, corpus: Path, out: Path) -> None:
        self.corpus, self.out = corpus, out
        self.release = read_blocks(corpus, "authentic", "seed")
        self.reference = self.release[REFERENCE]
        self.cells = {cell: read_blocks(corpus, "authentic", cell) for cell in CELLS}
        self.forks = {v.name: read_blocks(corpus, v.name, "seed") for v in VARIANTS}
        self.forks = {name: blocks for name, blocks in self.forks.items() if blocks}
        samples = [sample_of(self.release[TRAINING])]
        self.nuisances = {
            cell: halves(blocks[0]) for cell, blocks in self.cells.items() if cell != "seed" and blocks
        }
        samples += [sample_of([taught]) for taught, _ in self.nuisances.values()]
        samples += [sample_of(blocks[:1]) for blocks in self.forks.values()]
        self.folds = Folds(table_of(samples))
        self.tables = {cell: table_of([sample_of([held])]) for cell, (_, held) in self.nuisances.items()}
        self.tables["seed"] = table_of([sample_of(self.reference)])
        self.texts: dict[str, list[str]] = defaultdict(list)
        self.scored: dict[str, list[ScoredOutput]] = defaultdict(list)
        for block in self.reference:
            for one in block.outputs:
                if len(one.authentic.logp):
                    self.texts[one.output.prompt_id].append(one.output.text or "")
                    self.scored[one.output.prompt_id].append(one)
        self.least = min(map(len, self.texts.values()))
        self.plain = {
            name: {
                prompt: np.array([function(one) for one in outputs[: self.least]])
                for prompt, outputs in self.scored.items()
            }
            for name, function in _PLAIN.items()
        }
        self.features = {p: _features(outputs[: self.least]) for p, outputs in self.scored.items()}
        self.pack = {
            cell: _by_prompt(blocks[:1]) for cell, blocks in self.cells.items() if cell != "seed" and blocks
        }
        self.pack["seed"] = _by_prompt(self.reference)

    def of_heads(self, by: str, name: str, cell: str = "seed") -> dict[str, dict[str, np.ndarray]]:
        """Log-odds of what a cell has to compare with, by prompt, heads trained without `name`."""
        table = self.tables[cell]
        result: dict[str, dict[str, np.ndarray]] = {}
        for key, values in log_odds(self.folds.without(by, name), table).items():
            prompts: dict[str, list[float]] = defaultdict(list)
            for prompt, value in zip(table.prompt.tolist(), values, strict=True):
                prompts[prompt].append(value)
            least = min(map(len, prompts.values()))
            result[key] = {prompt: np.array(rows[:least]) for prompt, rows in prompts.items()}
        return result

    def run(self, model: str, cell: str, blocks: list[Block]) -> None:
        """All tests on all aggregates of a model in a cell."""
        folds = {
            "lofo": ("fork", model if model in FAMILY else "none"),
            "lofamo": ("family", FAMILY.get(model, "none")),
        }
        reference = {
            name: {cell: self.of_heads(*fold, cell) for cell in self.tables} for name, fold in folds.items()
        }
        served: dict[int, dict[str, float]] = defaultdict(dict)
        for block in blocks:
            outputs = [one for one in block.outputs if len(one.authentic.logp)]
            table = table_of([sample_of([block])])
            for fold, key in folds.items():
                for head, values in log_odds(self.folds.without(*key), table).items():
                    for one, value in zip(outputs, values, strict=True):
                        served[id(one)][f"{fold}-{head}"] = float(value)
        for n in SIZES:
            rejected: dict[str, int] = defaultdict(int)
            count = 0
            for aggregate in aggregates(blocks, n):
                count += 1
                for test, differs in self.tests(aggregate, model, served, reference).items():
                    rejected[test] += differs
            rows = [
                {"test": test, "model": model, "cell": cell, "n": n, "rejected": hits, "of": count}
                for test, hits in rejected.items()
            ]
            with self.out.open("a") as stream:
                stream.writelines(json.dumps(row) + "\n" for row in rows)

    def tests(
        self,
        aggregate: tuple[ScoredOutput, ...],
        model: str,
        served: Mapping[int, Mapping[str, float]],
        reference: Mapping[str, Mapping[str, Mapping[str, Mapping[str, np.ndarray]]]],
    ) -> dict[str, bool]:
        """Test to whether it rejects."""
        found: dict[str, bool] = {}
        if aggregate and model in aggregate[0].forks:
            gain = log_e_of(likelihoods(aggregate, (PLAIN,), [model]), model)
            found["likelihood-ratio"] = gain >= bar(ALPHA)
            # All other known forks at worst explain nothing: the mean over them loses log(number) at most.
            found["likelihood-ratio-of-30"] = gain - math.log(len(VARIANTS)) >= bar(ALPHA)
        if len(aggregate) == 1:  # one of 33 answers: no permutation can reject
            return found | dict.fromkeys(_PERMUTED, False)
        prompts = [one.output.prompt_id for one in aggregate]
        plain = {
            name: swap.stacked([(p, f(o)) for p, o in zip(prompts, aggregate, strict=True)], self.plain[name])
            for name, f in _PLAIN.items()
        }
        kernels = np.array([self._kernel(one) for one in aggregate])
        statistics = {
            "mmd-hamming": swap.hamming(kernels),
            "rank-uniformity": swap.uniformity(plain["rank"]),
            "surprise": swap.mean_shift(plain["surprise"]),
        }
        rows = np.array(
            [
                np.vstack([score_features(o.authentic), self.features[p]])
                for p, o in zip(prompts, aggregate, strict=True)
            ]
        )
        for fold, cells in reference.items():
            for head in HEADS:
                statistics[f"{head}-head-{fold}"] = self._head(aggregate, served, cells["seed"], fold, head)
        found |= {name: swap.p_value(values) <= ALPHA for name, values in statistics.items()}
        found["score-permutation"] = swap.score_p(rows) <= ALPHA
        if len(aggregate) >= NUISANCE_FROM:
            found["score-nuisance"] = nuisance_p(self.pack, aggregate) <= ALPHA
            for fold, cells in reference.items():
                for name, one_head in (("seed", False), ("score", True)):
                    found[f"{name}-nuisance-{fold}"] = all(
                        swap.p_value(
                            self._head(
                                aggregate, served, heads, fold, "score" if one_head else setting_of(cell)
                            )
                        )
                        <= ALPHA
                        for cell, heads in cells.items()
                    )
        return found

    @staticmethod
    def _head(
        aggregate: tuple[ScoredOutput, ...],
        served: Mapping[int, Mapping[str, float]],
        reference: Mapping[str, Mapping[str, np.ndarray]],
        fold: str,
        head: str,
    ) -> np.ndarray:
        """The statistic of a head against what one cell has to compare with."""
        pairs = [(one.output.prompt_id, served[id(one)][f"{fold}-{head}"]) for one in aggregate]
        return swap.total(swap.stacked(pairs, reference[head]))

    def _kernel(self, one: ScoredOutput) -> np.ndarray:
        """Kernel of the served answer and the reference answers to its prompt, (answers + 1, answers + 1)."""
        texts = self.texts[one.output.prompt_id][: self.least]
        return _share([one.output.text or "", *texts])

    def product(self, model: str, blocks: list[Block]) -> None:
        """The product's MMD-Hamming and RUT on some aggregates, against the fast ones: they must agree."""
        agree: dict[str, list[bool]] = defaultdict(list)
        reference = {p: tuple(v) for p, v in by_prompt(chain(*self.scored.values()), log_rank).items()}
        for number, aggregate in enumerate(aggregates(blocks, 20)):
            if number == CHECKED:
                break
            fast = self.tests(aggregate, model, {}, {})
            slow = {
                "mmd-hamming": mmd_hamming(
                    self.texts, {one.output.prompt_id: [one.output.text or ""] for one in aggregate}
                ),
                "rank-uniformity": rank_uniformity(reference, by_prompt(aggregate, log_rank)),
                "score-permutation": score_test(
                    features_by_prompt(chain(*self.scored.values())), features_by_prompt(aggregate)
                ),
            }
            for name, result in slow.items():
                agree[name].append((result.decision is Decision.DIFFERENT) == fast[name])
        print(model, {name: f"{sum(v)} of {len(v)} agree" for name, v in agree.items()}, flush=True)

    def greedy(self) -> None:
        """Greedy transcripts and first-token log-probabilities, on disjoint groups of prompts.

        The pack has three numeric configurations of the release, never the one that is served; `-int8`: and
        the release rounded to 8 bits. Prompts are dealt `ROUNDS` times: answers are shared between rounds.
        """
        packs = {how: self.numerics(how) for how in NUMERICS}
        models = {name: (name, "greedy") for name in self.forks}
        models |= {f"authentic{how}": ("authentic", f"greedy{how}") for how in NUMERICS}
        rng = np.random.default_rng(0)
        for name, (model, cell) in models.items():
            answers, tops = (
                transcript(self.corpus, model, cell).answers,
                first_tokens(self.corpus, model, cell),
            )
            own = cell.removeprefix("greedy") if model == "authentic" else None
            kept = [packs[how] for how in NUMERICS if how != own]
            small = [one for one in kept if one[0].engine != "greedy-int8"][:PACK]
            for n in (2, 3, 5, 7, 10, 20, 40):
                rejected: dict[str, int] = defaultdict(int)
                groups = [
                    group
                    for _ in range(ROUNDS)
                    for group in disjoint(rng.permutation(list(answers)).tolist(), n)
                ]
                for group in groups:
                    for pack, end in ((small, ""), ([*small, packs["-int8"]], "-int8")):
                        cells = dict(
                            zip(("seed", "bf16", "fp16", "int8"), (one[1] for one in pack), strict=False)
                        )
                        found = {
                            "greedy": greedy_transcript(
                                {p: answers[p] for p in group}, [one[0] for one in pack]
                            ),
                            "first-logprobs": logprob_test({p: tops[p] for p in group}, cells),
                        }
                        for test, result in found.items():
                            rejected[test + end] += result.decision is Decision.DIFFERENT
                for test, hits in rejected.items():
                    row = {
                        "test": test,
                        "model": name,
                        "cell": "greedy",
                        "n": n,
                        "rejected": hits,
                        "of": len(groups),
                    }
                    with self.out.open("a") as stream:
                        stream.write(json.dumps(row) + "\n")

    def numerics(self, how: str) -> tuple[Transcript, dict[str, dict[str, float]]]:
        """The release's transcript and first tokens in one configuration."""
        cell = f"greedy{how}"
        return transcript(self.corpus, "authentic", cell), first_tokens(self.corpus, "authentic", cell)


def disjoint(items: list[str], n: int) -> Iterator[list[str]]:
    """Groups of n."""
    for start in range(0, len(items) - n + 1, n):
        yield items[start : start + n]


def first_tokens(corpus: Path, model: str, cell: str) -> dict[str, dict[str, float]]:
    """Prompt id to the `LISTED` most likely first tokens, by their ids, with log-probabilities."""
    (block,) = read_blocks(corpus, model, cell)
    with np.load(corpus / "raw" / f"{model}--{cell}--000.first.npz") as arrays:
        rows = list(zip(arrays["ids"][:, :LISTED].tolist(), arrays["logp"][:, :LISTED].tolist(), strict=True))
    prompts = [one.output.prompt_id for one in block.outputs]
    return {
        prompt: {str(token): value for token, value in zip(ids, logp, strict=True)}
        for prompt, (ids, logp) in zip(prompts, rows, strict=True)
    }


def _features(outputs: Sequence[ScoredOutput]) -> np.ndarray:
    return np.array([score_features(one.authentic) for one in outputs])


def _by_prompt(blocks: Sequence[Block]) -> dict[str, np.ndarray]:
    """Prompt to features of its answers; as many of each prompt."""
    found: dict[str, list[ScoredOutput]] = defaultdict(list)
    for block in blocks:
        for one in block.outputs:
            if len(one.authentic.logp):
                found[one.output.prompt_id].append(one)
    least = min(map(len, found.values()))
    return {prompt: _features(outputs[:least]) for prompt, outputs in found.items()}


def nuisance_p(
    pack: Mapping[str, Mapping[str, np.ndarray]], aggregate: Sequence[ScoredOutput], first: str = "seed"
) -> float:
    """`scores.cell_tests` with `nuisance_p`, one answer a prompt: the largest p-value over the cells.

    A lower bound of it once a cell is not rejected; `first` is the cell to begin with, which saves time only.
    """
    prompts = [one.output.prompt_id for one in aggregate]
    served = [score_features(one.authentic) for one in aggregate]
    p = 0.0
    for name, cell in sorted(pack.items(), key=lambda item: item[0] != first):
        rows = np.array([np.vstack([own, cell[prompt]]) for prompt, own in zip(prompts, served, strict=True)])
        free = [
            np.array([other[prompt].mean(axis=0) for prompt in prompts])
            for label, other in pack.items()
            if label != name and (label == "seed" or label.startswith("temperature-"))
        ]
        p = max(p, swap.score_p(rows, free))
        if p > ALPHA:
            break
    return p


def _surprise(one: ScoredOutput) -> float:
    s = one.authentic
    return float((s.logp + s.entropy).sum()) / math.sqrt(max(float(s.variance.sum()), 1e-6))


def _share(texts: list[str]) -> np.ndarray:
    points = _code_points(texts)
    kernel = (points[:, None, :] == points[None, :, :]).mean(axis=2)
    np.fill_diagonal(kernel, 0)
    return kernel


_PLAIN = {"rank": lambda one: log_rank(one.authentic), "surprise": _surprise}


_HEADS = tuple(f"{head}-head-{fold}" for head in HEADS for fold in ("lofo", "lofamo"))
_PERMUTED = ("mmd-hamming", "rank-uniformity", "surprise", "score-permutation", *_HEADS)


def main() -> None:
    """Models and cells that the file has not yet."""
    corpus, out = Path(sys.argv[1]), Path(sys.argv[2])
    evaluation = Evaluation(corpus, out)
    if not sys.argv[3:]:
        evaluation.greedy()
    tested = {("authentic", "seed"): evaluation.release[REFERENCE.stop :]}
    tested |= {(name, "seed"): blocks for name, blocks in evaluation.forks.items()}
    # One block a nuisance cell: heads and the pack have seen it, so only the other tests of this row count.
    tested |= {("authentic", cell): blocks for cell, blocks in evaluation.cells.items() if cell != "seed"}
    for (model, cell), blocks in tested.items():
        if blocks and model in (sys.argv[3:] or [model]):
            evaluation.run(model, cell, blocks)
            print(model, cell, len(blocks), flush=True)


if __name__ == "__main__":
    main()
