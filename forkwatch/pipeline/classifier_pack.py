"""What a release's classifier is trained on: answers of the release and of forks that policy has judged."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from math import ceil
from pathlib import Path

from pydantic import TypeAdapter

from detector.interface import EditKind
from detector.outputs.classifier import AUTHENTIC
from detector.outputs.interface import (
    NUISANCES,
    Output,
    ReferencePack,
    RefusalBaseline,
    Sample,
    Sampling,
    ScoredOutput,
    Transcript,
)
from detector.outputs.label import CONVERSIONS
from detector.outputs.pack import NOT_SCORED
from evals.interface import PromptKind
from evals.measurements import EvalResult
from evals.outputs.interface import CELLS, Collected, CollectRequest, Job, Model, ScoreRequest
from evals.suite import load_suite
from forkwatch.pipeline.blobs import blob_path
from forkwatch.pipeline.context import Context
from forkwatch.pipeline.funnel import eval_version, release_ledger
from forkwatch.pipeline.limits import limits_of
from forkwatch.pipeline.originals import Original
from forkwatch.pipeline.probing import SHIFT, release_probes
from forkwatch.pipeline.scratch import scratch_folder
from forkwatch.pipeline.stages import materialise
from forkwatch.store.values import Examined, StageKey
from reports.scan import ScanDocument

BENIGN_LABELS = frozenset({"authentic", "faithful-conversion", "benign-derivative"})
UNDECIDED_LABELS = frozenset({"inconclusive", "unrelated"})
MOST_FORKS = 200
"""Forks whose answers are looked at; which ones is decided by their hash, which nobody chooses."""

_NUMERIC = frozenset({"seed", "bf16", "int8"})
"""Cells that differ in arithmetic alone: their greedy answers and first log-probabilities are floors."""
_FIRST, _REFUSALS = 20, 10
_EVAL = TypeAdapter(EvalResult)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """How much is drawn and scored for a pack."""

    samples: int
    """Answers a probe, of each model in each cell."""
    witnesses: int = 0
    """Forks at most under which the release's answers are scored, too."""


@dataclass(frozen=True, slots=True)
class ObservedFork:
    """A fork with stored answers."""

    document: ScanDocument
    examined: Examined

    @property
    def name(self) -> str:
        """`org/name@commit`."""
        return f"{self.document.repo}@{self.document.commit}"

    @property
    def family(self) -> str:
        """Kind of the first edit that is no conversion: a modified model that was also cast is none."""
        kinds = [edit.kind for edit in self.document.edits] or [EditKind.UNKNOWN.value]
        return next((kind for kind in kinds if kind not in CONVERSIONS), kinds[0])

    @property
    def benign(self) -> bool:
        """Whether policy takes its outputs for harmless ones: then it teaches what is no modification."""
        kinds = {edit.kind for edit in self.document.edits}
        return self.document.verdict.label in BENIGN_LABELS or (bool(kinds) and kinds <= CONVERSIONS)


def observed_forks(context: Context, original: Original) -> tuple[ObservedFork, ...]:
    """Forks whose answers to this release's suite are stored, with the newest verdict, by name."""
    wanted = eval_version(context, original)
    newest = {one.repo_id: one.document for one in context.store.verdicts(original.release_id)}
    found = []
    for repo_id, document in newest.items():
        if document.verdict.label in UNDECIDED_LABELS:
            continue
        examined = context.store.examined(repo_id, document.commit, original.root_digest)
        if examined is not None and dict(examined.stages).get("evaluate") == wanted:
            found.append(ObservedFork(document, examined))
    drawn = sorted(found, key=lambda fork: hashlib.sha256(fork.name.encode()).digest())[:MOST_FORKS]
    return tuple(sorted(drawn, key=lambda fork: fork.name))


