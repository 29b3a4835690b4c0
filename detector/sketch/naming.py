"""From bands to edits, all of them at certainty 'consistent-with' or 'unknown'."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from detector.edits.context import layer_range, module_names
from detector.edits.structure import find_layer_surgery
from detector.grid import is_float
from detector.interface import Certainty, Edit, EditDetail, EditKind, Evidence, WeightReader
from detector.pairing import EMBEDDINGS, HEADS, Pair, Pairing
from detector.roster import layer_numbers
from detector.sketch.beside import trained_beside
from detector.sketch.copies import nothing_seen
from detector.sketch.direction import Found, is_writer
from detector.sketch.probe import Probes, settled
from detector.sketch.reading import Seen
from detector.sketch.shape import Form, Shape
from detector.sketch.tokens import moved_rows

FULL = 0.9
"""Share of the layer matrices that a full fine-tune changes."""
WIDE_ROWS = 0.5
"""Median share of the read rows with a moved value from which a dense change is training, not a patch."""
REPLACED = 0.5
"""Relative change from which rows are other rows, not trained ones: two unrelated ones differ by 1.4."""
AGREE = 0.6
"""Share of the probes that must find about the same rank. Early steps of Adam are signs of a few gradients,
which lie near several small ranks: 30 steps on a byte-level model gave 1, 6, 14, 16 and 27."""
SMALL = 0.25
"""Rank, as a share of the largest possible, up to which it is small whatever other modules say: heads that
share keys and attend alike leave half of the rank to what is trained behind them."""
FEWEST_SMALL = 0.3
"""Share of the layers' changed modules that must be of small rank: nobody trains all the others beside an
adapter, nor the layers beside one of tokens."""
TOKENS = frozenset((*EMBEDDINGS, *HEADS))


@dataclass(frozen=True, slots=True)
class Findings:
    """Everything that was read."""

    original: WeightReader
    fork: WeightReader
    pairing: Pairing
    layers: Mapping[int, int]
    """Layer of the fork → layer of the original; empty when nothing is known."""
    seen: tuple[Seen, ...]
    probes: Probes
    known_to_differ: bool = False
    """The files are not the original's, by their hashes."""

    @property
    def changed(self) -> tuple[Seen, ...]:
        """Pairs whose rows differ."""
        return tuple(seen for seen in self.seen if seen.changed)

    @property
    def matrices(self) -> tuple[Seen, ...]:
        """The changed ones that are matrices."""
        return tuple(seen for seen in self.changed if seen.pair.is_matrix)


def name_edits(findings: Findings) -> tuple[Edit, ...]:
    """All edits that the bands are consistent with."""
    surgery = layer_surgery(findings)
    vocabulary = _vocabulary(findings)
    shuffled = frozenset(module for edit in vocabulary for module in edit.detail.modules)
    edits = [*_container(findings), *surgery, *vocabulary, *_values(findings, shuffled)]
    if not edits:
        same_headers = findings.original.headers == findings.fork.headers
        edits.append(
            nothing_seen(
                findings.seen,
                findings.pairing,
                same_headers=same_headers,
                known_to_differ=findings.known_to_differ,
            )
        )
    return tuple(edits)


def layer_surgery(findings: Findings) -> tuple[Edit, ...]:
    """Layers dropped, repeated, reordered or new."""
    before, numbers = len(layer_numbers(findings.original)), layer_numbers(findings.fork)
    if findings.layers:
        edits = find_layer_surgery(findings.layers, before, numbers)
        return tuple(replace(edit, certainty=Certainty.CONSISTENT) for edit in edits)
    if before == len(numbers):
        return ()
    evidence = (Evidence("layers", len(numbers), f"the original has {before}"),)
    return (Edit(EditKind.LAYER_SURGERY, Certainty.CONSISTENT, EditDetail(), evidence),)


