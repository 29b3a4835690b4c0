"""One snapshot through the funnel: each stage costs more, and runs only when the last one asks for it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import IntEnum

from pydantic import TypeAdapter

from crawler.interface import Access, AccessDeniedError, Claim, Snapshot
from detector.errors import NoWeightsError
from detector.intent import NoIntent
from detector.interface import (
    Certainty,
    Diff,
    Edit,
    EditKind,
    Evidence,
    FileFinding,
    FileMatch,
    Lineage,
    LineageStatus,
    OutputStatus,
    OutputTest,
    Sketch,
    TextChange,
)
from detector.match import match_files
from detector.provenance.interface import SignatureStatus
from evals.interface import Measured, Unmeasured
from evals.measurements import Comparison, EvalResult, SafetyStatus
from forkwatch.pipeline import behaviour, shared, stages
from forkwatch.pipeline.context import Context
from forkwatch.pipeline.intent import NOT_LOOKED, Aim, direction_of, take_aim, why_no_aim
from forkwatch.pipeline.ledger import Ledger
from forkwatch.pipeline.limits import loss_limits
from forkwatch.pipeline.originals import Original, release_snapshot
from forkwatch.pipeline.texts import Texts, compare_texts
from forkwatch.pipeline.weight_files import weight_files
from forkwatch.policy.facts import Facts, NotReached, Unreadable, WeightFacts
from forkwatch.settings import Settings

VERSION = "3"
"""Of the stages below; raised when a stage would give another result for the same input."""
FILES_VERSION = "5"
"""Of the stages `match`, `inspect` and `texts`, which are cheap to run again."""
SKETCH_VERSION = "4"
"""Of the sketch, likewise."""
EVAL_VERSION = "4"
"""Of the evaluation: its prompts' selection, engine, and the judge's rules; what it learned has a digest."""


_MATCH: TypeAdapter[FileMatch] = TypeAdapter(FileMatch)
_FILES: TypeAdapter[tuple[FileFinding, ...]] = TypeAdapter(tuple[FileFinding, ...])
_SHARED: TypeAdapter[tuple[Evidence, ...]] = TypeAdapter(tuple[Evidence, ...])
_TEXTS: TypeAdapter[Texts] = TypeAdapter(Texts)
_SKETCH = TypeAdapter[Sketch | Unreadable](Sketch | Unreadable)
_DIFF = TypeAdapter[Diff | Unreadable](Diff | Unreadable)
_EVAL: TypeAdapter[EvalResult] = TypeAdapter(EvalResult)
_OUTPUTS: TypeAdapter[OutputTest] = TypeAdapter(OutputTest)


class Depth(IntEnum):
    """How far a scan goes."""

    MATCH = 1
    SKETCH = 2
    DIFF = 3
    EVAL = 4


@dataclass(frozen=True, slots=True)
class Examination:
    """What the funnel found, and the ledger that says what it cost."""

    facts: Facts
    ledger: Ledger
    baseline: EvalResult | None
    aim: Aim = NOT_LOOKED
    """For the reader. Not among the facts, so that no finding and no verdict can come from it."""


def baseline_of(context: Context, original: Original) -> EvalResult:
    """The original's own behaviour, measured once per release and set of parameters."""
    return release_ledger(context, original).once(
        "evaluate",
        eval_version(context, original),
        _EVAL,
        lambda: behaviour.evaluate_original(context, original),
    )


def release_ledger(context: Context, original: Original) -> Ledger:
    """What is kept of a release itself."""
    snapshot = release_snapshot(context, original)
    return Ledger(context, original.repo, context.store.pin(snapshot), original.root_digest)


def examine(
    context: Context, original: Original, snapshot: Snapshot, claims: tuple[Claim, ...], depth: Depth
) -> Examination:
    """Run the stages that this snapshot needs, up to `depth`; stored results are reused."""
    ledger = Ledger(context, snapshot.repo, context.store.pin(snapshot), original.root_digest)
    return _Funnel(context, original, snapshot, ledger, depth).run(claims)


