"""Dangerous files are named by their content, read in little pieces, and never loaded.

Every file here is written by the test. The hostile ones only *name* functions, and nothing ever loads them.
"""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crawler.interface import Access, CorruptDownloadError, RepoFile, Snapshot, parse_repo_id
from crawler.interface import Commit as CommitId
from detector.files import MAX_BYTES, MAX_PER_ID, MAX_PROBED, MAX_TEXT_PROBED, inspect_files
from detector.interface import FileFinding
from detector.pickle_names import is_plain
from detector.pickles import MAX_PICKLE_BYTES, PickleKind, inspect_stream
from detector.sniff import PROBE_BYTES
from detector.unpickler import Imported

SYSTEM = b"cos\nsystem\n"
"""The opcode that names os.system; without the call that would follow, it is inert even when loaded."""


class Bytes:
    """A file in memory that counts what is read of it."""

    def __init__(self, content: bytes) -> None:
        self.content, self.spent = content, 0

    @property
    def size(self) -> int:
        return len(self.content)

    def read(self, offset: int, length: int) -> bytes:
        data = self.content[offset : offset + length]
        if len(data) != length:
            raise CorruptDownloadError("read past the end")
        self.spent += length
        return data


class Cut(Bytes):
    """A file whose second half cannot be fetched."""

    def read(self, offset: int, length: int) -> bytes:
        if offset + length > self.size // 2:
            raise CorruptDownloadError("cut")
        return super().read(offset, length)


def snapshot(sizes: Mapping[str, int]) -> Snapshot:
    return Snapshot(
        repo=parse_repo_id("org/fork"),
        commit=CommitId("0" * 40),
        files=tuple(RepoFile(path, size, "0" * 40, None) for path, size in sorted(sizes.items())),
        tags=(),
        claims=(),
        license=None,
        access=Access.OPEN,
        created_at=None,
        last_modified=None,
        downloads=0,
        likes=0,
    )


def inspect(files: Mapping[str, bytes]) -> tuple[FileFinding, ...]:
    sources = {path: Bytes(content) for path, content in files.items()}
    found = inspect_files(
        snapshot({path: len(content) for path, content in files.items()}), sources.__getitem__
    )
    assert found == inspect_files(snapshot({p: len(c) for p, c in files.items()}), sources.__getitem__)
    return found


def ids(name: str, content: bytes) -> list[str]:
    return [finding.id for finding in inspect({name: content})]


def saved(value: object, *, legacy: bool = False) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=not legacy)
    return file.getvalue()


def repacked(changes: Mapping[str, bytes], *, drop: str = "") -> bytes:
    """torch's own archive with members replaced, added or dropped."""
    with zipfile.ZipFile(io.BytesIO(saved(WEIGHTS))) as original:
        members = {name: original.read(name) for name in original.namelist() if name != drop}
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in {**members, **changes}.items():
            archive.writestr(name, content)
    return file.getvalue()


WEIGHTS = OrderedDict(weight=torch.ones(3, 2, dtype=torch.bfloat16), bias=torch.nn.Parameter(torch.ones(3)))


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


def memoised(module: str, name: str) -> bytes:
    """Protocol 4: both strings through the memo, as pickle writes a module name it has seen before."""
    parts = b"".join(b"\x8c%c%s\x94" % (len(text), text.encode()) for text in (module, name))
    return b"\x80\x04" + parts + b"00h\x00h\x01\x93."


