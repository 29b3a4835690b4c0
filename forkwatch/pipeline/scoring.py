"""`forkwatch score`: outputs of a file, scored under a release and its forks in the confined child."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from detector.outputs.interface import BadOutputsError, Output, ScoredOutput
from evals.interface import Unmeasured
from evals.outputs.interface import Model, ScoreRequest
from evals.outputs.probes import load_probes, probe_set
from evals.outputs.run import score, with_scores
from evals.suite import CORE, load_suite
from forkwatch.errors import SettingsError
from forkwatch.pipeline.context import Talk
from forkwatch.pipeline.limits import limits_of
from forkwatch.sections.judging import EvaluationSettings
from forkwatch.text import plain

SHIFT = 1000
"""Outputs for which a model is given the time of one evaluation."""


@dataclass(frozen=True, slots=True)
class Scorer:
    """A release on this machine, under which outputs are scored."""

    name: str
    """`org/name@commit`, or the folder's name."""
    folder: Path
    suite: Path = CORE
    probes: Mapping[str, str] | None = None
    """Texts of its private probes."""


@dataclass(frozen=True, slots=True)
class Scores:
    """All outputs of a file, and which forks did not fit."""

    entries: tuple[Output | ScoredOutput, ...]
    """In the file's order."""
    misfits: Mapping[str, str]
    """Fork to why it has no scores."""

    @property
    def scored(self) -> int:
        """Outputs with scores."""
        return sum(isinstance(entry, ScoredOutput) for entry in self.entries)


def score_outputs(  # noqa: PLR0913 - each from another place
    outputs: Sequence[Output],
    scorer: Scorer,
    forks: Iterable[Model],
    options: EvaluationSettings,
    scratch: Path,
    talk: Talk,
) -> Scores:
    """Score what has a text; answers to harmful probes have none and stay as they are.

    Raises:
        BadOutputsError: no output has a text, or a prompt is not known.
        SettingsError: two forks have the same name.
        EvaluationFailedError: the child died, ran too long or broke its contract.
        IsolationError: full isolation is required, and this machine does not give it.
    """
    models = tuple(forks)
    if len({model.id for model in models}) < len(models):
        raise SettingsError("two forks have the same name", tip="Give one as NAME=PATH.")
    answers = with_prompts(outputs, scorer)
    if not answers:
        raise BadOutputsError("no output has a text that could be scored")
    request = ScoreRequest(
        original=scorer.folder,
        answers=tuple((prompt, str(outputs[number].text)) for number, prompt in answers),
        forks=models,
        scratch=scratch,
        timeout_seconds=options.timeout_seconds * (1 + len(models)) * ceil(len(answers) / SHIFT),
        device=options.device,
        limits=limits_of(options),
    )
    result = score(request, progress=talk.note)
    chosen = [outputs[number] for number, _ in answers]
    found = dict(
        zip((number for number, _ in answers), with_scores(chosen, result, scorer.name), strict=True)
    )
    return Scores(
        entries=tuple(found.get(number, output) for number, output in enumerate(outputs)),
        misfits={name: rows.reason for name, rows in result.forks.items() if isinstance(rows, Unmeasured)},
    )


def with_prompts(outputs: Sequence[Output], scorer: Scorer) -> list[tuple[int, str]]:
    """The number of each output that has a text, and its prompt: its own, a probe's, or a suite's.

    Raises:
        BadOutputsError: a prompt is not known.
    """
    known = {prompt.id: prompt.text for prompt in load_suite(scorer.suite).prompts}
    known |= probe_set(load_probes()).texts
    known |= scorer.probes or {}
    found = []
    for number, output in enumerate(outputs):
        if output.text is None:
            continue
        prompt = known.get(output.prompt_id) if output.prompt is None else output.prompt
        if prompt is None:
            raise BadOutputsError(
                f"output {number + 1}: the text of prompt {plain(output.prompt_id, 80)} is not known: "
                "give it as 'prompt', or name its release with --release"
            )
        found.append((number, prompt))
    return found
