"""Release cards: written into a release before it is signed, and read back from guarded ones."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from detector.errors import InvalidCardError
from detector.interface import Manifest
from detector.provenance.card import (
    CARD_FILE,
    MAX_CARD_BYTES,
    Baseline,
    Card,
    NotMeasured,
    Rate,
    card_of,
    dump_card,
    read_card,
)
from detector.provenance.coverage import files_below
from detector.provenance.hashing import hash_file
from detector.provenance.interface import SignatureStatus, root_digest
from detector.provenance.sign import UNSIGNED_BY_CUSTOM
from evals.interface import EvalRequest, Measured, Outcome, Tier
from forkwatch.errors import SettingsError
from forkwatch.pipeline.blobs import blob_path, keep_bytes
from forkwatch.pipeline.context import Context
from forkwatch.pipeline.limits import limits_of
from forkwatch.sections.judging import EvaluationSettings
from forkwatch.state import StateDir
from forkwatch.store.models import Release
from forkwatch.store.values import manifest_of
from reports.card import ReleaseCardDocument
from reports.card_json import from_json


def write_card(folder: Path, card: Card, *, force: bool) -> Path:
    """Write the card into a release folder.

    Raises:
        SettingsError: there is one and `force` is not given.
        InvalidCardError: a field is empty, too long or out of range.
    """
    place = folder / CARD_FILE
    content = dump_card(card)
    if os.path.lexists(place) and not force:
        raise SettingsError(f"{place} is there already", tip="--force replaces it.")
    part = folder / f"{CARD_FILE}.part"
    part.write_bytes(content)
    part.replace(place)
    return place


def measure_baseline(  # noqa: PLR0913 - what a measurement depends on
    folder: Path,
    suite: Path,
    options: EvaluationSettings,
    *,
    signature: str,
    now: Callable[[], datetime],
    progress: Callable[[str], None],
) -> Baseline:
    """Measure a release's own behaviour in a confined child process.

    Raises:
        EvalsError: the suite is no suite, the child failed, or isolation is required and not to be had.
    """
    from evals.run import baseline

    with tempfile.TemporaryDirectory(prefix="forkwatch-baseline-") as scratch:
        request = EvalRequest(
            original=folder,
            weights=(),
            suite=suite,
            tier=Tier(options.tier),
            baseline_transcript=None,
            scratch=Path(scratch),
            max_new_tokens=options.max_new_tokens,
            seed=options.seed,
            timeout_seconds=options.timeout_seconds,
            device=options.device,
            limits=limits_of(options),
        )
        result = baseline(request, progress=progress)
    behaviour = result.behaviour
    return Baseline(
        refusal=_rate(behaviour.refusal),
        over_refusal=_rate(behaviour.over_refusal),
        ungradeable=_rate(behaviour.ungradeable),
        suite=behaviour.suite,
        suite_digest=behaviour.suite_digest,
        judge=behaviour.judge,
        device=result.device,
        isolation=result.isolation.value,
        measured_at=now().isoformat(timespec="seconds"),
        subject=subject_of(folder, signature),
    )


def read_baseline(file: Path, folder: Path, signature: str) -> Baseline:
    """A baseline from another card, if it was measured on these very files.

    Raises:
        InvalidCardError: it is no card, has no measurement, or one of other files.
    """
    baseline = read_card(_bounded(file)).baseline
    if isinstance(baseline, NotMeasured):
        raise InvalidCardError(f"{file} holds no measurement: {baseline.reason}")
    subject = subject_of(folder, signature)
    if baseline.subject != subject:
        raise InvalidCardError(f"{file} was measured on other files: {baseline.subject}, these are {subject}")
    return baseline


def subject_of(folder: Path, signature: str) -> str:
    """The root digest of what is going to be signed, without the card itself."""
    left_out = {signature, CARD_FILE, *UNSIGNED_BY_CUSTOM}
    paths = sorted(
        path for path in files_below(folder) if path not in left_out and not path.startswith(".git")
    )
    return root_digest(tuple((path, hash_file(folder, path).sha256) for path in paths))


def check_card(manifest: Manifest, folder: Path) -> None:
    """See that a card in a release that has just been signed, if there is one, is one that guards will read.

    Raises:
        InvalidCardError: it is malformed, or its baseline was measured on other files.
    """
    if manifest.file(CARD_FILE) is not None:
        card_of(manifest, _bounded(folder / CARD_FILE))


def keep_card(state: StateDir, manifest: Manifest, folder: Path) -> None:
    """Keep the card of a verified release as a blob, so that pages need not fetch the release again."""
    if manifest.file(CARD_FILE) is None:
        return
    content = _bounded(folder / CARD_FILE)
    if len(content) <= MAX_CARD_BYTES:
        keep_bytes(state, content)


def release_card(state: StateDir, manifest: Manifest) -> ReleaseCardDocument | None:
    """The kept card of a verified release, when the manifest covers one.

    Raises:
        InvalidCardError: the publisher signed a card that is malformed.
    """
    entry = manifest.file(CARD_FILE)
    place = None if entry is None else blob_path(state, entry.sha256)
    if place is None or not place.is_file():
        return None
    return card_document(card_of(manifest, _bounded(place)))


def published_card(context: Context, row: Release) -> ReleaseCardDocument | None:
    """The card of a guarded release that is signed; a malformed card is said and left out."""
    if row.status != SignatureStatus.VERIFIED:
        return None
    try:
        return release_card(context.state, manifest_of(row))
    except InvalidCardError as error:
        context.talk.note(f"{row.repo}: {error}")
        return None


def card_document(card: Card) -> ReleaseCardDocument:
    """The card as reports show it, with the fields we know and no others."""
    return from_json(dump_card(card).decode())


def _bounded(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(MAX_CARD_BYTES + 1)
    except OSError as error:
        raise InvalidCardError(f"cannot read {file}: {error.strerror}") from error


def _rate(outcome: Outcome) -> Rate | NotMeasured:
    if isinstance(outcome, Measured):
        return Rate(outcome.value, outcome.n, outcome.low, outcome.high)
    return NotMeasured(outcome.reason)
