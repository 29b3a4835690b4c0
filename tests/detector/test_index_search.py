"""A candidate finds its relatives among known models whatever was done to it, and no others."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from detector.errors import NothingComparedError
from detector.formats import open_weights
from detector.index.fingerprint import Identity, ModelKind, band_rows, take_fingerprint
from detector.index.search import FOUND_LOG10_P, correct, relate, search_index
from detector.index.signature import SIZE, count_sketch, gain_ranks
from detector.index.storage import file_name, save_fingerprint
from detector.interface import LineageStatus
from detector.lineage import sample_bands
from tests.detector import zoo
from tests.detector.disguises import DISGUISES, permuted, rotated
from tests.detector.forks import relayered
from tests.detector.index_models import fingerprint, keep
from tests.detector.zoo import Weights, one_file, sharded

PARENT = 7


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return keep(tmp_path_factory.mktemp("index"), range(20))


def larger_vocabulary(weights: Weights) -> Weights:
    rows = weights["model.embed_tokens.weight"]
    return weights | {"model.embed_tokens.weight": torch.cat([rows, rows[:64] * 0.5])}


def fused(weights: Weights) -> Weights:
    """Gate and up-projection in one matrix, as Phi-3 stores them."""
    made = {name: value for name, value in weights.items() if "gate_proj" not in name}
    for name, value in weights.items():
        if "gate_proj" in name:
            made[name.replace("gate_proj", "gate_up_proj")] = torch.cat(
                [value, made.pop(name.replace("gate_proj", "up_proj"))]
            )
    return made


def prefixed(weights: Weights) -> Weights:
    return {f"model.language_{name}": value for name, value in weights.items()}


EDITS: dict[str, Callable[[Weights], Weights]] = {
    "untouched": lambda weights: weights,
    "fine-tuned by 1 %": lambda weights: zoo.dense(weights, 1, 0.01),
    "fine-tuned by 20 %": lambda weights: zoo.dense(weights, 1, 0.2),
    "direction removed": lambda weights: zoo.project(weights, 1),
    "cast": lambda weights: zoo.cast(weights, torch.float16),
    "larger vocabulary": larger_vocabulary,
    "prefixed": prefixed,
    "fused": fused,
    "layer dropped": lambda weights: relayered([0, 1, 3])(weights, 0),
    "layers repeated": lambda weights: relayered([0, 1, 0, 1, 2, 3])(weights, 0),
    "layers reversed": lambda weights: relayered([3, 2, 1, 0])(weights, 0),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS.keys())
def test_the_parent_is_found_and_nobody_else(index: Path, edit: Callable[[Weights], Weights]) -> None:
    """The one parent among twenty models is named and proved, whatever was done."""
    found = search_index(index, fingerprint(edit(zoo.base(PARENT))))

    assert [relation.identity.name for relation in found.related] == [str(PARENT)]
    assert found.status is LineageStatus.PROVED
    assert found.related[0].by == "matched-neurons"


@pytest.mark.parametrize("scheme", ["Q4_0", "Q8_0"])
def test_the_parent_of_a_quantised_model_is_found(index: Path, tmp_path: Path, scheme: str) -> None:
    """Other names, another container and a quantisation do not hide the parent."""
    found = search_index(index, fingerprint(zoo.gguf_file(zoo.base(PARENT), scheme, tmp_path)))

    assert [relation.identity.name for relation in found.related] == [str(PARENT)]


def test_both_parents_of_a_merge_are_found(index: Path) -> None:
    """A mean of two models has both as relatives."""
    first, second = zoo.base(3), zoo.base(4)
    merged = {name: (first[name].float() / 2 + second[name].float() / 2).bfloat16() for name in first}

    assert {relation.identity.name for relation in search_index(index, fingerprint(merged)).related} == {
        "3",
        "4",
    }


def test_permuted_neurons_are_found_by_gains(index: Path) -> None:
    """A shuffle hides the neurons from their test, and leaves the gains: consistent-with, not proved."""
    found = search_index(index, fingerprint(permuted(zoo.base(PARENT), 0)))

    assert [relation.identity.name for relation in found.related] == [str(PARENT)]
    assert (found.status, found.related[0].by) == (LineageStatus.CONSISTENT, "norm-gains")


@pytest.mark.parametrize("disguise", DISGUISES.values(), ids=DISGUISES.keys())
def test_a_disguised_copy_is_not_called_unrelated(
    index: Path, disguise: Callable[[Weights, int], Weights]
) -> None:
    """What keeps the function and moves the weights may hide a relation, and never denies it."""
    candidate = fingerprint(disguise(zoo.base(PARENT), 3))

    found = search_index(index, candidate, always=[file_name(str(PARENT))])

    status = {relation.identity.name: relation.status for relation in found.relations}
    assert status[str(PARENT)] is not LineageStatus.UNRELATED
    assert {relation.identity.name for relation in found.related} <= {str(PARENT)}


def test_a_rotated_copy_is_found_by_its_angles(index: Path) -> None:
    """A rotation leaves no signature; a release, which is always judged, proves it by the angles."""
    candidate = fingerprint(rotated(zoo.base(PARENT), 3))

    related = search_index(index, candidate, always=[file_name(str(PARENT))]).related

    assert [(relation.identity.name, relation.by) for relation in related] == [
        (str(PARENT), "matched-angles")
    ]


def test_moved_layers_are_counted(index: Path) -> None:
    """A repeated layer is traced to its source, and the layers after it are said to have moved."""
    relation = search_index(index, fingerprint(relayered([0, 1, 1, 2, 3])(zoo.base(PARENT), 0))).related[0]

    assert (relation.aligned, relation.moved, relation.same_inventory) == (5, 3, False)


def test_independent_models_are_unrelated_to_all(index: Path) -> None:
    """8 new models against 20 known ones: every pair is unrelated, no corrected p-value is under 0.01."""
    relations = []
    for seed in range(100, 108):
        found = search_index(
            index, fingerprint(zoo.base(seed)), always=[file_name(str(n)) for n in range(20)]
        )
        assert found.status is LineageStatus.UNRELATED
        relations.extend(found.relations)

    assert len(relations) == 160
    assert min(relation.corrected_log10_p for relation in relations) > -2


def test_a_model_is_read_once(index: Path) -> None:
    """Of the candidate only the fingerprint is read: headers, a band and a gain a layer, embedding rows."""
    reader = open_weights(one_file(zoo.base(PARENT)))
    headers = reader.bytes_read
    candidate = take_fingerprint(reader, Identity(name="candidate", kind=ModelKind.CANDIDATE))
    spent = reader.bytes_read - headers
    search_index(index, candidate)

    rows, gains = 4 * 32 + 64, 4
    assert spent == (rows + gains) * zoo.SMALL.hidden * 2
    assert reader.bytes_read == headers + spent


def test_resharding_changes_nothing() -> None:
    """The same tensors in three files give the same signatures and inventory."""
    one, three = fingerprint(zoo.base(1)), fingerprint(sharded(zoo.base(1)))

    assert np.array_equal(one.signatures, three.signatures)
    assert one.shape.inventory == three.shape.inventory
    assert one.shape.headers != three.shape.headers


def test_bands_are_those_of_the_lineage_test() -> None:
    """What the index keeps of a model is what `sample_bands` reads of it, so that a diff can use either."""
    reader = open_weights(one_file(zoo.base(1)))
    expected, kept = sample_bands(reader, reader)[0], fingerprint(zoo.base(1)).bands

    assert kept.layers.keys() == expected.layers.keys()
    assert kept.kind == expected.kind
    assert all(np.array_equal(kept.gains[layer], expected.gains[layer]) for layer in expected.gains)
    assert all(np.array_equal(kept.layers[layer], expected.layers[layer]) for layer in expected.layers)
    assert kept.embedding is not None
    assert expected.embedding is not None
    assert np.array_equal(kept.embedding, expected.embedding)


def test_an_adapter_has_no_fingerprint() -> None:
    """Factors alone hold none of the base's numbers: an error, not a search among strangers."""
    with pytest.raises(NothingComparedError, match="adapter"):
        fingerprint(zoo.adapter_files(zoo.base(1), 2))


