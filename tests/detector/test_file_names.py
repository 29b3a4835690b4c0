"""Names that mislead or cannot be held are told; those that honest repositories have are not."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.detector.inspected import ids, repacked


@pytest.mark.parametrize(
    "name",
    [
        "a\u202egpj.txt",
        "a\x1b[2J.txt",
        "a\u200b.txt",
        "../a.txt",
        "/a.txt",
        "..\\b.txt",
        "\\b.txt",
        "\uff4dodel.txt",
        "x" * 256,
    ],
)
def test_hostile_names(name: str) -> None:
    """Invisible, direction-changing, look-alike and escaping names are findings."""
    assert "hostile-name" in ids(name, b"text")


@pytest.mark.parametrize(
    "name",
    [
        *("模型/读我（新）.md", "क्\u200dष.txt", "👩\u200d💻.png", "Ünïcode.md", "README.md"),
        *("图１.png", "ＡＢＣ.txt", "Отчёт №1.txt", "Llama™.png", "m².csv", "①.png", "nº1.txt"),
    ],
)
def test_ordinary_names(name: str) -> None:
    """Other scripts, their joiners, emoji, signs and full-width letters and marks are ordinary names."""
    assert ids(name, b"text") == []


ORDINARY: Mapping[str, bytes] = {
    "logo.png": b"\x89PNG\r\n\x1a\n" + bytes(100),
    "photo.jpg": b"\xff\xd8\xff\xe0" + bytes(100),
    "paper.pdf": b"%PDF-1.7\n",
    "vocab.json": b'{"a": 0}',
    "merges.txt": b"#version: 0.2\nx a\n",
    "notes.md": b"# Notes\n",
    "table.csv": b"\xef\xbb\xbfa,b\n",
    "utf16.txt": "text".encode("utf-16"),
    "model.onnx": b"\x08\x07\x12\x07pytorch" + bytes(100),
    "data.npz": repacked({}, drop="archive/data.pkl"),
    "weights.h5": b"\x89HDF\r\n\x1a\n" + b'{"class_name": "Dense"}' + bytes(100),
    "events.out.tfevents": b"\x18\0\0\0\0\0\0\0" + bytes(40),
}


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_files(name: str) -> None:
    """What honest repositories hold beside their weights is no finding."""
    assert ids(name, ORDINARY[name]) == []


@pytest.mark.parametrize("name", ["NUL", "aux.txt", "a/com1.json", "a.", "b ", "a:b", "what?.md", "a\\b.txt"])
def test_unportable_names(name: str) -> None:
    """Names that Windows cannot hold are told, and are not called hostile."""
    assert ids(name, b"text") == ["unportable-name"]


@pytest.mark.parametrize(
    "name", ["console.txt", "null", "nullable.py.txt", "com10", "a.b", ".gitkeep", "конфиг.txt"]
)
def test_portable_names(name: str) -> None:
    """Names that only resemble those are ordinary."""
    assert ids(name, b"text") == []
