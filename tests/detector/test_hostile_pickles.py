"""A pickle that imports is found whatever hides it, what imports nothing is not accused, and none is loaded.

Every file here is written by the test. The hostile ones only *name* functions, and nothing ever loads them.
"""

from __future__ import annotations

import contextlib
import io
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from detector.files import inspect_files
from detector.pickle_names import is_plain
from detector.pickles import MAX_PICKLE_BYTES, PickleKind, inspect_stream
from detector.sniff import PROBE_BYTES
from detector.unpickler import Imported
from tests.detector.inspected import WEIGHTS, Bytes, ids, inspect, repacked, saved, snapshot

SYSTEM = b"cos\nsystem\n"
"""The opcode that names os.system; without the call that would follow, it is inert even when loaded."""


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


def test_nothing_is_loaded(tmp_path: Path) -> None:
    """A pickle that would create a file when loaded is inspected without creating it."""

    class Touch:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (str(tmp_path / "touched"),)

    assert ids("a.pkl", pickle.dumps(Touch())) == ["unsafe-pickle"]
    assert list(tmp_path.iterdir()) == []


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