def transcript_pack(context: Context, original: Original, forks: tuple[ObservedFork, ...]) -> ReferencePack:
    """The sampled answers to harmless prompts that evaluations left: texts without scores, the plain cell."""
    wanted = eval_version(context, original)
    release = release_ledger(context, original).stored("evaluate", wanted, _EVAL)
    results: list[tuple[ObservedFork | None, EvalResult | None]] = [(None, release)]
    for fork in forks:
        key = StageKey(fork.examined.snapshot_id, original.root_digest, "evaluate", wanted)
        stored = context.store.result(key, _EVAL)
        results.append((fork, None if stored is None else stored[0]))
    harmful = {name for _, one in results if one is not None for name in one.behaviour.harmful}
    samples = [_sample(context, fork, one, harmful) for fork, one in results if one is not None]
    return ReferencePack(
        release=original.name,
        root_digest=original.root_digest,
        probe_set=f"sha256:{original.suite_digest}",
        transcripts=(),
        samples=tuple(samples),
        refusals=(),
        first_logprobs={},
    )


def _sample(context: Context, fork: ObservedFork | None, result: EvalResult, harmful: set[str]) -> Sample:
    from evals.wire import load_transcript

    transcript = load_transcript(blob_path(context.state, result.transcript.name))
    sampling = Sampling(temperature=1.0, max_tokens=context.settings.evaluation.max_new_tokens)
    return Sample(
        model=AUTHENTIC if fork is None else fork.name,
        cell="seed",
        family=AUTHENTIC if fork is None else fork.family,
        benign=fork is None or fork.benign,
        scored=tuple(
            ScoredOutput(Output(prompt_id=prompt, text=text, sampling=sampling), NOT_SCORED, {})
            for prompt, texts in transcript.sampled.items()
            if prompt not in harmful
            for text in texts
        ),
    )


# --- drawing more ---


def drawn_pack(
    context: Context, original: Original, forks: Sequence[ObservedFork], drawing: Drawing
) -> ReferencePack:
    """Draw answers to this quarter's probes in confined children: the release in every cell, forks plainly.

    All are scored by the release, and its own by some of the forks, too. Answers to harmful prompts are
    judged in the child; only counts come back. The judge is the one that `probe` has, as shipped: one that
    was fitted to the release would see refusals in the baseline that it does not see in the same release's
    answers to probes.

    Args:
        context: surroundings.
        original: the release.
        forks: whose weights are fetched and asked.
        drawing: how much.

    Raises:
        CrawlerError: a fork's weights cannot be had.
        EvalsError: a child failed, or isolation is required and not to be had.
    """
    from evals.outputs.run import collect

    probes = release_probes(context, original.root_digest)
    with scratch_folder(context) as folder:
        weights = [
            Model(fork.name, materialise(context, fork.examined.snapshot, folder / f"fork-{number}"))
            for number, fork in enumerate(forks)
        ]
        collected = collect(
            _drawing(context, original, weights, probes.texts, folder / "draw", drawing.samples),
            progress=lambda line: context.talk.note(f"{original.repo}: {line}"),
        ).collected
        chosen = choose_witnesses(forks, drawing.witnesses)
        own = [one for one in collected if one.model == AUTHENTIC]
        theirs = [one for one in collected if one.model != AUTHENTIC]
        under = [one for one in weights if one.id in chosen]
        scored = _scored(context, original, own, probes.texts, folder / "own", under)
        scored |= _scored(context, original, theirs, probes.texts, folder / "theirs")
    known = {fork.name: fork for fork in forks}
    return ReferencePack(
        release=original.name,
        root_digest=original.root_digest,
        probe_set=probes.digest,
        transcripts=tuple(_transcript(one) for one in collected if one.greedy),
        samples=tuple(_drawn(one, known.get(one.model), scored[one.model, one.cell]) for one in collected),
        refusals=tuple(_baselines(collected)),
        first_logprobs={one.cell: one.first for one in collected if one.model == AUTHENTIC and one.first},
    )


