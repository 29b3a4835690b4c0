"""One pair through the detector, and what came out beside what is right."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.zoo.expect import sketched_rows
from benchmarks.zoo.pairs import Built, Pair, build
from detector.diff import diff_weights
from detector.errors import DetectorError
from detector.formats import open_weights
from detector.interface import Certainty, Edit, Lineage, WeightReader
from detector.lineage import sample_bands
from detector.sketch import sketch_weights

DEPTHS = ("full", "sketch")


@dataclass
class Outcome:
    """One line of the results file."""

    pair: str
    seed: int
    depth: str
    family: str
    """The kind set that was made, joined by `+`."""
    right: list[str]
    said: str
    certainty: dict[str, str]
    truth: list[str]
    exact: bool
    relative: float
    clear: bool
    benign: bool
    related: bool | None
    lineage: str
    lineage_right: bool
    p_value: float | None
    seconds: float
    share: float
    """Bytes of the fork's side and the original's read, over the fork's tensor bytes."""
    error: str = ""
    evidence: list[str] = field(default_factory=list)

    @property
    def wrong_proofs(self) -> list[str]:
        """Kinds called proved that were not made."""
        return [k for k, c in self.certainty.items() if c == Certainty.PROVED and k not in self.truth]

    @property
    def directional(self) -> bool:
        """A directional edit is claimed."""
        return "directional-edit" in self.certainty

    def line(self) -> str:
        """For the terminal."""
        said = ", ".join(f"{kind} ({certainty})" for kind, certainty in self.certainty.items())
        return (
            f"{self.depth} {self.seed} {self.pair}: expected {' or '.join(self.right[:3])}; "
            f"said {said or self.error}; "
            f"lineage {self.lineage}; relative delta {self.relative:.1e}"
        )


def judge(pair: Pair, depths: Iterable[str], scratch: Path) -> list[Outcome]:
    """Make the pair and run it through the detector at each depth."""
    built = build(pair, scratch)
    return [_run(pair, built, depth) for depth in depths]


def _run(pair: Pair, built: Built, depth: str) -> Outcome:
    original, fork = open_weights(built.original), open_weights(built.fork)
    start, error = time.perf_counter(), ""
    edits: tuple[Edit, ...] = ()
    lineage: Lineage | None = None
    read = 0
    try:
        if depth == "full":
            parents = {name: open_weights(files) for name, files in built.parents.items()}
            known = {
                name: sample_bands(original, open_weights(files))[1] for name, files in built.known.items()
            }
            diff = diff_weights(original, fork, parents=parents, known=known)
            edits, lineage, read = diff.edits, diff.lineage, diff.bytes_read
        else:
            sketch = sketch_weights(original, fork, budget_bytes=budget(fork, pair.spec.layers))
            edits, lineage, read = sketch.edits, sketch.lineage, sketch.bytes_read
    except DetectorError as caught:
        error = f"{type(caught).__name__}: {caught}"
    except Exception as caught:  # noqa: BLE001  # a crash of the detector is a result to report, not the end of the run
        error = f"CRASH {type(caught).__name__}: {caught}"
    seconds = time.perf_counter() - start
    right = built.answers.full if depth == "full" else built.answers.sketch
    said = frozenset(edit.kind for edit in edits)
    return Outcome(
        pair=pair.name,
        seed=pair.seed,
        depth=depth,
        family="+".join(sorted(pair.recipe.truth)) or pair.recipe.name,
        right=sorted("+".join(sorted(kinds)) for kinds in right),
        said="+".join(sorted(said)) or ("error" if error else "nothing"),
        certainty={str(edit.kind): str(edit.certainty) for edit in edits},
        truth=sorted({str(kind) for kinds in right for kind in kinds} | set(built.truth)),
        exact=said in right,
        relative=built.answers.relative,
        clear=built.answers.clear,
        benign=pair.recipe.benign,
        related=pair.recipe.related,
        lineage=str(lineage.status) if lineage else "none",
        lineage_right=lineage is not None and lineage.status in built.lineage,
        p_value=_p_value(lineage),
        seconds=round(seconds, 3),
        share=round(read / max(1, sum(info.nbytes for info in fork.tensors().values())), 4),
        error=error,
        evidence=[f"{e.name}={e.value}" for edit in edits for e in edit.evidence][:12],
    )


def budget(fork: WeightReader, layers: int) -> int:
    """Bytes of the rows that 0.5 % of a 1B-shaped fork buy, see `expect.ROWS`."""
    return sum(
        fork.band_bytes(name, sketched_rows(info.shape[0], layers))
        for name, info in fork.tensors().items()
        if len(info.shape) > 1
    )


def _p_value(lineage: Lineage | None) -> float | None:
    """The smallest of the lineage's evidence, which may state its logarithm."""
    found = [
        10.0 ** float(evidence.value) if evidence.name.startswith("log10-") else float(evidence.value)
        for evidence in (lineage.evidence if lineage else ())
        if "p-value" in evidence.name and isinstance(evidence.value, int | float)
    ]
    return min(found, default=None)


def to_json(outcome: Outcome) -> dict[str, Any]:
    """As a dictionary."""
    return asdict(outcome)
