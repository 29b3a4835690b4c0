"""With `[hub] xet` on: how much of a changed weight file the Hub's own storage proves to be the release's.

Costs no byte of weights: for each file of either side the way to it, a token and a reconstruction. It proves
equal ranges and nothing else: bytes that are not shared may be equal as well, so it never speaks against a
fork. What cannot be had is said, and fails no scan.
"""

from __future__ import annotations

from crawler.interface import CrawlerError, Snapshot
from detector.formats import is_weight_file
from detector.interface import Evidence, FileMatch
from forkwatch.pipeline.context import Context
from forkwatch.pipeline.originals import Original, release_snapshot
from forkwatch.text import plain

VERSION = "1"
"""Of this stage."""
_NAME = "xet-shared-bytes"


def shared_bytes(
    context: Context, original: Original, snapshot: Snapshot, match: FileMatch
) -> tuple[Evidence, ...]:
    """For each weight file that differs from the release's of the same name: the share proved equal."""
    changed = [path for path in match.changed if is_weight_file(path)]
    if not changed:
        return ()
    try:
        release = release_snapshot(context, original)
    except CrawlerError as error:
        return tuple(_not_measured(path, str(error)) for path in changed)
    return tuple(_of_file(context, release, snapshot, path) for path in changed)


def _of_file(context: Context, release: Snapshot, snapshot: Snapshot, path: str) -> Evidence:
    from crawler.xet import equal_ranges

    try:
        theirs = context.hub.xet_terms(snapshot, path)
        ours = None if theirs is None else context.hub.xet_terms(release, path)
    except CrawlerError as error:
        return _not_measured(path, str(error))
    if ours is None or theirs is None:
        return _not_measured(path, "the Hub does not say how it stores the file")
    size = sum(term.length for term in theirs)
    equal = sum(length for _, _, length in equal_ranges(ours, theirs))
    note = (
        f"{plain(path)}: {equal:,} of {size:,} bytes proved equal to the release's by shared storage, on the "
        "Hub's word; of the others this proves nothing"
    )
    return Evidence(_NAME, round(equal / size, 6) if size else 0.0, note)


def _not_measured(path: str, reason: str) -> Evidence:
    return Evidence(_NAME, "not measured", f"{plain(path)}: {plain(reason)}")
