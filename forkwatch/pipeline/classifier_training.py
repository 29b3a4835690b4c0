"""`forkwatch classifier train`: from a reference pack, or from answers that are drawn for it."""

from __future__ import annotations

from pathlib import Path

from detector.outputs.pack import read_pack, write_pack
from detector.outputs.table import split
from forkwatch.pipeline.classifier import DOCUMENT, classifier_folder, train_and_keep
from forkwatch.pipeline.classifier_pack import Drawing, drawn_pack, observed_forks
from forkwatch.pipeline.context import Context
from forkwatch.pipeline.originals import Original
from forkwatch.state import StateDir
from reports.classifier import ClassifierDocument
from reports.classifier_json import from_json


def pack_folder(state: StateDir, root_digest: str) -> Path:
    """Where the reference pack of a release is kept."""
    return state.packs / root_digest.removeprefix("sha256:")


def train_release(
    context: Context,
    original: Original,
    *,
    pack: Path | None,
    out: Path | None,
    drawing: Drawing,
) -> tuple[ClassifierDocument, Path]:
    """Train, evaluate, write.

    Args:
        context: surroundings.
        original: the release.
        pack: folder of a reference pack of it; None: draw one, and keep it in the state folder.
        out: where the classifier goes; None: where the release's published one is kept.
        drawing: how many answers, where they are drawn.

    Returns:
        Its document, and the folder.

    Raises:
        BadPackError: the pack is damaged, or of another release.
        NothingToLearnError: there is no modified fork among the models.
        CrawlerError: weights of a fork cannot be had.
        EvalsError: a child failed.
    """
    if pack is None:
        drawn = drawn_pack(context, original, observed_forks(context, original), drawing)
        write_pack(drawn, pack_folder(context.state, original.root_digest))
    else:
        drawn = read_pack(pack, root_digest=original.root_digest)
    parts = split(drawn)
    train_and_keep(context, original, drawn, parts, out)
    scored = all(len(one.authentic.logp) for held in parts.calibration.values() for one in held)
    folder = out or classifier_folder(context.state, original.root_digest, scored=scored)
    document = from_json((folder / DOCUMENT).read_text())
    return document, folder