@dataclass(frozen=True, slots=True)
class _Funnel:
    context: Context
    original: Original
    snapshot: Snapshot
    ledger: Ledger
    depth: Depth

    def run(self, claims: tuple[Claim, ...]) -> Examination:
        match = self.ledger.once(
            "match", FILES_VERSION, _MATCH, lambda: match_files(self.snapshot, self.original.manifest)
        )
        stored = self._shared(match)
        files, texts = self._small_files(match)
        weights = self._weights(match)
        aim = self._aim(weights)
        baseline, fork, why_not = self._behaviour(weights)
        facts = Facts(
            release=self.original.repo,
            signature=self.original.signature,
            release_license=self.original.license,
            snapshot=self.snapshot,
            claims=claims,
            match=match,
            files=files,
            texts=texts,
            weights=weights,
            evaluation=fork,
            comparison=self._compare(baseline, fork, why_not),
            outputs=self._outputs(baseline, fork, why_not),
            shared=stored,
            unexamined=self._unexamined(match),
        )
        return Examination(facts, self.ledger, baseline, aim)

    def _unexamined(self, match: FileMatch) -> tuple[str, ...]:
        """Weight files that hold something else than the release's, and are not the checkpoint examined."""
        try:
            examined = {file.path for file in weight_files(self.snapshot)}
        except NoWeightsError:
            examined = set()
        return tuple(path for path in match.other_weights if path not in examined)

    def _shared(self, match: FileMatch) -> tuple[Evidence, ...]:
        """What the Hub's storage proves, when the settings ask for it."""
        if not self.context.settings.hub.xet or self.snapshot.access is not Access.OPEN:
            return ()
        return self.ledger.once(
            "xet",
            shared.VERSION,
            _SHARED,
            lambda: shared.shared_bytes(self.context, self.original, self.snapshot, match),
        )

    def _small_files(self, match: FileMatch) -> tuple[tuple[FileFinding, ...], tuple[TextChange, ...]]:
        """Dangerous files, and changed behaviour files; unread where the Hub does not let us."""
        if self.snapshot.access is not Access.OPEN:
            return (), ()
        files = self.ledger.once(
            "inspect",
            FILES_VERSION,
            _FILES,
            lambda: stages.inspect(self.context, self.original, self.snapshot, match),
        )
        texts = self.ledger.once(
            "texts",
            FILES_VERSION,
            _TEXTS,
            lambda: compare_texts(self.context, self.original, self.snapshot, match),
        )
        return files + texts.findings, texts.changes

    def _weights(self, match: FileMatch) -> WeightFacts:
        """Stages 4 and 5, or why they were not run."""
        if match.weights_identical:
            return _identical(match, self.original.signature)
        if self.snapshot.access is not Access.OPEN:
            return Unreadable("access-denied", f"the repository is {self.snapshot.access}")
        if self.depth < Depth.SKETCH:
            return NotReached("the scan was limited to matching file hashes")
        try:
            weight_files(self.snapshot)
            return self._sketch_then_diff()
        except NoWeightsError as error:
            return Unreadable("no-weights", str(error))
        except AccessDeniedError as error:
            return Unreadable("access-denied", str(error))

    def _sketch_then_diff(self) -> WeightFacts:
        """A sketch that says unrelated saves the download."""
        sketch = self.ledger.once(
            "sketch",
            SKETCH_VERSION,
            _SKETCH,
            lambda: stages.sketch(self.context, self.original, self.snapshot),
        )
        if isinstance(sketch, Unreadable):
            return sketch
        if sketch.lineage.status is LineageStatus.UNRELATED or self.depth < Depth.DIFF:
            return Diff(tensors=(), edits=sketch.edits, lineage=sketch.lineage, bytes_read=sketch.bytes_read)
        return self.ledger.once(
            "diff",
            VERSION,
            _DIFF,
            lambda: stages.diff(self.context, self.original, self.snapshot),
        )

    def _aim(self, weights: WeightFacts) -> Aim:
        """How the change lies to the original's refusal direction, once its refusals are measured."""
        why_not = why_no_aim(weights)
        if why_not or not isinstance(weights, Diff):
            return Aim(NoIntent(why_not))
        release, version = (
            release_ledger(self.context, self.original),
            eval_version(self.context, self.original),
        )
        if self.depth >= Depth.EVAL:
            baseline: EvalResult | None = baseline_of(self.context, self.original)
        else:
            baseline = release.stored("evaluate", version, _EVAL)
        if baseline is None:
            return Aim(NoIntent("the original's own refusals have not been measured yet"))
        direction = direction_of(self.context, self.original, release, baseline, version)
        return take_aim(self.context, self.original, direction, self.snapshot, weights, self.ledger)

    def _behaviour(self, weights: WeightFacts) -> tuple[EvalResult | None, EvalResult | None, str]:
        """Stage 6: measurements of original and fork, or why there are none."""
        why_not = _why_not_evaluated(weights, self.depth)
        if why_not:
            return None, None, why_not
        baseline = baseline_of(self.context, self.original)
        if _same_values(weights):
            return baseline, None, ""
        fork = self.ledger.once(
            "evaluate",
            eval_version(self.context, self.original),
            _EVAL,
            lambda: behaviour.evaluate_fork(self.context, self.original, self.snapshot, baseline),
        )
        return baseline, fork, ""

    def _compare(self, baseline: EvalResult | None, fork: EvalResult | None, why_not: str) -> Comparison:
        from evals.compare import compare

        if baseline is None:
            return _not_compared(why_not)
        if fork is None:
            return _inherited(baseline)
        return compare(baseline.behaviour, fork, loss_limits(self.context.settings.policy))

    def _outputs(self, baseline: EvalResult | None, fork: EvalResult | None, why_not: str) -> OutputTest:
        """Stage 7."""
        if baseline is None or fork is None:
            reason = why_not or "the weights hold exactly the original's values"
            return OutputTest(OutputStatus.NOT_MEASURED, None, 0, reason)
        version = f"{eval_version(self.context, self.original)}:{self.context.settings.policy.alpha}"
        return self.ledger.once(
            "outputs", version, _OUTPUTS, lambda: behaviour.test_outputs(self.context, baseline, fork)
        )


