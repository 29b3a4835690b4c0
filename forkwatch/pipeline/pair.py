"""Any two checkpoints compared: `forkwatch.diff/1` out of a sketch or a full diff."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from crawler.interface import Cost
from detector.errors import DetectorError
from detector.interface import Diff, Sketch
from detector.journal import Journal
from detector.match import same_contents
from forkwatch.errors import SettingsError
from forkwatch.pipeline.budget import sketch_budget
from forkwatch.pipeline.context import Talk
from forkwatch.pipeline.resume import journal_of
from forkwatch.pipeline.sides import Checkpoint, Opened
from forkwatch.state import StateDir


class PairDepth(StrEnum):
    """How closely two checkpoints are compared."""

    SKETCH = "sketch"
    """Headers and sampled rows: nothing is downloaded, and nothing proved but that files are the same."""
    FULL = "full"
    """Every tensor, by value."""


@dataclass(frozen=True, slots=True)
class PairDiff:
    """Two checkpoints and what differs."""

    base: Opened
    fork: Opened
    found: Diff | Sketch
    seconds: float
    spent: Cost = field(default_factory=Cost)
    """On the Hub."""

    @property
    def depth(self) -> PairDepth:
        """How closely they were compared."""
        return PairDepth.FULL if isinstance(self.found, Diff) else PairDepth.SKETCH

    @property
    def bytes_read(self) -> int:
        """Of both sides, headers included."""
        readers = (self.base.reader, self.fork.reader, self.fork.adapter)
        return sum(reader.bytes_read for reader in readers if reader is not None)


def open_checkpoint(checkpoint: Checkpoint) -> Opened:
    """Read its headers.

    Raises:
        DetectorError: they are not weights that forkwatch reads; the message names the side.
        CrawlerError: bytes could not be had.
    """
    from detector.formats import open_adapter, open_with_paths
    from detector.formats.peft import PeftReader

    try:
        reader, paths = open_with_paths(checkpoint.files)
        adapter = None if isinstance(reader, PeftReader) else open_adapter(checkpoint.files)
    except DetectorError as error:
        raise type(error)(f"{checkpoint.name}: {error}") from error
    return Opened(checkpoint, reader, adapter, tuple(checkpoint.contents.get(path, "") for path in paths))


def sketch_pair(base: Opened, fork: Opened) -> Sketch:
    """Compare sampled rows, none where hashes say that the files are the same.

    An adapter beside the fork's weights is taken as its headers describe it.

    Raises:
        NothingComparedError: the two have no tensor in common.
        CrawlerError: bytes could not be had.
    """
    from detector.sketch import sketch_copy, sketch_weights

    budget = sketch_budget(fork.checkpoint.size)
    same = same_contents(base.contents, fork.contents)
    if same:
        local = base.contents[0].startswith("inode:")
        note = "the same files on this disk" if local else "the same hashes, as the Hub reports them"
        sketch = sketch_copy(base.reader, fork.reader, len(fork.contents), note)
    else:
        sketch = sketch_weights(base.reader, fork.reader, budget_bytes=budget, known_to_differ=same is False)
    if fork.adapter is None:
        return sketch
    beside = sketch_weights(base.reader, fork.adapter, budget_bytes=budget)
    return replace(
        sketch, edits=(*sketch.edits, *beside.edits), bytes_read=sketch.bytes_read + beside.bytes_read
    )


def diff_pair(
    base: Opened, fork: Opened, parents: Sequence[Opened], talk: Talk, journal: Journal | None
) -> Diff:
    """Compare every tensor that the journal does not know yet.

    Args:
        base: the original.
        fork: what is explained.
        parents: other models that it may be merged from.
        talk: told about tensors as they are compared.
        journal: of an interrupted comparison.

    Raises:
        NothingComparedError: the two have no tensor in common.
        MalformedWeightsError: a file turns out malformed while it is read.
        CrawlerError: bytes could not be had.
    """
    from detector.diff import diff_weights

    def advance(_tensor: str, done: int, total: int) -> None:
        talk.progress("compared", done, total)

    return diff_weights(
        base.reader,
        fork.reader,
        progress=advance,
        adapter=fork.adapter,
        parents={parent.checkpoint.name: parent.reader for parent in parents},
        journal=journal,
    )


def compare_checkpoints(
    sides: Sequence[Checkpoint], depth: PairDepth, state: StateDir, talk: Talk
) -> PairDiff:
    """Open all and compare the first two; a full comparison goes on where an interrupted one was.

    Args:
        sides: base and fork; then models that the fork may be merged from.
        depth: how closely.
        state: where the journal lies meanwhile.
        talk: told how far it is.

    Raises:
        SettingsError: the base is an adapter alone.
        DetectorError, CrawlerError: as the functions above.
    """
    began = time.monotonic()
    first, second, *parents = (open_checkpoint(side) for side in sides)
    if first.reader.format == "peft":
        # Compared with it, any fork would look as if it did not descend from it.
        raise SettingsError(
            f"{first.checkpoint.name} is an adapter alone: nothing can be compared with it",
            tip="Give the base model as the first side; an adapter can be the second.",
        )
    if depth is PairDepth.SKETCH:
        found: Diff | Sketch = sketch_pair(first, second)
    else:
        with journal_of(state, first, second, talk) as journal:
            found = diff_pair(first, second, parents, talk, journal)
    return PairDiff(first, second, found, time.monotonic() - began)
