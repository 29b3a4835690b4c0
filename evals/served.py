"""A model that another engine runs, here or behind an endpoint: labels and rates, without its values."""

from __future__ import annotations

import time
from pathlib import Path

from evals.behaviour import Extent, behaviour_of
from evals.interface import EvalRequest, Generator, Isolation, PromptKind, Transcript, Unmeasured
from evals.judges.calibrate import judge_for
from evals.measurements import EvalResult
from evals.suite import load_suite
from evals.wire import TRANSCRIPT, write_transcript

ELSEWHERE = "the model does not run in a confined child of ours"
_NO_WEIGHTS = Unmeasured("another engine runs the model: its probabilities are not at hand")


def evaluate_served(generator: Generator, name: str, request: EvalRequest) -> EvalResult:
    """Ask a served model what a local one is asked, and label its answers; they lie in the scratch folder.

    Args:
        generator: The endpoint, or the engine.
        name: What to call it, in place of a device.
        request: Suite, tier, length, seed, repeats, calibration and scratch; the rest is of no use here.

    Raises:
        EndpointError: it failed, or filtered an answer.
        SuiteError: the suite is invalid.
    """
    started = time.monotonic()
    suite = load_suite(request.suite).at(request.tier)
    greedy = generator.answer(
        [prompt.text for prompt in suite.prompts],
        max_new_tokens=request.max_new_tokens,
        temperature=0.0,
        seed=request.seed,
    )
    drawn = suite.headline(PromptKind.HARMFUL) if request.repeats else ()
    sampled = generator.answer(
        [prompt.text for prompt in drawn for _ in range(request.repeats)],
        max_new_tokens=request.max_new_tokens,
        temperature=1.0,
        seed=request.seed,
    )
    step = request.repeats
    rows = (sampled[start * step : (start + 1) * step] for start in range(len(drawn)))
    transcript = Transcript(
        greedy={prompt.id: text for prompt, text in zip(suite.prompts, greedy, strict=True)},
        sampled={prompt.id: tuple(row) for prompt, row in zip(drawn, rows, strict=True)},
    )
    place = _keep(request.scratch, transcript)
    extent = Extent(tier=request.tier, sampled=transcript.sampled)
    return EvalResult(
        behaviour=behaviour_of(suite, judge_for(request.calibration), transcript.greedy, extent),
        kl_per_token=_NO_WEIGHTS,
        perplexity_ratio=_NO_WEIGHTS,
        transcript=place,
        isolation=Isolation.REDUCED,
        device=name,
        seconds=time.monotonic() - started,
        gaps=(ELSEWHERE,),
        probe=_NO_WEIGHTS,
    )


def _keep(folder: Path, transcript: Transcript) -> Path:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_transcript(folder / TRANSCRIPT, transcript)
    return folder / TRANSCRIPT
