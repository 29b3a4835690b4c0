"""Whom a diff is told about as merge parents: known models of the shape, verified weights of guarded ones."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from crawler.interface import Commit, RepoId
from crawler.local import LocalFile
from detector.formats import open_weights
from detector.interface import WeightReader
from detector.lineage import sample_bands
from forkwatch.cli.session import session
from forkwatch.pipeline.context import Context
from forkwatch.pipeline.known import Partners, merge_partners
from forkwatch.pipeline.originals import find_release, open_original
from forkwatch.settings import load_settings
from forkwatch.state import StateDir
from tests.detector import zoo
from tests.detector.zoo import Weights, one_file, safetensors_bytes
from tests.forkwatch.family import Family
from tests.forkwatch.two_releases import FIRST, SECOND, publish, two_releases

FORK, COMMIT = RepoId("ann/merged"), Commit("b" * 40)


@pytest.fixture
def family(tmp_path: Path) -> Iterator[Family]:
    with two_releases(tmp_path) as made:
        yield made


@pytest.fixture
def context(family: Family, monkeypatch: pytest.MonkeyPatch) -> Iterator[Context]:
    for name, value in family.environment().items():
        monkeypatch.setenv(name, value)
    with session(load_settings(), StateDir(family.state)) as made:
        yield made


def mean(*models: Weights) -> Weights:
    return {
        name: (sum(model[name].float() for model in models) / len(models)).bfloat16()  # type: ignore[union-attr]
        for name in models[0]
    }


def partners(context: Context, fork: WeightReader) -> Partners:
    original = open_original(context, find_release(context, FIRST))
    return merge_partners(context, original, fork, FORK, COMMIT)


def repos(names: object) -> set[str]:
    assert hasattr(names, "__iter__")
    return {name.partition("@")[0] for name in names}


def test_the_other_release_is_known_and_a_parent(context: Context) -> None:
    """A mean of two releases: the other one's bands and its verified weights come under one name."""
    found = partners(context, open_weights(one_file(mean(zoo.base(1), zoo.base(2)))))

    assert repos(found.known) == repos(found.parents) == {SECOND}
    name = next(iter(found.parents))
    weights = open_weights(one_file(zoo.base(2)))
    assert torch.equal(found.parents[name].values("model.norm.weight"), weights.values("model.norm.weight"))
    expected = sample_bands(weights, weights)[0].layers
    assert all(np.array_equal(found.known[name].layers[layer], expected[layer]) for layer in expected)


def test_an_unrelated_release_is_no_parent(context: Context) -> None:
    """It stays known, because a merge at a small share may hide from the test, but is not read whole."""
    found = partners(context, open_weights(one_file(zoo.dense(zoo.base(1), 3))))

    assert repos(found.known) == {SECOND}
    assert not found.parents


def test_added_models_are_known_and_the_fork_itself_is_not(family: Family, context: Context) -> None:
    """Known models of the fork's depth and width, without the fork and without other shapes."""
    publish(family.hub, "cyd/other", zoo.base(30))
    fork = publish(family.hub, "ann/merged", zoo.base(31))
    publish(family.hub, "cyd/deeper", zoo.base(32, zoo.Shape(layers=5)))
    publish(family.hub, "cyd/wider", zoo.base(33, zoo.Shape(hidden=192)))
    for repo in ("cyd/other", "ann/merged", "cyd/deeper", "cyd/wider"):
        assert family.run("index", "add", repo).exit_code == 0

    original = open_original(context, find_release(context, FIRST))
    reader = open_weights(one_file(zoo.base(31)))
    found = merge_partners(context, original, reader, RepoId("ann/merged"), Commit(fork))

    assert repos(found.known) == {SECOND, "cyd/other"}


def test_a_release_whose_files_are_gone_is_known_by_its_bands(family: Family, context: Context) -> None:
    """Nothing is fetched for a diff."""
    shutil.rmtree(next((family.state / "originals").glob("lab--Second*")))
    requests = len(family.hub.requests)

    found = partners(context, open_weights(one_file(mean(zoo.base(1), zoo.base(2)))))

    assert repos(found.known) == {SECOND}
    assert not found.parents
    assert len(family.hub.requests) == requests


def test_a_release_without_a_fingerprint_gets_one(family: Family, context: Context) -> None:
    """A state folder from before there was an index serves as well."""
    for path in (family.state / "index").iterdir():
        path.unlink()

    assert repos(partners(context, open_weights(one_file(zoo.base(31)))).known) == {SECOND}


def test_an_altered_release_is_no_parent(family: Family, context: Context) -> None:
    """Weights that no longer verify are not compared with; the bands were verified when they were taken."""
    folder = next((family.state / "originals").glob("lab--Second*/*"))
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-2] + b"\1\1")

    found = partners(context, open_weights(one_file(mean(zoo.base(1), zoo.base(2)))))

    assert repos(found.known) == {SECOND}
    assert not found.parents


def test_an_adapter_has_no_partners(context: Context) -> None:
    found = partners(context, open_weights(zoo.adapter_files(zoo.base(1), 2)))

    assert not found.known
    assert not found.parents


def test_bands_of_a_file_on_disk(tmp_path: Path, context: Context) -> None:
    """A fork that lies on the disk, as a diff has it, is served like one in memory."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors_bytes(mean(zoo.base(1), zoo.base(2))))

    assert repos(partners(context, open_weights({path.name: LocalFile(path)})).parents) == {SECOND}
