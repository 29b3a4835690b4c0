"""Repositories without weights: what is shown of one fits its files; and the GGUF reader."""

from __future__ import annotations

import struct
from pathlib import Path

import gguf as reference
import numpy as np
import pytest
from huggingface_hub import HfApi, hf_hub_download
from hypothesis import given
from hypothesis import strategies as st

from forkwatch.demo.hub import Gguf, LoopbackHub, Sketch
from forkwatch.demo.hub.blobs import BlobFactory
from forkwatch.demo.hub.card import derive
from forkwatch.demo.hub.gguf import read, write
from forkwatch.demo.hub.sketch import sketch_commit
from tests.forkwatch.demo.hub_samples import REPO
from tests.forkwatch.demo.test_hub_listing import DAY

words = st.text("abcXYZ019 :#-'\"\\/é漢", max_size=12)
sketches = st.builds(
    Sketch,
    card=st.one_of(
        st.none(),
        st.fixed_dictionaries(
            {},
            optional={
                "base_model": st.one_of(words, st.lists(words, max_size=2)),
                "base_model_relation": st.sampled_from(["merge", "odd"]),
                "tags": st.lists(words, max_size=3),
                "license": words,
                "extra": st.fixed_dictionaries({"deep": st.lists(st.one_of(st.integers(), st.booleans()))}),
            },
        ),
    ),
    body=words,
    config=st.one_of(st.none(), st.just({"model_type": "llama", "architectures": ["LlamaForCausalLM"]})),
    adapter=st.one_of(st.none(), st.just({"base_model_name_or_path": "lab/base", "task_type": "CAUSAL_LM"})),
    weights=st.one_of(st.none(), st.just({"BF16": 7 * 10**9, "F32": 64})),
    gguf=st.one_of(st.none(), st.just(Gguf(10**9, "llama", 4096)), st.just(Gguf(10**9, None, None))),
    files=st.one_of(
        st.just({}), st.just({"a/b.json": b"{}"}), st.just({"README.md": b"---\ntags: [x]\n---\n"})
    ),
)


@given(sketches)
def test_sketch_is_what_its_files_say(sketch: Sketch) -> None:
    """The facts of a sketch are those that the Hub would derive from its files."""
    commit = sketch_commit(sketch, "", DAY, ())
    derived = derive(dict(commit.files))
    # A front matter without entries is YAML's null.
    assert (commit.facts.card or None, commit.facts.tags) == (derived.card, derived.tags)
    assert commit.facts.parameters == derived.parameters
    assert commit.facts.gguf == derived.gguf
    assert (commit.facts.config, commit.facts.relation) == (derived.config, derived.relation)
    assert list(commit.files) == sorted(commit.files)
    assert all(path in commit.files for path in commit.files)


def test_real_client_reads_a_sketch(hub: LoopbackHub, api: HfApi, tmp_path: Path) -> None:
    """Listing, properties, tree, card, small files and tensor headers of a sketch agree."""
    sketch = Sketch(
        card={"base_model": "lab/base", "tags": ["heretic"]},
        body="# Hello\n",
        config={"model_type": "llama", "architectures": ["LlamaForCausalLM"]},
        weights={"BF16": 7_000_000_000},
        files={"reproduce/reproduce.json": b'{"settings": {"model": "lab/base"}}'},
        salt=REPO,
    )
    hub.create_repo(REPO, sketch=sketch)
    (listed,) = api.list_models(
        filter=["heretic", "base_model:finetune:lab/base"], expand=["sha", "safetensors"]
    )
    info = api.model_info(REPO, files_metadata=True)
    assert listed.sha == info.sha
    assert info.safetensors == listed.safetensors
    assert info.card_data is not None
    assert (info.card_data.base_model, info.card_data.tags) == ("lab/base", ["heretic"])
    tree = {entry.path: entry for entry in api.list_repo_tree(REPO, recursive=True)}
    assert tree.keys() == {*sketch.paths, "reproduce"}
    assert {file.rfilename: file.size for file in info.siblings or ()}["model.safetensors"] == getattr(
        tree["model.safetensors"], "size", None
    )
    card = hf_hub_download(REPO, "README.md", endpoint=hub.endpoint, cache_dir=tmp_path, token=False)
    assert Path(card).read_bytes() == sketch.readme
    assert api.get_safetensors_metadata(REPO).parameter_count == {"BF16": 7_000_000_000}


