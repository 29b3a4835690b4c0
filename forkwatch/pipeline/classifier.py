"""The classifier of a release's outputs: trained when its forks have changed, kept by what it was trained on.

After a run it is trained on the sampled answers that the evaluation left anyway: the degraded mode, without
scores. `forkwatch classifier train` draws more, in every nuisance cell, and scores them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version as version_of
from pathlib import Path

from pydantic import TypeAdapter

from detector.outputs.classifier import Mode
from detector.outputs.evaluation import Evaluation, ForkRow, Split
from detector.outputs.interface import (
    Decision,
    NothingToLearnError,
    Question,
    ReferencePack,
    TestResult,
)
from detector.outputs.pack import samples_digest, write_private
from detector.outputs.table import Parts, split
from forkwatch import __version__
from forkwatch.pipeline.classifier_document import classifier_document
from forkwatch.pipeline.classifier_pack import ObservedFork, observed_forks, transcript_pack
from forkwatch.pipeline.context import Context
from forkwatch.pipeline.funnel import eval_version, release_ledger
from forkwatch.pipeline.ledger import Ledger
from forkwatch.pipeline.originals import Original
from forkwatch.state import StateDir
from forkwatch.store.models import Release
from reports.classifier import ClassifierDocument
from reports.classifier_json import from_json, to_json

STAGE, FORK_STAGE = "classifier", "attribution"
VERSION = "1"
"""Of both stages; raised when the same outputs would teach another classifier."""
_LIBRARIES = ("numpy", "scikit-learn", "scipy")
_TOKENIZER = ("tokenizer.json", "tokenizer.model", "vocab.json")
_TEMPLATE = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json")
CARD, DOCUMENT = "card.md", "document.json"
INPUTS = "inputs"
"""What the files beside it were made of by a run; written last."""


@dataclass(frozen=True, slots=True)
class Trained:
    """That a release's classifier was trained on these outputs; it lies in `classifier_folder`."""

    digest: str
    """Of its configuration. Empty: there is none."""
    why_none: str = ""
    forks: Mapping[str, tuple[TestResult, ...]] = field(default_factory=dict)
    """What heads that learned nothing from a fork say of its outputs; one result a mode."""


@dataclass(frozen=True, slots=True)
class ForkAttribution:
    """What the release's classifier, trained without a fork, says of the fork's outputs."""

    classifier: str
    """Digest; empty: there is none."""
    results: tuple[TestResult, ...]
    """One a mode, of outputs that nothing was learned from."""


_TRAINED = TypeAdapter(Trained)
_ATTRIBUTION = TypeAdapter(ForkAttribution)


def update_classifier(context: Context, original: Original) -> Trained | None:
    """Train the release's classifier if its measured forks are others than before; None: there are none.

    Each of the forks gets a result of its own. What exists is not worked out again, but for the files where
    they are of other forks by now: a fork that is gone may come back.
    """
    if not context.settings.outputs.classifier:
        return None
    forks = observed_forks(context, original)
    if not forks:
        return None
    version = f"{VERSION}+{_inputs(context, original, forks)}"
    inputs = classifier_folder(context.state, original.root_digest, scored=False) / INPUTS

    def work_out() -> Trained:
        pack = transcript_pack(context, original, forks)
        try:
            parts = split(pack)
        except NothingToLearnError as error:
            return Trained("", str(error))
        digest, evaluation = train_and_keep(context, original, pack, parts)
        write_private(inputs, version.encode())
        return Trained(digest, forks=held_out_results(evaluation))

    trained = release_ledger(context, original).once(STAGE, version, _TRAINED, work_out)
    if trained.digest and not (inputs.is_file() and inputs.read_text() == version):
        work_out()
    for fork in forks:
        ledger = Ledger(context, fork.document.repo, fork.examined.snapshot_id, original.root_digest)
        found = _attribution(fork, trained)
        ledger.once(FORK_STAGE, version, _ATTRIBUTION, lambda found=found: found)  # type: ignore[misc]
    return trained


def held_out_results(evaluation: Evaluation) -> dict[str, tuple[TestResult, ...]]:
    """By fork, for the split that leaves the fork out."""
    found: dict[str, tuple[TestResult, ...]] = {}
    for row in evaluation.forks:
        if row.split is Split.FORK:
            found[row.fork] = (*found.get(row.fork, ()), _result(row, evaluation.alpha))
    return found


