"""Forks in which nothing differs: by their hashes, which prove it, or in all rows that were read.

Rows that are equal say nothing of the others. What they exclude is stated: a change of most rows of a tensor
with the miss probability of its bands (`plan`), and a single changed row, anywhere, with the share of all
rows that were not read. A patch that was made to hide between the bands, whose places are public, is not
excluded at all.
"""

from __future__ import annotations

from collections.abc import Sequence

from detector.formats.names import layer_of, module_of
from detector.interface import (
    Certainty,
    Edit,
    EditDetail,
    EditKind,
    Evidence,
    Lineage,
    LineageStatus,
    Sketch,
    TensorSketch,
    WeightReader,
)
from detector.pairing import Pairing
from detector.sketch.plan import VISIBLE_SHARE
from detector.sketch.reading import Seen


def sketch_copy(original: WeightReader, fork: WeightReader, files: int, note: str) -> Sketch:
    """Of two checkpoints that are the same files. No row is read.

    Args:
        original: the original.
        fork: the fork.
        files: how many files they are.
        note: what says that they are the same.
    """
    evidence = (Evidence("identical-files", files, note),)
    names = tuple(sorted(fork.tensors()))
    return Sketch(
        lineage=Lineage(LineageStatus.PROVED, evidence),
        changed=(),
        unchanged=names,
        edits=(Edit(EditKind.IDENTICAL, Certainty.PROVED, EditDetail(), evidence),),
        bytes_read=original.bytes_read + fork.bytes_read,
        bytes_total=sum(info.nbytes for info in fork.tensors().values()),
        tensors=tuple(_unread(name) for name in names),
        visible_share=VISIBLE_SHARE,
    )


def nothing_seen(
    seen: Sequence[Seen], pairing: Pairing, *, same_headers: bool, known_to_differ: bool
) -> Edit:
    """The edit of a fork in which every row that was read is equal.

    Args:
        seen: what was read.
        pairing: all tensors.
        same_headers: equal tensor bytes would make equal files.
        known_to_differ: the hashes of the files are not the original's.
    """
    if not seen:
        return _unknown(Evidence("changed-matrices", 0, "no tensor fitted the budget"))
    if others := [*pairing.reshaped, *pairing.added, *pairing.missing]:
        return _unknown(Evidence("unaccounted-tensors", len(others), "added, missing, or of another shape"))
    equal = Evidence("equal-bands", len(seen), "sampled rows of every read tensor are equal")
    misses = _misses(seen, pairing)
    if same_headers and known_to_differ:
        hidden = Evidence(
            "hidden-change", "yes", "headers are equal and the files' hashes differ: rows not read did change"
        )
        return _unknown(hidden, equal, *misses)
    kind = EditKind.IDENTICAL if same_headers else EditKind.REPACKAGED
    return Edit(kind, Certainty.CONSISTENT, EditDetail(), (equal, *misses))


def _misses(seen: Sequence[Seen], pairing: Pairing) -> tuple[Evidence, ...]:
    """What may have changed all the same, and how likely it would have been missed."""
    read = {each.pair.name: each.bands.rows for each in seen if each.pair.is_matrix}
    rows = sum(pair.fork.shape[0] for pair in pairing.pairs if pair.is_matrix)
    unread = sum(pair.name not in {each.pair.name for each in seen} for pair in pairing.pairs)
    whole = max(each.bands.miss() for each in seen)
    found = [
        Evidence(
            "miss-probability", round(whole, 6), f"of a change of {VISIBLE_SHARE:.0%} of the rows of a tensor"
        ),
        Evidence(
            "one-row-miss-probability",
            round(1 - sum(read.values()) / max(rows, 1), 6),
            "of one changed row of one matrix, wherever it is; of one made to hide between the bands: 1",
        ),
    ]
    if unread:
        found.append(Evidence("unread-tensors", unread, "no row of them was read"))
    return tuple(found)


def _unread(name: str) -> TensorSketch:
    return TensorSketch(
        name=name,
        layer=layer_of(name),
        module=module_of(name),
        changed=False,
        rows=0,
        miss=0.0,
        relative_norm=0.0,
        rank=None,
    )


def _unknown(*evidence: Evidence) -> Edit:
    return Edit(EditKind.UNKNOWN, Certainty.UNKNOWN, EditDetail(), evidence)
