"""`forkwatch report verify`: a built site passes, and each thing that must not be published is found."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from reports.manifest import NAME, Manifest, read_manifest, record
from reports.verify import verify

PAGE = "forks/abl/smollm2-directional/index.html"
DOCUMENT = "api/v1/forks/abl/smollm2-directional.json"


def test_what_we_build_passes(site: Path, hostile_site: Path) -> None:
    """Also where every text is an attack: shown, it is inert."""
    assert verify(site) == ()
    assert verify(hostile_site) == ()


@pytest.mark.parametrize(
    ("path", "old", "new", "said"),
    [
        (PAGE, b"</main>", b'<a href="../nowhere.html">x</a></main>', "links to forks/abl/nowhere.html"),
        (PAGE, b"</main>", b'<a href="#nowhere">x</a></main>', "links to #nowhere"),
        (PAGE, b"</main>", b'<a href="javascript:alert(1)">x</a></main>', "links to javascript:alert(1)"),
        (PAGE, b"</main>", b'<a href="//evil.example/">x</a></main>', "links to //evil.example/"),
        (PAGE, b"</main>", b'<b class="a" style="color:red">x</b></main>', "inline style or script"),
        (PAGE, b"</main>", b"<img src=x onerror=alert(1)></main>", "inline style or script"),
        (PAGE, b"</main>", b"<script>alert(1)</script></main>", "inline style or script"),
        (PAGE, b"script-src 'self'", b"script-src *", "content security policy"),
        (PAGE, b"</main>", b"x" * 200_000 + b"</main>", "bytes; 200,000 are allowed"),
        (DOCUMENT, b'"commit": "', b'"commit": 7, "x": "', "is not a forkwatch.scan/1 document"),
        (DOCUMENT, b"{", b"{{", "is not JSON"),
        (DOCUMENT, b"{", b'{"answer": "how to",', "raw answer"),
        (DOCUMENT, b"{", b'{"x": "hf_' + b"a" * 34 + b'",', "looks like a secret"),
        (DOCUMENT, b"{", b'{"x": "-----BEGIN PRIVATE KEY-----",', "looks like a secret"),
    ],
)
def test_what_must_not_be_published_is_found(
    site: Path, tmp_path: Path, path: str, old: bytes, new: bytes, said: str
) -> None:
    """Whatever made it: the manifest agrees with it."""
    copy = _copy(site, tmp_path)
    data = (copy / path).read_bytes()
    assert old in data
    changed = data.replace(old, new, 1)
    (copy / path).write_bytes(changed)
    manifest = read_manifest(copy)
    assert manifest is not None
    files = {**manifest.files, path: record("key", changed)}
    (copy / NAME).write_text(Manifest(files, manifest.templates).to_text())
    found = verify(copy)
    assert {problem.path for problem in found} == {path}
    assert any(said in problem.what for problem in found), found


def test_files_that_are_not_as_built_are_found(site: Path, tmp_path: Path) -> None:
    """Changed, missing and stray ones, each by name; without a manifest nothing is known."""
    copy = _copy(site, tmp_path)
    (copy / "assets/site.css").write_text("body{}")
    (copy / "assets/icon.svg").unlink()
    (copy / "stray.txt").write_text("x")
    found = {
        problem.path: problem.what for problem in verify(copy) if not problem.what.startswith("links to")
    }
    assert found == {
        "assets/site.css": "has other bytes than were built",
        "assets/icon.svg": "is missing",
        "stray.txt": "is not in the manifest",
    }
    (copy / NAME).unlink()
    assert [problem.path for problem in verify(copy)] == [NAME]


def _copy(site: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(site, tmp_path / "copy"))
