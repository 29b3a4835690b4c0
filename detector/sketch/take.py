"""`sketch_weights`: the three rounds of reads, and what they add up to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from detector.content import match_by_content
from detector.edits.adapter import adapter_lineage, find_adapter_claim
from detector.errors import NothingComparedError
from detector.formats.peft import PeftReader
from detector.formats.views import view, view_cost
from detector.interface import (
    Certainty,
    Edit,
    EditDetail,
    EditKind,
    Lineage,
    LineageStatus,
    Sketch,
    TensorInfo,
    TensorSketch,
    WeightReader,
)
from detector.lineage import align_layers, judge_lineage, sample_bands, sample_cost, search_neurons
from detector.pairing import Pair, Pairing, pair_tensors
from detector.parallel import one_thread_a_product
from detector.sketch.naming import TOKENS, Findings, layer_surgery, name_edits
from detector.sketch.plan import VISIBLE_SHARE, survey
from detector.sketch.probe import Probes, probe
from detector.sketch.reading import Seen, look, measure
from detector.sketch.regions import next_regions
from detector.sketch.shape import Form

LINEAGE_SHARE = 0.35
"""Share of the budget for the lineage bands."""
LINEAGE_ROWS = (32, 16, 8)
CONTENT_SHARE, CONTENT_ROWS, MOST_BY_CONTENT = 0.1, 32, 64
"""Share of the budget for pairing by content, rows that it may read of a tensor, and tensors at most."""
SURVEY_SHARE = 0.5
"""Share of what is left for the survey; the probes have the rest, and what the survey did not need."""


@one_thread_a_product()
def sketch_weights(
    original: WeightReader, fork: WeightReader, *, budget_bytes: int, known_to_differ: bool = False
) -> Sketch:
    """Sample a fork.

    (1) Neurons of every layer: descent, and which layer is which. (2) A few rows of every tensor: what
    changed. (3) More rows of some changed matrices: what the change looks like.

    Args:
        original: the release, which is local.
        fork: the fork, which may be remote.
        budget_bytes: bytes of the fork to read besides its headers; when they do not reach for a row of every
            tensor, tensors are skipped evenly and appear in neither list of the result.
        known_to_differ: the files are not the original's, by their hashes.

    Raises:
        NothingComparedError: the two have no tensor name in common.
        CrawlerError: bytes could not be had.
    """
    if isinstance(fork, PeftReader):
        return _adapter(original, fork)
    pairing = pair_tensors(original.tensors(), fork.tensors())
    if not pairing.pairs and not pairing.reshaped:
        raise NothingComparedError("the two checkpoints share no tensor name")
    end = fork.bytes_read + budget_bytes
    lineage, layers = _lineage(original, fork, int(budget_bytes * LINEAGE_SHARE))
    if lineage.status is LineageStatus.UNRELATED:
        return _unrelated(original, fork, pairing, lineage)
    empty = Findings(original, fork, pairing, layers, (), Probes(None, {}, ()))
    if layers and layer_surgery(empty):
        pairing = pair_tensors(original.tensors(), fork.tensors(), layers)
    if _cheap_to_match(pairing, fork, int(budget_bytes * CONTENT_SHARE)):
        pairing = match_by_content(pairing, original, fork)
    plans = survey(
        [*pairing.pairs, *_common_tokens(pairing)], fork, int((end - fork.bytes_read) * SURVEY_SHARE)
    )
    seen = tuple(measure(plans, original, fork, look))
    changed = [each.pair for each in seen if each.changed and each.pair.is_matrix]
    hidden = [each.pair for each in seen if each.explained and each.pair.is_matrix]
    probes = probe(changed, hidden, original, fork, max(0, end - fork.bytes_read))
    findings = Findings(original, fork, pairing, layers, seen, probes, known_to_differ)
    return _sketch(findings, lineage)


def _cheap_to_match(pairing: Pairing, fork: WeightReader, budget: int) -> bool:
    """Pairing by content reads rows of every tensor without a counterpart, one after the other."""
    added = [info for info in pairing.added if len(info.shape) == 2]
    if not added or not pairing.missing or len(added) > MOST_BY_CONTENT:
        return False
    return sum(view_cost(fork, info, CONTENT_ROWS) for info in added) <= budget


def _sketch(findings: Findings, lineage: Lineage) -> Sketch:
    pairing, seen = findings.pairing, findings.seen
    structure = {info.name for info in (*pairing.added, *pairing.missing)}
    structure |= {pair.name for pair in pairing.reshaped}
    changed = structure | {each.pair.name for each in seen if each.changed}
    return Sketch(
        lineage=lineage,
        changed=tuple(sorted(changed)),
        unchanged=tuple(
            sorted(each.pair.name for each in seen if not each.changed and each.pair.name not in structure)
        ),
        edits=name_edits(findings),
        bytes_read=findings.original.bytes_read + findings.fork.bytes_read,
        bytes_total=_total(findings.fork),
        tensors=tuple(sorted((_tensor(each, findings) for each in seen), key=lambda tensor: tensor.name)),
        visible_share=VISIBLE_SHARE,
        regions=next_regions(findings),
    )


def _tensor(seen: Seen, findings: Findings) -> TensorSketch:
    ranks = {
        pair.name: shape.rank
        for probes in findings.probes.shapes.values()
        for pair, shape in probes
        if shape.form is Form.LOW
    }
    return TensorSketch(
        name=seen.pair.name,
        layer=seen.pair.layer,
        module=seen.pair.module,
        changed=seen.changed,
        rows=seen.bands.rows,
        miss=0.0 if seen.changed else seen.bands.miss(),
        relative_norm=seen.relative_norm,
        rank=ranks.get(seen.pair.name),
    )


def _lineage(original: WeightReader, fork: WeightReader, budget: int) -> tuple[Lineage, Mapping[int, int]]:
    """Descent, and layer of the fork → layer of the original; empty when none is like another."""
    rows = next((rows for rows in LINEAGE_ROWS if sample_cost(original, fork, rows) <= budget), 0)
    layers = None
    if not rows:
        rows, layers = LINEAGE_ROWS[-1], _affordable(original, fork, budget)
    bands = sample_bands(original, fork, rows, layers)
    aligned = align_layers(*bands)
    compared = aligned or {layer: layer for layer in bands[1].layers}
    lineage = judge_lineage(*bands, compared)
    return search_neurons(lineage, original, bands, compared), {} if layers is not None else aligned


def _affordable(original: WeightReader, fork: WeightReader, budget: int) -> list[int]:
    """Layers evenly apart, as many as fit with the fewest rows; one at least."""
    from detector.roster import neuron_matrices, shared_kind

    layers = sorted(neuron_matrices(fork).get(shared_kind(original, fork), {}))
    dearest = sample_cost(original, fork, LINEAGE_ROWS[-1]) // max(len(layers), 1)
    count = max(1, min(len(layers), budget // max(dearest, 1)))
    return [layers[index * len(layers) // count] for index in range(count)] if layers else []


def _common_tokens(pairing: Pairing) -> list[Pair]:
    """Of embeddings that grew or shrank the rows that both have."""
    pairs = []
    for pair in pairing.reshaped:
        rows = (
            min(pair.original.shape[0], pair.fork.shape[0]) if pair.fork.shape and pair.original.shape else 0
        )
        if pair.name in TOKENS and pair.original.shape[1:] == pair.fork.shape[1:] and rows > 1:
            pairs.append(replace(pair, original=_first(pair.original, rows), fork=_first(pair.fork, rows)))
    return pairs


def _first(info: TensorInfo, rows: int) -> TensorInfo:
    return info if info.shape[0] == rows else view(info, f"rows:0:{rows}")


def _unrelated(original: WeightReader, fork: WeightReader, pairing: Pairing, lineage: Lineage) -> Sketch:
    names = {info.name for info in (*pairing.added, *pairing.missing)}
    names |= {pair.name for pair in (*pairing.reshaped, *pairing.pairs)}
    edit = Edit(EditKind.UNRELATED, Certainty.CONSISTENT, EditDetail(), lineage.evidence)
    spent = original.bytes_read + fork.bytes_read
    return Sketch(lineage, tuple(sorted(names)), (), (edit,), spent, _total(fork))


def _adapter(original: WeightReader, fork: PeftReader) -> Sketch:
    lineage = adapter_lineage(original, fork)
    edits = (find_adapter_claim(original, fork),)
    spent = original.bytes_read + fork.bytes_read
    return Sketch(lineage, tuple(fork.targets), (), edits, spent, _total(fork))


def _total(fork: WeightReader) -> int:
    return sum(info.nbytes for info in fork.tensors().values())
