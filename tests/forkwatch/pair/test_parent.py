"""`forkwatch diff --parent`: a merge is proved from the other model's weights."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from tests.detector import zoo
from tests.forkwatch.conftest import invoke
from tests.forkwatch.pair.conftest import write


def test_a_merge_is_proved_from_its_parent(models: Path, tmp_path: Path) -> None:
    """Half base, half `tuned`: without the parent a fine-tune, with it a merge, with its share by layer."""
    base = zoo.base(1)
    tuned = zoo.dense(base, 3, 0.02)
    half = {name: ((base[name].float() + tuned[name].float()) / 2).to(torch.bfloat16) for name in base}
    write(tmp_path / "half", zoo.one_file(half))
    sides = (str(models / "base"), str(tmp_path / "half"))

    alone = json.loads(invoke(tmp_path, "diff", *sides, "--json").stdout)
    told = json.loads(invoke(tmp_path, "diff", *sides, "--parent", str(models / "tuned"), "--json").stdout)

    assert [edit["kind"] for edit in alone["edits"]] == ["full-finetune"]
    [edit] = told["edits"]
    assert (edit["kind"], edit["certainty"]) == ("merge", "proved")
    [parent] = edit["detail"]["parents"]
    assert parent["name"] == str(models / "tuned")
    assert all(abs(share - 0.5) < 0.02 for share in parent["weights"])


def test_a_parent_needs_the_full_depth(models: Path, tmp_path: Path) -> None:
    """Sampled rows prove nothing, so the combination is refused with a tip."""
    arguments = (str(models / "base"), str(models / "tuned"), "--parent", str(models / "other"))

    done = invoke(tmp_path, "diff", *arguments, "--depth", "sketch")

    assert done.exit_code == 2
    assert "--depth full" in done.stderr


def test_a_parent_counts_where_it_differs(models: Path, tmp_path: Path) -> None:
    """A parent that changed the attention of every layer only has its share there, not zero."""
    base = zoo.base(1)
    tuned = zoo.dense(base, 3, 0.02)
    partly = zoo.dense(base, 8, 0.02, lambda name: ".q_proj." in name)
    write(tmp_path / "partly", zoo.one_file(partly))
    half = {name: ((tuned[name].float() + partly[name].float()) / 2).to(torch.bfloat16) for name in base}
    write(tmp_path / "half", zoo.one_file(half))
    sides = (str(models / "base"), str(tmp_path / "half"))
    parents = ("--parent", str(models / "tuned"), "--parent", str(tmp_path / "partly"))

    found = json.loads(invoke(tmp_path, "diff", *sides, *parents, "--json").stdout)

    [edit] = found["edits"]
    assert edit["kind"] == "merge"
    for parent in edit["detail"]["parents"]:
        assert all(abs(share - 0.5) < 0.05 for share in parent["weights"]), parent
