"""An application that asks before it loads is told of every exchanged byte, and fails closed."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest

from detector.errors import DetectorError, PublicKeyError
from detector.provenance.checked import Basis, CheckedFile, FileState, paths_in
from detector.provenance.checkpoint import (
    CheckpointStatus,
    NotAuthenticError,
    judge_files,
    verify_checkpoint,
)
from detector.provenance.coverage import files_below
from detector.provenance.hashing import hash_file
from detector.provenance.interface import KeyTrust, Trust
from detector.provenance.sign import KeyPair, generate_key
from tests.detector.provenance.signed import FILES, SHARDS, flip, refusal

ROOT = Path(__file__).parents[3]


def test_authentic(folder: Path, trust: Trust, keys: KeyPair) -> None:
    """Every signed file is read once; what no loader uses is listed as not checked."""
    calls: list[tuple[int, int]] = []
    found = verify_checkpoint(folder, trust, progress=lambda *told: calls.append(told))
    signed = {name: content for name, content in FILES.items() if name != "README.md"}
    total = sum(map(len, signed.values()))
    assert found.folder == folder.resolve()
    assert found.signer == f"ecdsa-sha256:{hashlib.sha256(keys.public.read_bytes()).hexdigest()}"
    assert {file.path: file.size for file in found.files} == {
        name: len(text) for name, text in signed.items()
    }
    assert {(file.state, file.basis) for file in found.files} == {(FileState.MATCHED, Basis.READ)}
    assert found.found.unsigned == ("README.md",)
    assert found.found.bytes_read == total
    assert calls[-1] == (total, total)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)


def link_out(folder: Path) -> None:
    shutil.move(folder / SHARDS[0], folder.parent / "elsewhere")
    (folder / SHARDS[0]).symlink_to(folder.parent / "elsewhere")


def link_folder(folder: Path) -> None:
    (folder.parent / "evil").mkdir()
    (folder.parent / "evil" / "model.safetensors").write_bytes(b"x")
    (folder / "sub").symlink_to(folder.parent / "evil")


def link_cache(folder: Path) -> None:
    """The layout of a Hub cache is no licence to follow links when the folder is not in one."""
    (folder / "blobs").mkdir()
    shutil.move(folder / SHARDS[0], folder / "blobs" / "a")
    (folder / SHARDS[0]).symlink_to("blobs/a")


def pipe(folder: Path) -> None:
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")


def swap(folder: Path) -> None:
    first, second = (folder / name for name in SHARDS)
    first.rename(folder / "third")
    second.rename(first)
    (folder / "third").rename(second)


def hide(folder: Path) -> None:
    (folder / ".x").mkdir()
    (folder / ".x" / "adapter_config.json").write_bytes(b"{}")


ALTERED: Mapping[str, tuple[Callable[[Path], object], str, FileState]] = {
    "byte flipped": (lambda f: flip(f / SHARDS[0]), SHARDS[0], FileState.DIFFERS),
    "truncated": (lambda f: os.truncate(f / SHARDS[0], 100), SHARDS[0], FileState.DIFFERS),
    "template replaced": (
        lambda f: (f / "chat_template.jinja").write_bytes(b"{{ messagez }}"),
        "chat_template.jinja",
        FileState.DIFFERS,
    ),
    "shards swapped": (swap, SHARDS[0], FileState.DIFFERS),
    "shard missing": (lambda f: (f / SHARDS[1]).unlink(), SHARDS[1], FileState.MISSING),
    "extra weights": (
        lambda f: (f / "pytorch_model.bin").write_bytes(b"x"),
        "pytorch_model.bin",
        FileState.UNCOVERED,
    ),
    "extra code": (lambda f: (f / "modeling_x.py").write_bytes(b""), "modeling_x.py", FileState.UNCOVERED),
    "extra in a hidden folder": (hide, ".x/adapter_config.json", FileState.UNCOVERED),
    "link out of the folder": (link_out, SHARDS[0], FileState.DIFFERS),
    "link within the folder": (link_cache, SHARDS[0], FileState.DIFFERS),
    "link to a folder": (link_folder, "sub", FileState.UNCOVERED),
    "a pipe": (pipe, "config.json", FileState.DIFFERS),
}


@pytest.mark.parametrize("case", ALTERED)
def test_altered(case: str, folder: Path, trust: Trust) -> None:
    """Each is refused, and the file is named."""
    damage, path, state = ALTERED[case]
    damage(folder)
    check = refusal(folder, trust).check
    assert check.status is CheckpointStatus.ALTERED
    assert check.found is not None
    assert path in paths_in(check.found.files, state)


def test_signature(folder: Path, trust: Trust, tmp_path: Path) -> None:
    """No bundle, a broken one, and one of somebody else are three refusals, before any weight is read."""
    other = Trust((KeyTrust(generate_key(tmp_path / "other").public.read_bytes()),))
    assert refusal(folder, other).check.status is CheckpointStatus.INVALID
    assert refusal(folder, Trust()).check.status is CheckpointStatus.INVALID
    (folder / "model.sig").rename(folder / "signature")
    (folder / "model.sig").symlink_to("signature")
    assert "a link" in refusal(folder, trust).check.reason
    (folder / "model.sig").unlink()
    (folder / "model.sig").write_bytes(b"{}")
    assert refusal(folder, trust).check.status is CheckpointStatus.INVALID
    (folder / "model.sig").unlink()
    assert refusal(folder, trust).check.status is CheckpointStatus.UNSIGNED
    assert refusal(folder / "nowhere", trust).check.status is CheckpointStatus.UNREADABLE
    assert issubclass(NotAuthenticError, DetectorError)


def test_misuse(folder: Path) -> None:
    """A key that is none is the caller's mistake, and no success either."""
    with pytest.raises(PublicKeyError):
        verify_checkpoint(folder, Trust((KeyTrust(b"no key"),)))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything: run the tests as a user")