def _container(findings: Findings) -> list[Edit]:
    matrices = [seen for seen in findings.seen if seen.pair.is_matrix]
    schemes: Counter[str] = Counter()
    for seen in matrices:
        scheme = seen.via or seen.rounded or seen.pair.fork.dtype
        if scheme != seen.pair.original.dtype:
            schemes[scheme] += math.prod(seen.pair.fork.shape)
    for pair in findings.pairing.pairs:  # matrices that were not read, or cannot be decoded
        if not matrices and pair.is_matrix and pair.fork.dtype != pair.original.dtype:
            schemes[pair.fork.dtype] += math.prod(pair.fork.shape)
    if not schemes:
        return []
    scheme = max(schemes, key=lambda name: (not is_float(name), schemes[name], name))
    if is_float(scheme):
        through = sum(seen.via == scheme for seen in matrices)
        evidence = [Evidence("container", findings.fork.format, "types as its header states them")]
        if through:
            evidence.append(
                Evidence("passed-through", scheme, f"reproduces the sampled rows of {through} matrices")
            )
        return [Edit(EditKind.DTYPE_CAST, Certainty.CONSISTENT, EditDetail(scheme=scheme), tuple(evidence))]
    coded = [seen for seen in matrices if not is_float(seen.via or seen.rounded or seen.pair.fork.dtype)]
    same = sum(seen.equal or bool(seen.via) for seen in coded)
    error = median([seen.relative_norm for seen in coded] or [0.0])
    evidence = [
        Evidence("container", findings.fork.format, "types as its header states them"),
        Evidence("recreated-tensors", same, f"of {len(coded)}: the sampled rows follow from the original's"),
        Evidence("relative-error", round(error, 5), "of the sampled rows; a smaller change would be hidden"),
    ]
    return [Edit(EditKind.QUANTIZED, Certainty.CONSISTENT, EditDetail(scheme=scheme), tuple(evidence))]


def _vocabulary(findings: Findings) -> list[Edit]:
    for pair in findings.pairing.reshaped:
        if pair.name in TOKENS and pair.original.shape[1:] == pair.fork.shape[1:]:
            rows = (Evidence("rows", pair.fork.shape[0], f"the original has {pair.original.shape[0]}"),)
            detail = EditDetail(modules=(pair.module,))
            return [Edit(EditKind.VOCABULARY_CHANGE, Certainty.CONSISTENT, detail, rows)]
    replaced = [seen for seen in findings.matrices if seen.pair.name in TOKENS and _replaced(seen)]
    moved, read = moved_rows(replaced, findings.original, findings.fork)
    if not moved or 2 * moved < read:
        return []
    evidence = (Evidence("rows-moved", moved, f"of {read}, like exactly one row at another place"),)
    modules = module_names([seen.pair for seen in replaced])
    detail = EditDetail(modules=modules)
    return [Edit(EditKind.VOCABULARY_CHANGE, Certainty.CONSISTENT, detail, evidence)]


def _values(findings: Findings, shuffled: frozenset[str]) -> list[Edit]:
    """Edits of values: directions, small ranks, fine-tunes, and what no band tells.

    Args:
        findings: what was read.
        shuffled: modules whose rows were moved.
    """
    found = findings.probes.direction
    edits = [] if found is None else [_directional(found, findings)]
    shapes = _shapes(findings)
    forms = _forms(findings, shapes, shuffled)
    spread = [seen for seen in forms[Form.UNDECIDED] if not _no_edit(seen)]
    trained, beside = [*forms[Form.DENSE], *spread], None
    if trained and not forms[Form.LOW] and not _low_all_the_same(findings):
        beside = trained_beside(trained, findings.seen, _same_tokens(findings))
    # Dense token matrices say nothing of the layers: adapters train them when tokens are added.
    settled_layers = any(seen.pair.layer is not None for seen in forms[Form.DENSE]) or beside is not None
    if settled_layers and not forms[Form.LOW]:
        forms[Form.DENSE] += spread
    if forms[Form.LOW]:
        edits.append(_low_rank(forms[Form.LOW], shapes))
    if forms[Form.DENSE]:
        edits.append(_finetune(forms, findings, shapes, beside))
    if forms[Form.UNDECIDED] and not (forms[Form.LOW] or settled_layers):
        edits.append(_undecided(forms[Form.UNDECIDED]))
    if not findings.matrices:
        edits += _vectors(findings)
    return edits + _broken(findings)


def _shapes(findings: Findings) -> dict[str, Shape]:
    """What the probes say of each module; small ranks only where they agree, and are small."""
    shapes = {module: settled(probes) for module, probes in findings.probes.shapes.items()}
    agreed = _agreed(findings)
    small = {
        module: shape.rank
        for module, shape in shapes.items()
        if shape.form is Form.LOW and shape.rank <= SMALL * _narrowest(findings, module)
    }
    probed = {seen.pair.module for seen in findings.matrices if seen.pair.layer is not None} & shapes.keys()
    probed = {module for module in probed if shapes[module].form is not Form.NONE}
    if len(probed & small.keys()) < FEWEST_SMALL * len(probed):
        small = {}

    def holds(module: str, shape: Shape) -> bool:
        return agreed and (module in small or any(_close([rank, shape.rank]) == 2 for rank in small.values()))

    return {
        module: Shape(Form.UNDECIDED) if shape.form is Form.LOW and not holds(module, shape) else shape
        for module, shape in shapes.items()
    }


def _narrowest(findings: Findings, module: str) -> int:
    """Largest rank that a probed matrix of this module can have."""
    return min(min(pair.fork.shape) for pair, _ in findings.probes.shapes[module])