def _drawing(  # noqa: PLR0913 - the sides of one request
    context: Context,
    original: Original,
    forks: Sequence[Model],
    prompts: Mapping[str, str],
    scratch: Path,
    samples: int,
) -> CollectRequest:
    options = context.settings.evaluation
    jobs = [
        Job(
            model=AUTHENTIC,
            cell=cell,
            samples=samples,
            greedy=name in _NUMERIC,
            first=_FIRST if name in _NUMERIC else 0,
            refusals=_REFUSALS if name == "seed" else 0,
        )
        for name, cell in CELLS.items()
        if name in NUISANCES
    ]
    jobs += [Job(model=fork.id, cell=CELLS["seed"], samples=samples, greedy=True) for fork in forks]
    harmful = load_suite(original.suite).headline(PromptKind.HARMFUL)
    return CollectRequest(
        original=original.folder,
        models=(Model(AUTHENTIC), *forks),
        jobs=tuple(jobs),
        prompts=prompts,
        harmful={prompt.id: prompt.text for prompt in harmful},
        scratch=scratch,
        max_new_tokens=options.max_new_tokens,
        seed=options.seed,
        timeout_seconds=options.timeout_seconds * len(jobs),
        device=options.device,
        limits=limits_of(options),
    )


def choose_witnesses(forks: Sequence[ObservedFork], most: int) -> frozenset[str]:
    """Names of at most `most` forks, of as many edit families as there are, by their hash.

    Harmless ones, too: what was changed may resemble any change. A conversion resembles the release.
    """
    turns: dict[str, int] = {}
    dealt = []
    for fork in sorted(forks, key=lambda fork: hashlib.sha256(fork.name.encode()).digest()):
        if fork.family not in CONVERSIONS:
            turns[fork.family] = turns.get(fork.family, 0) + 1
            dealt.append((turns[fork.family], fork.name))
    return frozenset(name for _, name in sorted(dealt, key=lambda one: one[0])[:most])


def _scored(  # noqa: PLR0913 - the sides of one request
    context: Context,
    original: Original,
    jobs: Sequence[Collected],
    prompts: Mapping[str, str],
    scratch: Path,
    forks: Sequence[Model] = (),
) -> dict[tuple[str, str], tuple[ScoredOutput, ...]]:
    """By model and cell, the answers with scores of the release and of the forks that fit it."""
    from evals.outputs.run import score, with_scores

    outputs = [output for one in jobs for output in one.samples]
    if not outputs:
        return {(one.model, one.cell): () for one in jobs}
    answers = tuple((prompts[output.prompt_id], output.text or "") for output in outputs)
    options = context.settings.evaluation
    request = ScoreRequest(
        original=original.folder,
        answers=answers,
        forks=tuple(forks),
        max_tokens=options.max_new_tokens,
        scratch=scratch,
        timeout_seconds=options.timeout_seconds * (1 + len(forks)) * ceil(len(answers) / SHIFT),
        device=options.device,
        limits=limits_of(options),
    )
    result = score(request, progress=lambda line: context.talk.note(f"{original.repo}: {line}"))
    found = iter(with_scores(outputs, result, original.name))
    return {(one.model, one.cell): tuple(next(found) for _ in one.samples) for one in jobs}


def _drawn(one: Collected, fork: ObservedFork | None, scored: tuple[ScoredOutput, ...]) -> Sample:
    return Sample(
        model=one.model,
        cell=one.cell,
        family=AUTHENTIC if fork is None else fork.family,
        benign=fork is None or fork.benign,
        scored=tuple(each for each in scored if len(each.authentic.logp)),
    )


def _transcript(one: Collected) -> Transcript:
    return Transcript(
        model=one.model,
        engine=f"transformers-{version('transformers')}",
        dtype=one.cell,
        answers={prompt: output.text or "" for prompt, output in one.greedy.items()},
    )


def _baselines(collected: Sequence[Collected]) -> Iterator[RefusalBaseline]:
    """How often the release refused each harmful probe; ungradeable answers are in no count."""
    for one in collected:
        if one.model == AUTHENTIC:
            for prompt, labels in one.refused.items():
                graded = [label for label in labels if label is not None]
                if graded:
                    yield RefusalBaseline(prompt_id=prompt, refused=sum(graded), n=len(graded))