def test_unreadable(folder: Path, trust: Trust) -> None:
    """What cannot be read is not authentic, and not called altered."""
    (folder / SHARDS[1]).chmod(0)
    assert refusal(folder, trust).check.status is CheckpointStatus.UNREADABLE


def test_deeper_than_the_stack(folder: Path, trust: Trust) -> None:
    """A file is found however deep it lies, and whoever dug is told from whoever broke the program."""
    limit, depth = sys.getrecursionlimit(), 250
    deep = f"{'a/' * depth}x.py"
    (folder / deep).parent.mkdir(parents=True)
    (folder / deep).write_bytes(b"")
    sys.setrecursionlimit(depth)
    try:
        found = refusal(folder, trust).check
        below = set(files_below(folder))
    finally:
        sys.setrecursionlimit(limit)
    assert (found.status, deep in below) == (CheckpointStatus.ALTERED, True)
    assert found.reason.startswith("not signed, and a loader would use it: a/a/a/")


def test_nothing_is_not_authentic() -> None:
    """A file of unknown content, and no file at all, are no success."""
    unknown = CheckedFile("a", FileState.UNKNOWN)
    matched = CheckedFile("b", FileState.MATCHED)
    assert judge_files([matched, unknown])[0] is CheckpointStatus.UNREADABLE
    assert judge_files([])[0] is CheckpointStatus.UNREADABLE
    assert judge_files([matched])[0] is CheckpointStatus.AUTHENTIC


def test_hostile_name(folder: Path, trust: Trust) -> None:
    """A name in a message is printable ASCII."""
    (folder / "a\x1b[2J\u202e.json").write_bytes(b"{}")
    reason = str(refusal(folder, trust))
    assert "a\\x1b[2J\\u202e.json" in reason
    assert reason.isascii()
    assert reason.isprintable()


def rename_over(folder: Path) -> None:
    """The same bytes in another file: nobody can tell whose they will be when they are read."""
    shutil.copy2(folder / "config.json", folder / "config.new")
    (folder / "config.new").rename(folder / "config.json")


EXCHANGES: Mapping[str, Callable[[Path], object]] = {
    "flipped": lambda folder: flip(folder / SHARDS[1]),
    "added": lambda folder: (folder / "new.json").write_bytes(b"{}"),
    "renamed over": rename_over,
    "removed": lambda folder: (folder / SHARDS[0]).unlink(),
    "linked": link_out,
}


@pytest.mark.parametrize("case", EXCHANGES)
def test_exchanged_after_the_check(case: str, folder: Path, trust: Trust) -> None:
    """`recheck` passes before, and notices after."""
    found = verify_checkpoint(folder, trust)
    found.recheck()
    time.sleep(0.02)  # a tick of the clock
    EXCHANGES[case](folder)
    with pytest.raises(NotAuthenticError, match="touched"):
        found.recheck()