def _forms(
    findings: Findings, shapes: Mapping[str, Shape], shuffled: frozenset[str]
) -> dict[Form, list[Seen]]:
    """The changed matrices by what their change looks like."""
    found = findings.probes.direction
    forms: dict[Form, list[Seen]] = {form: [] for form in Form}
    highest = max((shape.rank for shape in shapes.values() if shape.form is Form.LOW), default=0)
    for seen in findings.matrices:
        shape = shapes.get(seen.pair.module, Shape(Form.UNDECIDED))
        form = shape.form
        moved = seen.pair.module in shuffled and _replaced(seen)
        if moved or (found is not None and _accounted(seen.pair, found, shape)):
            form = Form.NONE
        elif _no_edit(seen) or (form is Form.DENSE and shape.rank < highest):
            form = Form.UNDECIDED
        forms[form].append(seen)
    return forms


def _accounted(pair: Pair, found: Found, shape: Shape) -> bool:
    """The directions are all there is, as far as anybody can tell.

    Nothing is left beside them in a writer. In the embedding, which plain ablations change as well, the
    change has their rank.
    """
    if is_writer(pair):
        return shape.form in {Form.NONE, Form.UNDECIDED}
    return pair.name in EMBEDDINGS and (
        (shape.form is Form.LOW and shape.rank <= found.count) or shape.form is Form.UNDECIDED
    )


def _replaced(seen: Seen) -> bool:
    """Rows exchanged for others, as by a permutation, or turned."""
    return seen.relative_norm > REPLACED


def _no_edit(seen: Seen) -> bool:
    """Other rows, rows times factors, zeros, or most rows left alone: no name follows from the form."""
    return _replaced(seen) or seen.rescaled or seen.zeroed or seen.moved_rows < WIDE_ROWS


def _agreed(findings: Findings) -> bool:
    """Most probes of low rank find about the same one, and norms were not trained along with them."""
    vectors = [seen for seen in findings.seen if not seen.pair.is_matrix and seen.pair.layer is not None]
    if vectors and 2 * sum(seen.changed and not seen.small for seen in vectors) >= len(vectors):
        return False
    ranks = [shape.rank for shape in _probed(findings) if shape.form is Form.LOW]
    return _close(ranks) >= AGREE * len(ranks)


def _low_all_the_same(findings: Findings) -> bool:
    """Most probes find about the same small rank, whatever else changed: it may be an adapter."""
    probed = _probed(findings)
    ranks = [shape.rank for shape in probed if shape.form is Form.LOW]
    return bool(ranks) and _close(ranks) >= AGREE * len(probed)


def _probed(findings: Findings) -> list[Shape]:
    return [shape for probes in findings.probes.shapes.values() for _, shape in probes]


