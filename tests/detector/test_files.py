"""Files of a repository are named by their content, and read in little pieces.

Every file here is written by the test.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping

import pytest
import torch

from crawler.interface import CorruptDownloadError
from detector.files import MAX_BYTES, MAX_PER_ID, MAX_PROBED, MAX_TEXT_PROBED, inspect_files
from detector.sniff import PROBE_BYTES
from tests.detector.inspected import WEIGHTS, Bytes, Cut, ids, inspect, saved, snapshot


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("name", ["pytorch_model.bin", "consolidated.00.pth", "noname"])
def test_torch_checkpoint(name: str, legacy: bool) -> None:
    """A checkpoint that torch itself wrote is a pickle that builds tensors only."""
    assert ids(name, saved(WEIGHTS, legacy=legacy)) == ["pickle-file"]


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("name", ["weights.safetensors", "weights.gguf", "notes.txt", "logo.png"])
def test_disguised_torch_checkpoint(name: str, legacy: bool) -> None:
    """It is one under another name as well, and the name is a finding of its own."""
    assert ids(name, saved(WEIGHTS, legacy=legacy)) == ["disguised-file", "pickle-file"]


def test_optimizer_and_random_state() -> None:
    """What a trainer leaves beside its weights is not called unsafe."""
    state = {
        "state": {0: {"step": torch.tensor(1.0), "exp_avg": torch.ones(2)}},
        "param_groups": [{"lr": 1e-3}],
    }
    assert ids("optimizer.pt", saved(state)) == ["pickle-file"]
    assert ids("rng_state.pth", saved({"cpu": torch.random.get_rng_state()})) == ["pickle-file"]


def test_whole_module() -> None:
    """A pickled module names its class, which the file chooses: unsafe, and the note says which."""
    finding = inspect({"model.pt": saved(torch.nn.Linear(2, 2))})[0]
    assert (finding.id, finding.note) == ("unsafe-pickle", "imports torch.nn.modules.linear.Linear")


def test_reading_budget() -> None:
    """A repository of many big pickles is read up to a bound; what lies beyond is said to be unread."""
    big = pickle.dumps([f"{at}".rjust(4000) for at in range(2000)])
    count = MAX_BYTES // len(big) + 3
    sources = {f"{number:03}.pkl": Bytes(big) for number in range(count)}
    sources["config.json"] = Bytes(b"{}")
    found = inspect_files(
        snapshot({path: source.size for path, source in sources.items()}), sources.__getitem__
    )
    assert sum(source.spent for source in sources.values()) <= MAX_BYTES
    assert {finding.id for finding in found} == {"pickle-file", "unread-pickle"}


def test_little_is_read_of_big_files() -> None:
    """Of weights that are no pickle, only the first 64 bytes are fetched."""
    source = Bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{" + bytes(1 << 20))
    assert inspect_files(snapshot({"model.safetensors": source.size}), lambda _: source) == ()
    assert source.spent == PROBE_BYTES


PROGRAMS: Mapping[str, bytes] = {
    "modeling.py": b"pass",
    "RUN.SH": b"true",
    "tokenizer.bin": b"\x7fELF" + bytes(100),
    "setup": b"#!/bin/sh\ntrue\n",
    "model.dat": b"MZ" + bytes(58) + (128).to_bytes(4, "little") + bytes(200),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs(name: str) -> None:
    """A program is found by its name or by its first bytes."""
    assert ids(name, PROGRAMS[name]) == ["executable-file"]


CODE_REQUESTS: Mapping[str, object] = {
    "auto_map": {"auto_map": {"AutoModel": "modeling.Model"}},
    "trust_remote_code": {"text_config": [{"trust_remote_code": True}]},
    "_attn_implementation_internal": {"_attn_implementation_internal": "someone/kernel"},
}


@pytest.mark.parametrize("key", CODE_REQUESTS)
def test_remote_code(key: str) -> None:
    """A config that would make a loader import code is named with the key, at any depth."""
    finding = inspect({"config.json": json.dumps(CODE_REQUESTS[key]).encode()})[0]
    assert finding.id == "remote-code"
    assert finding.note.endswith(key)


def test_ordinary_config() -> None:
    """An ordinary config asks for nothing."""
    config = {
        "model_type": "llama",
        "auto_map": {},
        "trust_remote_code": False,
        "attn_implementation": "sdpa",
    }
    assert ids("config.json", json.dumps(config).encode()) == []


@pytest.mark.parametrize("content", [b"{", b"[" * 99999, b'{"a": ' + b"9" * 5000 + b"}", b" " * (5 << 20)])
def test_malformed_config(content: bytes) -> None:
    """A config that breaks a parser is a finding, not a crash."""
    assert ids("config.json", content) == ["malformed-config"]


def test_many_files() -> None:
    """Beyond the bounds the rest is judged by name and counted, so a flood of files hides nothing."""
    files = {f"{number:04}.bin": pickle.dumps({}) for number in range(MAX_PROBED + 100)}
    findings = inspect(files)
    plain = [finding for finding in findings if finding.id == "pickle-file"]
    rest = [finding for finding in findings if finding.id == "unread-pickle"]
    assert len(plain) == len(rest) == MAX_PER_ID
    assert plain[-1].note.endswith(f"and {MAX_PROBED - MAX_PER_ID} more files")
    assert rest[-1].note.endswith(f"and {100 - MAX_PER_ID} more files")


def test_network_errors_are_not_findings() -> None:
    """A file that cannot be fetched raises: that says nothing about the file."""
    whole = Bytes(pickle.dumps(list(range(1000))))
    with pytest.raises(CorruptDownloadError):
        inspect_files(snapshot({"a.bin": whole.size}), lambda _: Cut(whole.content))
    archive = Bytes(saved(WEIGHTS))
    with pytest.raises(CorruptDownloadError):
        inspect_files(snapshot({"a.bin": archive.size}), lambda _: Cut(archive.content))


def test_known_files_are_not_read() -> None:
    """The publisher's own files cost no request."""

    def refuse(path: str) -> Bytes:
        raise AssertionError(path)

    taken = snapshot({"model.safetensors": 9, "config.json": 9, "notes.txt": 9, "a.bin": 9})
    assert inspect_files(taken, refuse, frozenset(file.path for file in taken.files)) == ()


def test_text_files_are_probed_up_to_a_bound() -> None:
    """Of many text files a few are probed, a request each, and ordinary ones are no finding."""
    texts = {f"{number:02}.txt": Bytes(b"plain text") for number in range(MAX_TEXT_PROBED + 9)}
    found = inspect_files(snapshot({path: source.size for path, source in texts.items()}), texts.__getitem__)
    assert found == ()
    assert sum(source.spent > 0 for source in texts.values()) == MAX_TEXT_PROBED
