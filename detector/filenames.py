"""File names that mislead a reader, a shell or a file system; other scripts and emoji do not."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator

from crawler.interface import RepoFile
from detector.interface import FileFinding

_LOADED = frozenset(
    (
        *("config.json", "generation_config.json", "adapter_config.json", "special_tokens_map.json"),
        *("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "chat_template.jinja", "readme.md"),
        *("model.safetensors", "model.safetensors.index.json", "adapter_model.safetensors"),
        *("pytorch_model.bin", "model.gguf"),
    )
)
"""What loaders and readers ask for by name."""
_LOOK_ALIKES = {
    "a": "аɑα",
    "b": "в",
    "c": "сϲ",
    "d": "ԁ",
    "e": "еє",
    "f": "ғ",
    "g": "ɡ",
    "h": "һ",
    "i": "іι",
    "j": "јϳ",
    "k": "кκ",
    "l": "ӏ",
    "m": "м",
    "n": "ոп",
    "o": "оοօ",
    "p": "рρ",
    "q": "ԛ",
    "r": "г",
    "s": "ѕ",
    "t": "тτ",
    "u": "υս",
    "v": "νѵ",
    "w": "ѡԝ",
    "x": "хχ",
    "y": "уγ",
}
"""Cyrillic, Greek and Armenian letters that look like an ASCII one, lower case (Unicode TS 39)."""
_LETTERS = {ord(letter): ascii_ for ascii_, letters in _LOOK_ALIKES.items() for letter in letters}
_RESERVED = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?", re.IGNORECASE | re.DOTALL)
_FORBIDDEN = frozenset('<>:"|?*')
_WORD = re.compile(r"[^\W_]+")
_DRIVE = re.compile(r"[A-Za-z]:")
_SHARD = re.compile(r"-\d{5}-of-\d{5}")


def name_findings(files: Iterable[RepoFile]) -> Iterator[FileFinding]:
    """`hostile-name` for names made to mislead, `unportable-name` for those that some systems cannot hold."""
    for file in files:
        if reason := hostile_reason(file.path):
            yield FileFinding("hostile-name", file.path, reason)
        elif reason := unportable_reason(file.path):
            yield FileFinding("unportable-name", file.path, reason)


def hostile_reason(path: str) -> str:
    """Why a name misleads, or an empty string."""
    for index, character in enumerate(path[:4096]):
        # Joiners are ordinary spelling inside emoji and several scripts, and nowhere else.
        joined = character in "\u200c\u200d" and 0 < index < len(path) - 1
        if joined and not (path[index - 1] + path[index + 1]).isascii():
            continue
        if unicodedata.category(character) in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}:
            return "contains control, invisible or text-direction characters"
    if any(map(_is_mixed, _WORD.findall(path[:4096]))):
        return "contains letters that look like ASCII ones and are not"
    parts = path.split("/")
    if {"", ".", ".."} & set(path.replace("\\", "/").split("/")) or ("\\" in path and _DRIVE.match(path)):
        return "is not a plain relative path"
    if any(len(part.encode()) > 255 for part in parts):
        return "is longer than file systems allow"
    if not parts[-1].isascii() and _read_as(parts[-1]) in _LOADED:
        return "looks like the name of a file that loaders ask for, and is not"
    return ""


def unportable_reason(path: str) -> str:
    """Why Windows stores a name as another one, a device or a stream, or not at all; or an empty string."""
    for part in path.split("/"):
        if _RESERVED.fullmatch(part.rstrip(" ")):
            return "is the name of a device on Windows"
        if part.endswith((".", " ")):
            return "ends in a dot or a space, which Windows drops"
        if "\\" in part:
            return "contains a backslash, which Windows takes for a folder"
        if marks := sorted(_FORBIDDEN & set(part)):
            return f"contains {' '.join(marks)}, which Windows does not store in a name"
    return ""


def _is_mixed(word: str) -> bool:
    """Whether ASCII letters stand in one word with others that only look like them.

    Full-width digits, `№`, `½` and whole words in full width are ordinary where those are typed.
    """
    if word.isascii() or not any(char.isascii() and char.isalpha() for char in word):
        return False
    return any(
        not char.isascii()
        and unicodedata.category(char) in {"Lu", "Ll"}
        and len(plain := unicodedata.normalize("NFKC", char)) == 1
        and plain.isascii()
        for char in word
    )


def _read_as(name: str) -> str:
    """What a reader takes a name for; shards of weights are the weights."""
    return _SHARD.sub("", unicodedata.normalize("NFKC", name).lower().translate(_LETTERS))