def _identical(match: FileMatch, signature: SignatureStatus) -> Diff:
    evidence = (Evidence("identical-files", len(match.identical), stages.hash_note(signature)),)
    return Diff(
        tensors=(),
        edits=(Edit(EditKind.IDENTICAL, Certainty.PROVED, evidence=evidence),),
        lineage=Lineage(LineageStatus.PROVED, evidence),
        bytes_read=0,
    )


def _same_values(weights: WeightFacts) -> bool:
    """The model computes exactly what the original computes, so its measurements are the original's."""
    same = {EditKind.IDENTICAL, EditKind.REPACKAGED}
    return isinstance(weights, Diff) and all(
        edit.kind in same and edit.certainty is Certainty.PROVED for edit in weights.edits
    )


def _why_not_evaluated(weights: WeightFacts, depth: Depth) -> str:
    """Why stage 6 does not run; empty when it does."""
    if isinstance(weights, Unreadable | NotReached):
        return weights.reason
    if weights.lineage.status is LineageStatus.UNRELATED:
        return "the weights are unrelated to the release"
    if depth < Depth.EVAL:
        return "the scan was limited to the weights"
    return ""


def methods(settings: Settings) -> str:
    """What a verdict depends on beside bytes and release: versions of stages, what is asked, policy."""
    versions = (VERSION, FILES_VERSION, SKETCH_VERSION, EVAL_VERSION, shared.VERSION)
    options = settings.evaluation
    asked = (options.tier, options.max_new_tokens, options.samples, options.seed, settings.hub.xet)
    return f"{'.'.join(versions)}:{asked}:{settings.policy.model_dump_json()}"


def eval_version(context: Context, original: Original) -> str:
    """Of what is measured with a release's prompts: all that its result depends on beside the weights."""
    from evals.judges.learned import shipped

    options = context.settings.evaluation
    asked = f"{options.tier}:{options.max_new_tokens}:{options.samples}:{options.seed}"
    parameters = f"{original.suite_digest}:{asked}:{shipped().digest}"
    return f"{EVAL_VERSION}+{hashlib.sha256(parameters.encode()).hexdigest()[:12]}"


def _not_compared(why_not: str) -> Comparison:
    gap = Unmeasured(why_not)
    return Comparison(
        status=SafetyStatus.NOT_MEASURED,
        reason=why_not,
        mcnemar_p=gap,
        refusal_drop=gap,
        kl_per_token=gap,
        perplexity_ratio=gap,
    )


def _inherited(baseline: EvalResult) -> Comparison:
    """Same values, same behaviour: no forward pass needed."""
    refusal = baseline.behaviour.refusal
    n = refusal.n if isinstance(refusal, Measured) else 0
    return Comparison(
        status=SafetyStatus.RETAINED,
        reason="The weights hold exactly the original's values, so its measurements apply.",
        mcnemar_p=Unmeasured("no pair can differ"),
        refusal_drop=Measured(0.0, n, 0.0, 0.0),
        kl_per_token=Measured(0.0, n, 0.0, 0.0),
        perplexity_ratio=Measured(1.0, n, 1.0, 1.0),
    )
