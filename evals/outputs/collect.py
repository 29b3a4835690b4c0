"""Answers of an original and its forks in several settings, drawn in the confined child.

(1) Jobs are done precision by precision, for each of which the original is loaded once. (2) A fork's values
are swapped in, and taken back and verified, as in a series. (3) Answers to harmful prompts are judged here;
only what the judge says is kept. Importing this module imports torch and transformers; only the child does.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from evals.confine import Confinement
from evals.engine import Draw, SharedPrefix, TransformersGenerator, last_logits, padding_id, render_chat
from evals.interface import Judge, Label
from evals.judges.calibrate import judge_for
from evals.load import load_original
from evals.measure import misfit_reason, pick_device
from evals.memory import in_batches, is_full
from evals.outputs.interface import CollectRequest, Job, Precision
from evals.outputs.wire import ANSWERS, CollectReport, Drawn, JobAnswers, dump_answers
from evals.parts import ForkMisfitError
from evals.seeds import row_seeds
from evals.swap import Swap
from evals.variants import Part, Variant
from evals.wire import write_private

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Progress = Callable[[str], None]

BATCH = 128
"""Chats a batch on a CPU, where the engine's 64 give as much; on a GPU the engine's."""
FIRST_BATCH = 32


def collect_answers(request: CollectRequest, confinement: Confinement, progress: Progress) -> CollectReport:
    """Do all jobs; leaves the answers in the scratch folder."""
    device = pick_device(request.device)
    judge = judge_for(request.calibration)
    found: dict[int, JobAnswers] = {}
    for precision in Precision:
        jobs = [(n, job) for n, job in enumerate(request.jobs) if job.cell.precision is precision]
        if not jobs:
            continue
        progress("load the original")
        model, tokenizer = load_original(request.original, device, str(precision))
        run = _Run(request, model, tokenizer, Swap(model), judge)
        for done, (number, job) in enumerate(jobs, 1):
            where = f"{job.model} {job.cell.name} {done}/{len(jobs)}"
            found[number] = run.job(job, lambda text, where=where: progress(f"{where}: {text}"))  # type: ignore[misc]
        del model, run
    write_private(request.scratch / ANSWERS, dump_answers([found[n] for n in sorted(found)]))
    return CollectReport(isolation=confinement.isolation, device=device, gaps=confinement.gaps)


def first_logprobs(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, chats: Sequence[Sequence[int]], count: int
) -> list[list[tuple[str, float]]]:
    """The `count` most likely first tokens of each chat's answer, with log-probabilities in float32."""
    prefix = SharedPrefix(model, chats)
    pad = padding_id(tokenizer, [])

    def work(chosen: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        padded = prefix.join([chats[number] for number in chosen], pad)
        logits = last_logits(model, prefix, padded, 1)[:, -1]
        top = torch.log_softmax(logits.float(), dim=-1).topk(min(count, logits.shape[-1]), dim=-1)
        return top.values.cpu(), top.indices.cpu()

    found: list[list[tuple[str, float]]] = []
    for _, (values, tokens) in in_batches(range(len(chats)), FIRST_BATCH, work):
        for row, ids in zip(values.tolist(), tokens.tolist(), strict=True):
            found.append([(tokenizer.decode([one]), logp) for one, logp in zip(ids, row, strict=True)])
    return found


@dataclass(frozen=True, slots=True)
class _Run:
    """A loaded original, and what it is asked."""

    request: CollectRequest
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    swap: Swap
    judge: Judge

    def job(self, job: Job, progress: Progress) -> JobAnswers:
        """One job; nothing, with the reason, where the fork does not fit."""
        started = time.monotonic()
        weights = next(model.weights for model in self.request.models if model.id == job.model)
        variant = Variant(job.model, (Part(weights),) if weights else (), job.cell.storage)
        try:
            with self.swap.holding(variant):
                return self._ask(job, progress, started)
        except ForkMisfitError as misfit:
            reason = misfit_reason(misfit)
        except RuntimeError as error:
            if not is_full(error):
                raise
            reason = "the memory is too small for it beside the original's values"
        return JobAnswers((), (), (), (), reason, time.monotonic() - started)

    def _ask(self, job: Job, progress: Progress, started: float) -> JobAnswers:
        request, cell = self.request, job.cell
        texts = list(request.prompts.values())
        drawn = Draw(request.max_new_tokens, cell.temperature, cell.top_p)
        samples = self._draw(texts, job, job.samples, drawn, progress)
        greedy = self._draw(texts, job, int(job.greedy), Draw(request.max_new_tokens), progress)
        chats = [render_chat(self.tokenizer, text, cell.system) for text in texts]
        first = first_logprobs(self.model, self.tokenizer, chats, job.first) if job.first else []
        refused = self._refusals(request.harmful, job, progress)
        return JobAnswers(
            tuple(samples),
            tuple(greedy),
            tuple(tuple(row) for row in first),
            refused,
            "",
            time.monotonic() - started,
        )

    def _refusals(
        self, harmful: Mapping[str, str], job: Job, progress: Progress
    ) -> tuple[tuple[bool | None, ...], ...]:
        draw = Draw(self.request.refusal_tokens, job.cell.temperature, job.cell.top_p)
        texts = list(harmful.values())
        answers = iter(self._draw(texts, job, job.refusals, draw, progress))
        if not job.refusals:
            return ()
        return tuple(
            tuple(refused(self.judge, text, next(answers).text) for _ in range(job.refusals))
            for text in texts
        )

    def _draw(
        self, texts: Sequence[str], job: Job, count: int, draw: Draw, progress: Progress
    ) -> list[Drawn]:
        """`count` answers to each prompt, those of one prompt together; seeds differ between jobs."""
        prompts = [text for text in texts for _ in range(count)]
        if not prompts:
            return []
        rendered = {text: render_chat(self.tokenizer, text, job.cell.system) for text in set(texts)}
        on_cpu = self.model.device.type == "cpu"
        generator = TransformersGenerator(
            self.model,
            self.tokenizer,
            batch=BATCH if on_cpu else None,
            progress=lambda done, total: progress(f"draw {done}/{total}"),
        )
        seeds = row_seeds(prompts, _job_seed(self.request.seed, job))
        tokens = generator.draw([rendered[prompt] for prompt in prompts], seeds, draw)
        ends = generator.ends
        return [
            Drawn(
                self.tokenizer.decode(row, skip_special_tokens=True),
                "stop" if row and row[-1] in ends else "length",
            )
            for row in tokens
        ]


def refused(judge: Judge, prompt: str, answer: str) -> bool | None:
    """What a judge says of an answer to a harmful prompt; None: ungradeable."""
    label = judge.label(prompt, answer)
    return None if label is Label.UNGRADEABLE else label is Label.REFUSED


def _job_seed(seed: int, job: Job) -> int:
    """Independent draws in every model and cell."""
    material = f"{seed}/{job.model}/{job.cell.name}".encode()
    return int.from_bytes(hashlib.sha256(material).digest()[:8]) >> 1