HOSTILE: Mapping[str, bytes] = {
    "global": b"\x80\x02" + SYSTEM + b".",
    "protocol 0": SYSTEM + b"(S'x'\ntR.",
    "inst": b"(S'x'\nios\nsystem\n.",
    "name across the end of a frame": b"\x80\x04\x95\x05\0\0\0\0\0\0\0cxxxxos\nsystem\n.",
    "text across the end of a frame": b"\x80\x04\x95\x04\0\0\0\0\0\0\0\x8c\x0fxx" + SYSTEM + b"xxx0N.",
    "frame in a frame": b"\x80\x04\x95\x0a\0\0\0\0\0\0\0\x95\x05\0\0\0\0\0\0\0N." + SYSTEM,
    "inst on an empty stack": b"ios\nsystem\n.",
    "stack global": b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
    "stack global through the memo": memoised("os", "system"),
    "below an allowed name": b"\x80\x04\x8c\x02os\x8c\x06system\x8c\x05torch0\x93.",
    "swapped memo": b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94\x8c\x0bcollections\x8c\x0bOrderedDict00\x93.",
    "dotted attribute": b"\x80\x04\x8c\x05torch\x8c\x10Tensor.__class__\x93.",
    "space in the module": b"ccollections OrderedDict\n\n.",
    "extension registry": b"\x80\x02\x82\x01.",
    "second pickle": pickle.dumps(1) + b"\x80\x02" + SYSTEM + b".",
    "import, then garbage": b"\x80\x02" + SYSTEM + b"\xff\xff\xff",
    "import, then nothing": b"\x80\x02" + SYSTEM,
    "name that is not ASCII": b"cos\nsyst\xc3\xa9m\n.",
    "number only one parser reads": b"I0x10\n" + SYSTEM + b".",
    "load from bytes": b"ctorch.storage\n_load_from_bytes\n.",
    "legacy container": saved(WEIGHTS, legacy=True).replace(b"ctorch._utils\n_rebuild_tensor_v2\n", SYSTEM),
    "7z": b"7z\xbc\xaf\x27\x1c" + bytes(100),
    "zip with an import": repacked({"archive/data.pkl": b"\x80\x02" + SYSTEM + b"."}),
    "zip with code": repacked({"archive/code/__torch__.py": b"pass"}),
    "zip with two pickles": repacked({"archive/constants.pkl": pickle.dumps(())}),
    "zip without a pickle": repacked({}, drop="archive/data.pkl"),
    "many foreign imports": b"\x80\x02" + b"cm\nn\n" * 20 + b".",
    "behind 9 MB": pickle.dumps("a" * (9 << 20)) + b"\x80\x02" + SYSTEM + b".",
    "behind 9 MB in one pickle": b"\x80\x02X" + (9 << 20).to_bytes(4, "little") + b"a" * (9 << 20) + SYSTEM,
    "as GGUF": b"GGUF" + bytes(5) + SYSTEM + b".",
    "as safetensors": b"X\4\0\0\0\0\0\0{" + SYSTEM + b".",
    "member of no enumeration": b"cbuiltins\ngetattr\nq\0(ctorch\nTensor\nX\1\0\0\0AtR.",
    "method of an enumeration": b"cbuiltins\ngetattr\nq\0"
    b"(ctransformers.trainer_utils\nSchedulerType\nX\3\0\0\0mrotR.",
    "record that is called": b"cswift.llm.argument\nInferArguments\n(X\4\0\0\0a.pytR.",
    "record that is called as an instance": b"(iaxolotl.a\nTrainingArguments\n.",
    "getattr in a list": b"](cbuiltins\ngetattr\ne.",
    "zip that is cut": saved(WEIGHTS)[:-30],
    "zip with a wrong checksum": saved(WEIGHTS).replace(b"BFloat16Storage", b"BFloat16storage", 1),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_pickle(case: str) -> None:
    """Every way to hide an import, or to confuse one parser of two, ends in unsafe-pickle."""
    assert ids("pytorch_model.bin", HOSTILE[case]) == ["unsafe-pickle"]


def test_pickle_as_a_program() -> None:
    """Bytes that are a Windows program and a pickle at once are both."""
    content = b"MZ\0X\x80\0\0\0" + bytes(52) + b"d\0\0\0" + bytes(72) + SYSTEM
    assert ids("pytorch_model.bin", content) == ["executable-file", "unsafe-pickle"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.int8])