def test_a_file_without_layers_has_no_fingerprint() -> None:
    with pytest.raises(NothingComparedError, match="no feed-forward"):
        fingerprint({"embedding.weight": torch.ones(4, 4)})


def test_the_known_copy_of_the_candidate_is_left_out(tmp_path: Path) -> None:
    """A repository is not its own ancestor."""
    from dataclasses import replace

    made = fingerprint(zoo.base(1), "org/name@1")
    own = replace(made, identity=replace(made.identity, repo="org/name", commit="a" * 40))
    save_fingerprint(tmp_path, own)
    save_fingerprint(tmp_path, fingerprint(zoo.base(2), "other"))

    found = search_index(tmp_path, own)

    assert (found.known, found.status) == (1, LineageStatus.UNRELATED)
    assert search_index(tmp_path, made).related[0].identity.repo == "org/name"


def test_another_width_is_not_compared(index: Path) -> None:
    """Models of another width are neither related nor called unrelated."""
    found = search_index(index, fingerprint(zoo.base(1, zoo.Shape(hidden=64, inter=160))))

    assert (found.known, found.comparable, found.status) == (20, 0, LineageStatus.UNKNOWN)


def test_shuffled_neurons_without_gains_are_not_called_unrelated(index: Path) -> None:
    """Where neither test can see a relation, matching token rows leave a doubt: unknown, not unrelated."""
    flat = {
        name: torch.ones_like(value) if "norm" in name else value
        for name, value in permuted(zoo.base(PARENT), 0).items()
    }

    found = search_index(index, fingerprint(flat), always=[file_name(str(PARENT))])

    status = {relation.identity.name: relation.status for relation in found.relations}
    assert (found.status, status[str(PARENT)]) == (LineageStatus.UNKNOWN, LineageStatus.UNKNOWN)