def test_interrupted(folder: Path, trust: Trust) -> None:
    """An exception of the caller's ends the reading threads and reaches the caller."""

    def interrupt(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        verify_checkpoint(folder, trust, progress=interrupt)
    assert threading.active_count() == before


def cached(folder: Path) -> Path:
    """The same files in the layout of the Hub client's cache; the snapshot folder."""
    repo = folder.parent / "hub" / "models--lab--x"
    snapshot = repo / "snapshots" / ("a" * 40)
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        name = path.relative_to(folder)
        blob = repo / "blobs" / hashlib.sha256(path.read_bytes()).hexdigest()
        blob.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, blob)
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).symlink_to(os.path.relpath(blob, (snapshot / name).parent))
    return snapshot


def test_hub_cache(folder: Path, trust: Trust, tmp_path: Path) -> None:
    """A snapshot of links into its own repository's blobs is a checkpoint; links elsewhere are refused."""
    snapshot = cached(folder)
    verify_checkpoint(snapshot, trust).recheck()
    (tmp_path / "again").symlink_to(snapshot)
    assert verify_checkpoint(tmp_path / "again", trust).folder == snapshot.resolve()
    config = snapshot / "config.json"
    blob = config.resolve()
    config.unlink()
    config.symlink_to(folder / "config.json")
    assert refusal(snapshot, trust).check.status is CheckpointStatus.ALTERED
    config.unlink()
    config.symlink_to(blob)
    blob.unlink()
    check = refusal(snapshot, trust).check
    assert check.found is not None
    assert paths_in(check.found.files, FileState.MISSING) == ("config.json",)


def test_link_that_is_turned(folder: Path, trust: Trust, tmp_path: Path) -> None:
    """What was read is what is returned, wherever the link to it leads by then."""
    (tmp_path / "evil").mkdir()
    link = tmp_path / "current"
    link.symlink_to(folder)

    def turn(_done: int, _total: int) -> None:
        link.unlink()
        link.symlink_to(tmp_path / "evil")

    assert verify_checkpoint(link, trust, progress=turn).folder == folder.resolve()


def test_at(folder: Path, trust: Trust) -> None:
    """The time of the check can be given, and the folder as text."""
    assert verify_checkpoint(str(folder), trust, at=datetime(2026, 1, 1, tzinfo=UTC)).signer


def test_one_reading_gives_both_hashes(folder: Path) -> None:
    """SHA-256 and git's own object id of the same bytes."""
    git = subprocess.run(
        ["git", "hash-object", folder / SHARDS[0]], capture_output=True, check=True, text=True
    )
    found = hash_file(folder, SHARDS[0])
    assert (found.sha256, found.size) == (hashlib.sha256(FILES[SHARDS[0]]).hexdigest(), len(FILES[SHARDS[0]]))
    assert found.git_oid == git.stdout.strip()


LIGHT = """
import sys
REFUSED = {"torch", "numpy", "huggingface_hub", "pydantic_settings", "typer", "sqlmodel", "rich",
           "transformers", "safetensors", "crawler", "forkwatch", "evals", "reports", "sigstore",
           "model_signing"}
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in REFUSED:
            raise ImportError(f"{name} is not there")
sys.meta_path.insert(0, Refuse())
from pathlib import Path
from detector.provenance.checkpoint import NotAuthenticError, verify_checkpoint
from detector.provenance.interface import KeyTrust, Trust
trust = Trust((KeyTrust(Path(sys.argv[2]).read_bytes()),))
print(verify_checkpoint(Path(sys.argv[1]), trust).root_digest)
Path(sys.argv[1], "config.json").write_bytes(b"")
try:
    verify_checkpoint(Path(sys.argv[1]), trust)
except NotAuthenticError as error:
    print(error.check.status)
"""


def test_light(folder: Path, keys: KeyPair) -> None:
    """With a key it needs the standard library and `cryptography`: everything else may be missing."""
    done = subprocess.run(
        [sys.executable, "-c", LIGHT, folder, keys.public],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    root, status = done.stdout.split()
    assert root.startswith("sha256:")
    assert status == "altered"