def test_weights_differ_unless_the_salt_is_the_same() -> None:
    """Two sketches of one shape have different SHA-256s, so that no fork looks like a copy by accident."""
    first, second, copy = (Sketch(weights={"F16": 9}, salt=salt) for salt in ("a", "b", "a"))
    hashes = [
        sketch_commit(sketch, "", DAY, ()).files["model.safetensors"].sha256
        for sketch in (first, second, copy)
    ]
    assert hashes[0] == hashes[2] != hashes[1]


def test_real_commit_builds_on_a_sketch(hub: LoopbackHub, api: HfApi) -> None:
    """Files that are added to a sketch leave what it said in place; a new sketch replaces it."""
    hub.create_repo(REPO, sketch=Sketch(card={"tags": ["x"]}, weights={"F16": 9}))
    hub.commit(REPO, {"NOTES.md": b"new"}, replace=False)
    info = api.model_info(REPO)
    assert info.safetensors is not None
    assert info.safetensors.total == 9
    assert "x" in (info.tags or ())
    hub.commit_sketch(REPO, Sketch(weights={"F16": 10}))
    assert [file.path for file in api.list_repo_tree(REPO)] == ["model.safetensors"]
    assert len(api.list_repo_commits(REPO)) == 3


def test_names_without_namespace_appear_in_lists_only(hub: LoopbackHub, api: HfApi) -> None:
    """As the Hub's oldest models; such a row has no author."""
    hub.create_repo("gpt0", sketch=Sketch(weights={"F32": 1}))
    (row,) = api.list_models(expand=["author", "sha"])
    assert (row.id, row.author) == ("gpt0", None)


def _gguf_file(path: Path) -> bytes:
    writer = reference.GGUFWriter(path, "llama")
    writer.add_context_length(2048)
    writer.add_token_list(["a", "bc", "é"])
    writer.add_array("some.numbers", [1, 2, 3])
    writer.add_tensor("a.weight", np.zeros((4, 8), np.float32))
    writer.add_tensor("b.weight", np.zeros((3,), np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


def test_header_of_the_reference_writer_is_read(tmp_path: Path) -> None:
    """Architecture, context length and parameters of a file that the gguf package wrote."""
    data = _gguf_file(tmp_path / "model.gguf")
    assert read(BlobFactory().blob("model.gguf", data)) == Gguf(35, "llama", 2048)


@given(st.data())
def test_broken_gguf_is_no_gguf(data: st.DataObject) -> None:
    """A header that ends early or lies about lengths is not read, and never an error or a long wait."""
    good = write(Gguf(35, "llama", 2048))
    cut = data.draw(st.integers(0, len(good) - 1))
    assert read(BlobFactory().blob("a.gguf", good[:cut])) is None
    at = data.draw(st.integers(4, len(good) - 1))
    broken = good[:at] + data.draw(st.binary(min_size=1, max_size=8)) + good[at + 1 :]
    read(BlobFactory().blob("a.gguf", broken))


@pytest.mark.parametrize("kind", [8, 9])
def test_gguf_of_countless_entries_is_refused_at_once(kind: int) -> None:
    """A count of 2^60 in a file of a few bytes ends where the bytes end."""
    array = struct.pack("<Q", 1) + b"k" + struct.pack("<IIQ", 9, kind, 1 << 60)
    data = struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + array
    assert read(BlobFactory().blob("a.gguf", data)) is None
