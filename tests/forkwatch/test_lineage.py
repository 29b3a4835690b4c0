"""`forkwatch lineage` and `forkwatch index` through the command line, against a Hub of our own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from detector.provenance.sign import sign_release
from forkwatch.demo.hub import LoopbackHub
from tests.detector import zoo
from tests.detector.zoo import safetensors_bytes
from tests.forkwatch.conftest import Run
from tests.forkwatch.family import Family
from tests.forkwatch.two_releases import FIRST, SECOND, publish, two_releases


@pytest.fixture
def family(tmp_path: Path) -> Iterator[Family]:
    with two_releases(tmp_path) as made:
        yield made


def lineage(family: Family, target: object) -> dict[str, Any]:
    """The document of a search that must have had something to compare with."""
    done = family.run("lineage", str(target), "--json")
    assert done.exit_code == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def known(family: Family) -> dict[str, str]:
    """Kind of each known model."""
    document = json.loads(family.run("index", "list", "--json").stdout)
    assert document["schema"] == "forkwatch.index/1"
    return {model["name"]: model["kind"] for model in document["models"]}


def test_a_fork_is_placed_among_releases(family: Family) -> None:
    """Its release is proved and first, the other is unrelated, and the card's claim is supported."""
    document = lineage(family, "ann/tuned")

    assert document["schema"] == "forkwatch.lineage/1"
    assert [(model["repo"], model["status"]) for model in document["models"]] == [
        (FIRST, "proved"),
        (SECOND, "unrelated"),
    ]
    assert document["claimed"] == [{"repo": FIRST, "standing": "supported"}]
    assert (document["status"], document["searched"]["known"]) == ("proved", 2)
    best = document["models"][0]
    assert best["matched"] == best["compared"] == 128
    assert best["corrected_log10_p"] < -100
    assert best["root_digest"].startswith("sha256:")


def test_the_candidate_is_read_by_ranges(family: Family) -> None:
    """A fraction of the file is asked for, and none of it is kept."""
    large = family.state / "cache" / "sha256"
    before = sorted(large.rglob("*"))

    document = lineage(family, "ann/tuned")

    assert 0 < document["cost"]["bytes_downloaded"] < document["cost"]["bytes_total"] / 4
    assert sorted(large.rglob("*")) == before


def test_a_false_claim_is_told(family: Family) -> None:
    """A card that names the other release is not supported by the weights."""
    publish(family.hub, "bob/liar", zoo.dense(zoo.base(1), 6, 0.05), SECOND, "some/thing")

    document = lineage(family, "bob/liar")

    assert document["claimed"] == [
        {"repo": SECOND, "standing": "not-supported"},
        {"repo": "some/thing", "standing": "not-known"},
    ]
    shown = family.run("lineage", "bob/liar")
    assert shown.exit_code == 0
    assert f"the card claims {SECOND}: not-supported" in shown.stdout
    assert f"shares ancestry with {FIRST}" in shown.stdout


def test_a_stranger_is_unrelated_to_all(family: Family) -> None:
    """It is said in so many words, with the number of models it was compared with."""
    publish(family.hub, "eve/stranger", zoo.base(50))

    document = lineage(family, "eve/stranger")

    assert document["status"] == "unrelated"
    assert document["summary"] == "unrelated to all 2 known models"


def test_folder_and_file(family: Family, tmp_path: Path) -> None:
    """A folder and a single file are read like a repository."""
    folder = tmp_path / "local"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(safetensors_bytes(zoo.lora(zoo.base(2), 3)))
    gguf = tmp_path / "local.gguf"
    gguf.write_bytes(next(iter(zoo.gguf_file(zoo.base(2), "Q4_0", tmp_path).values())).data)

    for target in (folder, folder / "model.safetensors", gguf):
        assert lineage(family, target)["models"][0]["repo"] == SECOND


def test_a_model_is_added_found_and_removed(family: Family) -> None:
    """What the user added is searched like a release, and no longer after it was removed."""
    commit = publish(family.hub, "cyd/other", zoo.base(30))
    publish(family.hub, "cyd/child", zoo.dense(zoo.base(30), 1, 0.02))

    assert family.run("index", "add", "cyd/other").exit_code == 0
    assert known(family)[f"cyd/other@{commit}"] == "model"
    assert lineage(family, "cyd/child")["models"][0]["name"] == f"cyd/other@{commit}"
    assert lineage(family, "cyd/other")["status"] == "unrelated", "a model is not its own relative"

    assert family.run("index", "remove", f"cyd/other@{commit}").exit_code == 0
    assert lineage(family, "cyd/child")["status"] == "unrelated"
    assert family.run("index", "remove", f"cyd/other@{commit}").exit_code == 2