def test_raw_weights(dtype: torch.dtype) -> None:
    """Weights without a container (OpenVINO, MLC, CTranslate2), whatever they begin with, are no pickle."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(300):
        noise = torch.randn(2000, generator=generator)
        values = noise.mul(30).to(dtype) if dtype is torch.int8 else noise.mul(0.02).to(dtype)
        content = bytes(values.view(torch.uint8).tolist())
        assert inspect_stream(content, complete=True).kind is PickleKind.NONE


def test_names_in_notes_are_ascii() -> None:
    """A note quotes hostile names without their control and direction characters, and stays short."""
    name = "\x1b[2J\u202e<script>" + "x" * 5000
    data = b"\x80\x04\x8c\x02os" + pickle.BINUNICODE + len(name.encode()).to_bytes(4, "little")
    note = inspect({"a.pkl": data + name.encode() + b"\x93."})[0].note
    assert note.isascii()
    assert note.isprintable()
    assert len(note) <= 300


NOT_PICKLES: Mapping[str, bytes] = {
    "openvino_model.bin": b"\x3d\x0a\xd7\xbf" * 5000,  # raw float32 weights
    "model.gguf": b"GGUF" + bytes(100),
    "model.safetensors": (640).to_bytes(8, "little")
    + b"{"
    + b" " * 700,  # a header length that looks like one
    "tokenizer.model": b"\n\x0e\n\x05<unk>",
    "data.npz": b"PK\x05\x06" + bytes(18),
    "empty.bin": b"",
    "cut.bin": b"\x80\x02X\xff\xff\x00\x00abc",  # announces more than there is; Python stops here too
}


@pytest.mark.parametrize("name", NOT_PICKLES)
def test_not_a_pickle(name: str) -> None:
    """Weights in other formats are not accused."""
    assert ids(name, NOT_PICKLES[name]) == []


def test_long_pickle() -> None:
    """A pickle whose import lies behind megabytes is unsafe: padding is skipped, and hides nothing."""
    padding = b"\x80\x02X" + (MAX_PICKLE_BYTES + 8).to_bytes(4, "little") + b"a" * (MAX_PICKLE_BYTES + 8)
    source = Bytes(padding + SYSTEM + b".")
    found = inspect_files(snapshot({"a.bin": source.size}), lambda _: source)
    assert [finding.id for finding in found] == ["unsafe-pickle"]
    assert source.spent <= 4 * PROBE_BYTES


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


def test_zip_bomb() -> None:
    """A compressed member that unfolds to gigabytes is cut at the limit."""
    file = io.BytesIO()
    with (
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("archive/data.pkl", "w") as member,
    ):
        member.write(b"\x80\x02")
        for _ in range(12):
            member.write(b"N0" * (1 << 19))
    assert ids("a.bin", file.getvalue()) == ["unread-pickle"]


def test_little_is_read_of_big_files() -> None:
    """Of weights that are no pickle, only the first 64 bytes are fetched."""
    source = Bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{" + bytes(1 << 20))
    assert inspect_files(snapshot({"model.safetensors": source.size}), lambda _: source) == ()
    assert source.spent == PROBE_BYTES


class Asked:
    """Imports nothing: it notes the first name asked for and stops."""

    asked: tuple[str, str] | None = None

    def find_class(self, module: str, name: str) -> object:
        self.asked = (module, name)
        raise pickle.UnpicklingError

    def persistent_load(self, pid: object) -> object:
        return pid


class InPython(Asked, pickle._Unpickler):
    """Python's own unpickler, which here imports nothing."""


class InC(Asked, pickle.Unpickler):
    """The other one."""


SEEDS = [data for name, data in HOSTILE.items() if "zip" not in name and len(data) < 9999] + [
    pickle.dumps([{"a": (1, b"b")}, 2.5])
]


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_agrees_with_pickle(data: st.DataObject) -> None:
    """Wherever Python's unpickler would import, we say so, however the bytes are damaged."""
    seed = data.draw(st.sampled_from(SEEDS))
    start = data.draw(st.integers(0, len(seed)))
    content = seed[:start] + data.draw(st.binary(max_size=6)) + seed[start + data.draw(st.integers(0, 4)) :]
    for kind in (InPython, InC):
        recorder = kind(io.BytesIO(content))
        with contextlib.suppress(Exception):
            recorder.load()
        if recorder.asked is not None and "\0" not in recorder.asked[0]:  # no module can be called so
            report = inspect_stream(content, complete=True)
            unused = recorder.asked[1] == "getattr"  # only what it is used for counts
            allowed = is_plain(Imported(*recorder.asked))
            assert report.kind is PickleKind.UNSAFE or unused or (allowed and report.kind is PickleKind.PLAIN)


PLAIN = st.none() | st.text(max_size=8) | st.integers() | st.floats() | st.binary(max_size=8)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(PLAIN | st.lists(PLAIN, max_size=4), max_size=6), st.integers(0, 5))
def test_plain_data(value: object, protocol: int) -> None:
    """Whatever pickle itself writes for plain data is never unsafe, in any protocol."""
    assert inspect_stream(pickle.dumps(value, protocol), complete=True).kind is PickleKind.PLAIN


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


def test_nothing_is_loaded(tmp_path: Path) -> None:
    """A pickle that would create a file when loaded is inspected without creating it."""

    class Touch:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (str(tmp_path / "touched"),)

    assert ids("a.pkl", pickle.dumps(Touch())) == ["unsafe-pickle"]
    assert list(tmp_path.iterdir()) == []


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
