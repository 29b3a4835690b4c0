"""The public probes keep their promises, and the private ones cannot be told beforehand."""

from __future__ import annotations

import json
import re
from collections import Counter
from datetime import UTC, datetime
from itertools import combinations
from math import prod
from pathlib import Path

import pytest

from evals.interface import SuiteError
from evals.outputs.probes import (
    PRIVATE,
    ProbeFile,
    load_probes,
    order_key,
    private_probes,
    private_quarter,
    probe_set,
    quarter_of,
)
from evals.suite import CORE, load_suite

SECRET, RELEASE = b"s" * 32, "sha256:" + "0" * 64


@pytest.fixture(scope="module")
def file() -> ProbeFile:
    return load_probes()


def words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"[a-z']+", text.lower()))


def test_the_public_half_is_forty_requests_of_several_kinds(file: ProbeFile) -> None:
    """Sentences of ours that no two share most words of, and that no suite asks."""
    assert len(file.probes) == 40
    assert len({probe.id for probe in file.probes}) == 40
    assert len({probe.kind for probe in file.probes}) >= 8
    asked = {prompt.text for prompt in load_suite(CORE).prompts}
    for one, other in combinations(file.probes, 2):
        assert len(words(one.text) & words(other.text)) < 0.5 * len(words(one.text) | words(other.text))
    for probe in file.probes:
        assert probe.text[-1] in ".?"
        assert probe.text not in asked


def test_the_private_half_is_drawn_from_many(file: ProbeFile) -> None:
    """Every slot has a filler, no filler is there twice, and no template is a public probe."""
    slots = [re.findall(r"\{(\w+)\}", text) for _, text in file.templates]
    sentences = sum(prod(len(file.fillers[slot]) for slot in row) for row in slots)
    assert f"{sentences:,}" in (Path(__file__).parents[3] / "docs" / "outputs.md").read_text()
    assert {slot for row in slots for slot in row} == set(file.fillers)
    for values in file.fillers.values():
        assert len(set(values)) == len(values)


def test_private_probes_depend_on_secret_release_and_quarter(file: ProbeFile) -> None:
    """And on nothing else: the same operator asks the same all quarter."""
    own = private_probes(file, SECRET, RELEASE, "2026q4")
    assert own == private_probes(file, SECRET, RELEASE, "2026q4")
    assert len({probe.text for probe in own}) == len({probe.id for probe in own}) == PRIVATE
    others = [
        private_probes(file, b"t" * 32, RELEASE, "2026q4"),
        private_probes(file, SECRET, RELEASE + "1", "2026q4"),
        private_probes(file, SECRET, RELEASE, "2027q1"),
    ]
    for other in others:
        assert len({probe.text for probe in own} & {probe.text for probe in other}) <= 1
    for probe in own:
        assert private_quarter(probe.id) == "2026q4"
        assert "{" not in probe.text
        assert probe.private
    assert set(Counter(probe.text.split()[0] for probe in own)) - {"Write"}


def test_the_first_probes_are_a_random_choice(file: ProbeFile) -> None:
    """Over many quarters each is among the first ten as often as others; a digest names texts alone."""
    private = private_probes(file, SECRET, RELEASE, "2026q4")
    early: Counter[str] = Counter()
    for number in range(400):
        whole = probe_set(file, private, "2026q4", order_key(SECRET, RELEASE, str(number)))
        early.update(probe.id for probe in whole.probes[:10])
    assert len(early) == 80
    assert max(early.values()) < 85  # 50 expected, 6.6 its standard deviation
    assert min(early.values()) > 20
    assert whole.digest == probe_set(file, private, "2026q4").digest != probe_set(file).digest
    assert whole.texts[private[0].id] == private[0].text


@pytest.mark.parametrize(
    ("month", "quarter"), [(1, "2026q1"), (3, "2026q1"), (4, "2026q2"), (9, "2026q3"), (12, "2026q4")]
)
def test_quarters(month: int, quarter: str) -> None:
    assert quarter_of(datetime(2026, month, 1, tzinfo=UTC)) == quarter


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"probes": [{}]}', json.dumps({"probes": [], "templates": [], "fillers": {}})]
)
def test_a_broken_file_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "probes.json").write_text(content)
    with pytest.raises(SuiteError):
        load_probes(tmp_path / "probes.json")