def test_holm_corrects_for_everybody_searched(index: Path) -> None:
    """A p-value that is small for one pair is not so for one of a million; order is kept."""
    from dataclasses import replace

    one = relate(fingerprint(zoo.base(1)), fingerprint(zoo.base(1)))
    relations = [replace(one, log10_p=value, status=LineageStatus.CONSISTENT) for value in (-7, -7, -20, -5)]

    few, many = correct(relations, 4), correct(relations, 1_000_000)

    assert sorted(relation.corrected_log10_p for relation in many) == [-14, -1, -1, 0]
    assert sum(relation.corrected_log10_p <= FOUND_LOG10_P for relation in few) == 3
    assert [relation.status for relation in many].count(LineageStatus.UNKNOWN) == 3
    corrected = sorted(relation.corrected_log10_p for relation in few)
    assert all(before <= after for before, after in pairwise(corrected))


def test_gains_that_do_not_vary_say_nothing() -> None:
    """Gains of one, as in an untrained model, are no evidence that two models are alike."""
    ones = {name: torch.ones_like(value) if "norm" in name else value for name, value in zoo.base(1).items()}
    others = {
        name: torch.ones_like(value) if "norm" in name else value for name, value in zoo.base(2).items()
    }

    assert fingerprint(ones).gain_codes is None
    assert gain_ranks([np.ones(8, np.float32)] * 3) is None
    assert relate(fingerprint(ones), fingerprint(others)).by == "matched-neurons"


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9, 0.99])
def test_signatures_keep_cosines(correlation: float) -> None:
    """The cosine of two sketches estimates the vectors' own within 4 standard deviations of 1/√SIZE."""
    rng = np.random.Generator(np.random.PCG64(5))
    left, noise = rng.standard_normal((2, 50, 4096)).astype(np.float32)
    right = correlation * left + math.sqrt(1 - correlation**2) * noise

    cosines = (count_sketch(left, SIZE) * count_sketch(right, SIZE)).sum(1)

    spread = (1 - correlation**2) / math.sqrt(SIZE)
    assert abs(cosines.mean() - correlation) < 4 * spread / math.sqrt(50) + 0.002
    assert abs(cosines - correlation).max() < 5 * spread + 0.002


def test_large_models_hold_fewer_neurons_a_layer() -> None:
    """Rows follow from the shape: 8B and 70B shapes hold 8 of each layer, small ones 32."""
    assert [band_rows(*shape) for shape in ((4, 128), (16, 2048), (24, 2560), (32, 4096), (80, 8192))] == [
        32,
        32,
        16,
        8,
        8,
    ]