def _close(ranks: Sequence[int]) -> int:
    """How many are about as large as the middle one."""
    middle = sorted(ranks)[len(ranks) // 2] if ranks else 0
    return sum(0.75 * middle <= rank <= 1.25 * middle for rank in ranks)


def _directional(found: Found, findings: Findings) -> Edit:
    changed = [
        seen.pair for seen in findings.seen if is_writer(seen.pair) and (seen.changed or seen.explained)
    ]
    modules = {pair.module for pair in found.pairs}
    touched = [pair for pair in changed if pair.module in modules]
    evidence = (
        Evidence(
            "shared-direction-cosine", round(found.shared, 4), f"median over {len(found.pairs)} matrices"
        ),
        Evidence("within-layer-cosine", round(found.within, 4), "median over layers"),
        Evidence("leading-share", round(found.leading, 4), "median share of a band's change along it"),
        Evidence(
            "alignment",
            round(found.alignment, 4),
            "of the direction seen with the one the input side implies",
        ),
        Evidence("row-norms-restored", found.keeps_norms, "rows have the lengths they had"),
    )
    detail = EditDetail(
        rank=found.count,
        strength=None if found.strength is None else round(found.strength, 2),
        modules=module_names(touched),
        layers=layer_range(touched),
    )
    return Edit(EditKind.DIRECTIONAL_EDIT, Certainty.CONSISTENT, detail, evidence)


def _low_rank(low: Sequence[Seen], shapes: Mapping[str, Shape]) -> Edit:
    pairs = [seen.pair for seen in low]
    ranks = sorted(shapes[module].rank for module in {pair.module for pair in pairs})
    scale = median(seen.relative_norm for seen in low)
    evidence = (
        Evidence("ranks", ", ".join(map(str, ranks)), "by module, of the rows that were read"),
        Evidence("changed-matrices", len(low)),
    )
    detail = EditDetail(
        rank=Counter(ranks).most_common(1)[0][0],
        modules=module_names(pairs),
        layers=layer_range(pairs),
        scale=round(scale, 6),
    )
    return Edit(EditKind.LOW_RANK_MERGE, Certainty.CONSISTENT, detail, evidence)


def _finetune(
    forms: Mapping[Form, Sequence[Seen]],
    findings: Findings,
    shapes: Mapping[str, Shape],
    beside: Evidence | None,
) -> Edit:
    """A dense change; matrices that a directional edit accounts for do not say whether it is everywhere."""
    dense, accounted = forms[Form.DENSE], {seen.pair.name for seen in forms[Form.NONE]}
    pairs = [seen.pair for seen in dense]
    readable = [
        seen
        for seen in findings.seen
        if seen.pair.is_matrix and seen.pair.layer is not None and seen.pair.name not in accounted
    ]
    touched = sum(pair.layer is not None for pair in pairs)
    share = touched / len(readable) if readable else 1.0
    above = [shape.rank for shape in shapes.values() if shape.form is Form.DENSE]
    size = round(median(seen.relative_norm for seen in dense), 6)
    evidence = [
        Evidence("changed-layer-matrices", touched, f"of {len(readable)} that were read"),
        Evidence("relative-norm", size, "median of ‖Δ‖ / ‖W‖"),
    ]
    if above:
        evidence.insert(1, Evidence("rank-above", min(above), "of the rows that were read"))
    if beside is not None:
        evidence.append(beside)
    kind = EditKind.FULL_FINETUNE if share >= FULL else EditKind.PARTIAL_FINETUNE
    detail = EditDetail(modules=module_names(pairs), layers=layer_range(pairs))
    return Edit(kind, Certainty.CONSISTENT, detail, tuple(evidence))


def _same_tokens(findings: Findings) -> frozenset[str]:
    """Names of the token matrices; none where the vocabulary is another, as adapters train the new tokens."""
    grown = any(pair.name in TOKENS for pair in findings.pairing.reshaped)
    return frozenset() if grown else TOKENS


def _undecided(seen: Sequence[Seen]) -> Edit:
    pairs = [each.pair for each in seen]
    note = "the rows that were read do not tell a low-rank from a dense change, or from a patch"
    evidence = [Evidence("changed-matrices", len(pairs), note)]
    if replaced := sum(map(_replaced, seen)):
        note = "hold other values altogether: exchanged, or a copy that was permuted, scaled or rotated"
        evidence.append(Evidence("replaced-matrices", replaced, note))
    if scaled := sum(each.rescaled for each in seen):
        note = "rows or columns times factors, as folded norm gains leave them"
        evidence.append(Evidence("rescaled-matrices", scaled, note))
    if zeroed := sum(each.zeroed for each in seen):
        note = "have zeros that the original does not have, as pruning leaves them"
        evidence.append(Evidence("pruned-matrices", zeroed, note))
    detail = EditDetail(modules=module_names(pairs), layers=layer_range(pairs))
    return Edit(EditKind.UNKNOWN, Certainty.UNKNOWN, detail, tuple(evidence))


def _vectors(findings: Findings) -> list[Edit]:
    """Norms and biases only: rounding of a format round trip, or a fine-tune of them alone."""
    vectors = findings.changed
    if not vectors:
        return []
    hidden = sum(seen.explained for seen in findings.seen)
    if hidden and not all(seen.small for seen in vectors):
        note = "norms and biases; a change of the matrices may be hidden by their rounding"
        evidence = Evidence("changed-vectors", len(vectors), note)
        return [Edit(EditKind.UNKNOWN, Certainty.UNKNOWN, EditDetail(), (evidence,))]
    if all(seen.small for seen in vectors):
        if any(seen.via for seen in findings.seen):
            return []  # the container's edit says so already
        evidence = Evidence("rounding-only-tensors", len(vectors), "no value moved by more than one step")
        return [Edit(EditKind.REPACKAGED, Certainty.CONSISTENT, EditDetail(), (evidence,))]
    pairs = [seen.pair for seen in vectors]
    detail = EditDetail(modules=module_names(pairs), layers=layer_range(pairs))
    evidence = Evidence(
        "changed-vectors", len(vectors), "norms and biases; no sampled row of a matrix changed"
    )
    return [Edit(EditKind.PARTIAL_FINETUNE, Certainty.CONSISTENT, detail, (evidence,))]


def _broken(findings: Findings) -> list[Edit]:
    broken = sum(seen.broken > 0 for seen in findings.seen)
    if not broken:
        return []
    evidence = Evidence("non-finite-tensors", broken, "hold infinities or no numbers")
    return [Edit(EditKind.UNKNOWN, Certainty.UNKNOWN, EditDetail(), (evidence,))]