def _attribution(fork: ObservedFork, trained: Trained) -> ForkAttribution:
    why_none = trained.why_none or "it teaches what is harmless, or is the only modified fork"
    nothing = TestResult(
        question=Question.EQUALITY,
        test="text-classifier",
        decision=Decision.INSUFFICIENT,
        n=0,
        reason=why_none,
    )
    return ForkAttribution(trained.digest, trained.forks.get(fork.name, (nothing,)))


def _result(row: ForkRow, alpha: float) -> TestResult:
    if row.p_value is None:
        decision, reason = Decision.INSUFFICIENT, row.rates[0].unmeasured
    else:
        differs = row.p_value <= alpha
        decision = Decision.DIFFERENT if differs else Decision.NO_DIFFERENCE
        reason = f"a classifier that has not seen the fork gives {row.n} of its outputs p = {row.p_value:.3g}"
    return TestResult(
        question=Question.EQUALITY,
        test=f"{row.mode.value}-classifier",
        decision=decision,
        n=row.n,
        p_value=row.p_value,
        reason=reason,
    )


# --- training and keeping ---


def train_and_keep(
    context: Context, original: Original, pack: ReferencePack, parts: Parts, folder: Path | None = None
) -> tuple[str, Evaluation]:
    """Train on a pack, evaluate, and write classifier, card and document.

    Args:
        context: surroundings.
        original: the release.
        pack: its outputs and those of forks.
        parts: the pack, split.
        folder: where to; None: where the release's are kept, which are the published ones.

    Returns:
        Digest of the classifier's configuration, and its evaluation.
    """
    from detector.outputs.classifier_files import write_classifier
    from detector.outputs.evaluation import evaluate
    from detector.outputs.training import train_parts

    now = context.now().isoformat(timespec="seconds")
    classifier = train_parts(pack, parts)
    made = replace(
        classifier.provenance,
        made_at=now,
        pack=samples_digest(pack),
        tokenizer=_file_digest(original, _TOKENIZER),
        template=_file_digest(original, _TEMPLATE),
        program=__version__,
        libraries=tuple((name, version_of(name)) for name in _LIBRARIES),
    )
    classifier = replace(classifier, provenance=made)
    evaluation = evaluate(
        parts, classifier.calibrations, dates=_dates(context, original), alpha=context.settings.policy.alpha
    )
    folder = folder or classifier_folder(
        context.state, original.root_digest, scored=Mode.SCORE in classifier.calibrations
    )
    digest = write_classifier(classifier, folder)
    document = classifier_document(classifier, evaluation, digest)
    write_private(folder / CARD, document.markdown.encode())
    write_private(folder / DOCUMENT, to_json(document).encode())
    return digest, evaluation


def classifier_folder(state: StateDir, root_digest: str, *, scored: bool) -> Path:
    """Where a release's classifier is kept; one that needs scores lies beside the one that does not."""
    return state.classifiers / root_digest.removeprefix("sha256:") / ("scored" if scored else "texts")


def stored_classifier(context: Context, row: Release) -> ClassifierDocument | None:
    """The document of a release's classifier, the one with scores if there is one. Nothing is worked out."""
    for scored in (True, False):
        path = classifier_folder(context.state, row.root_digest, scored=scored) / DOCUMENT
        if path.is_file():
            return from_json(path.read_text())
    return None


def _dates(context: Context, original: Original) -> dict[str, str]:
    """When the forks' verdicts were first seen, by `org/name@commit`."""
    found: dict[str, str] = {}
    for verdict in context.store.verdicts(original.release_id):
        name = f"{verdict.document.repo}@{verdict.document.commit}"
        found.setdefault(name, verdict.created_at.isoformat())
    return found


def _file_digest(original: Original, names: tuple[str, ...]) -> str:
    """Of the first of the files that the release has."""
    hashes = {file.path: file.sha256 for file in original.manifest.files}
    return next((f"sha256:{hashes[name]}" for name in names if name in hashes), "")


def _inputs(context: Context, original: Original, forks: tuple[ObservedFork, ...]) -> str:
    """Digest of everything that the training depends on."""
    parts = [
        original.root_digest,
        eval_version(context, original),
        context.settings.policy.alpha,
        [(name, version_of(name)) for name in _LIBRARIES],
        [(fork.name, fork.family, fork.benign) for fork in forks],
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