def test_names(family: Family, tmp_path: Path) -> None:
    """A name is the user's to choose, but not a release's, nor one that a terminal would act on."""
    file = tmp_path / "base.safetensors"
    file.write_bytes(safetensors_bytes(zoo.base(30)))
    release = next(name for name, kind in known(family).items() if kind == "release")

    assert family.run("index", "add", str(file), "--name", "mine").exit_code == 0
    assert "mine" in known(family)
    assert family.run("index", "add", str(file), "--name", release).exit_code == 2
    assert family.run("index", "add", str(file), "--name", "a\x1b[2J").exit_code == 2
    assert family.run("index", "add", str(tmp_path / "nothing")).exit_code == 2


def test_releases_are_known_by_themselves(family: Family) -> None:
    """`release add` makes a fingerprint; one that is lost or damaged is made again when it is needed."""
    assert sorted(known(family).values()) == ["release", "release"]
    index = family.state / "index"
    for path in index.glob("*.safetensors"):
        path.write_bytes(b"\0" * 100)
    assert family.run("index", "list").exit_code == 0

    assert lineage(family, "ann/tuned")["models"][0]["repo"] == FIRST
    shutil.rmtree(index)
    assert family.run("release", "verify").exit_code == 0
    assert sorted(known(family).values()) == ["release", "release"]


def test_a_release_that_was_altered_gets_no_fingerprint(family: Family) -> None:
    """A fingerprint is made from verified files only."""
    shutil.rmtree(family.state / "index")
    for path in (family.state / "originals").rglob("model.safetensors"):
        path.write_bytes(path.read_bytes()[:-2] + b"\1\1")

    assert family.run("lineage", "ann/tuned").exit_code == 6
    assert known(family) == {}


def test_a_new_commit_of_a_release_replaces_the_old(family: Family, tmp_path: Path) -> None:
    """The commit that is no longer guarded is no longer known as a release."""
    folder = tmp_path / FIRST
    (folder / "model.sig").unlink()
    (folder / "model.safetensors").write_bytes(safetensors_bytes(zoo.dense(zoo.base(1), 9, 0.01)))
    key = next((tmp_path / "key1").glob("*.pub"))
    sign_release(folder, next(path for path in (tmp_path / "key1").iterdir() if path != key))
    before = set(known(family))
    family.hub.commit(FIRST, {path.name: path for path in folder.iterdir()})

    assert family.run("release", "add", FIRST, "--public-key", str(key)).exit_code == 2
    assert set(known(family)) == before
    assert family.run("release", "add", FIRST, "--public-key", str(key), "--replace").exit_code == 0

    after = set(known(family))
    assert len(after) == 2
    assert len(before & after) == 1


def test_an_empty_index_says_what_to_do(tmp_path: Path) -> None:
    """Nothing to compare with is exit code 3 and a tip, not "unrelated"."""
    with LoopbackHub() as hub:
        publish(hub, "ann/tuned", zoo.base(1))

        done = Family(hub, tmp_path / "state").run("lineage", "ann/tuned")

    assert done.exit_code == 3
    assert "no other model is known" in done.stderr
    assert "forkwatch index add" in done.stderr


def test_what_cannot_be_compared(family: Family, tmp_path: Path) -> None:
    """Another width, an adapter and a damaged file: exit code 3, each with its reason."""
    wide = tmp_path / "wide.safetensors"
    wide.write_bytes(safetensors_bytes(zoo.base(1, zoo.Shape(hidden=64, inter=160))))
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    for name, file in zoo.adapter_files(zoo.base(1), 2).items():
        (adapter / name).write_bytes(file.data)
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(wide.read_bytes()[:-100])

    done = family.run("lineage", str(wide))
    assert done.exit_code == 3
    assert "none of the 2 known models has its width" in done.stdout
    for target, reason in ((adapter, "adapter"), (damaged, "truncated")):
        done = family.run("lineage", str(target))
        assert done.exit_code == 3
        assert reason in done.stderr
    assert family.run("lineage", "no-such-thing").exit_code == 2
    assert family.run("lineage", "ann/nobody").exit_code == 4


def test_hostile_names_reach_no_terminal(family: Family, tmp_path: Path) -> None:
    """A folder's name is shown escaped."""
    folder = tmp_path / "evil\x1b[2J"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(safetensors_bytes(zoo.base(60)))

    done = family.run("lineage", str(folder))

    assert done.exit_code == 0
    assert "\x1b[2J" not in done.stdout + done.stderr
    assert family.run("index", "add", str(folder)).exit_code == 2


def test_trained_models_of_the_demo(run: Run) -> None:
    """Trained weights: fine-tunes and conversions find their release, a model trained apart does not."""
    release = next(row["repo"] for row in json.loads(run("release", "list", "--json").stdout)["releases"])
    expected = {
        "demo/tiny-chat-GGUF": "proved",
        "demo/tiny-chat-storyteller": "proved",
        "demo/tiny-chat-uncensored": "proved",
        "demo/tiny-chat-v2": "unrelated",
    }
    for repo, status in expected.items():
        done = run("lineage", repo, "--json")
        assert done.exit_code == 0, done.stderr
        models = json.loads(done.stdout)["models"]
        assert [(model["repo"], model["status"]) for model in models] == [(release, status)], repo
