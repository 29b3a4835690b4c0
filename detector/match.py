"""Stage 3: which files are the release's, by the hashes the Hub already reports. Reads no byte."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from crawler.interface import RepoFile, Snapshot
from detector.formats import is_weight_file
from detector.interface import FileMatch, Manifest, ManifestFile

INERT = frozenset({"README.md", ".gitattributes", ".gitignore", "LICENSE", "model.sig"})
"""Root files that change neither the weights nor the behaviour; they are counted all the same."""


def match_files(snapshot: Snapshot, manifest: Manifest) -> FileMatch:
    """Compare the files of a snapshot with the signed manifest.

    A file is identical when the Hub reports the manifest's SHA-256 for it, or, for the small files of which
    it reports no SHA-256, the manifest's git blob id. The Hub's word is taken for both; a download checks it.
    """
    signed = {file.path: file for file in manifest.files}
    present = {file.path: file for file in snapshot.files}
    shared = sorted(signed.keys() & present.keys())
    identical = tuple(path for path in shared if same_content(present[path], signed[path]))
    weights = {path for path in signed if is_weight_file(path)}
    more_weights = {path for path in present if is_weight_file(path)} - weights
    ours = {(file.size, file.sha256) for file in manifest.files} | {
        (file.size, file.git_oid) for file in manifest.files
    }
    return FileMatch(
        identical=identical,
        changed=tuple(path for path in shared if path not in identical),
        added=tuple(sorted(present.keys() - signed.keys())),
        missing=tuple(sorted(signed.keys() - present.keys())),
        weights_identical=bool(weights) and weights <= set(identical) and not more_weights,
        other_weights=tuple(
            path
            for path, file in sorted(present.items())
            if (is_weight_file(path) or path.endswith(".safetensors.index.json"))
            and (file.size, file.sha256 or file.git_oid) not in ours
        ),
    )


def same_content(file: RepoFile, signed: ManifestFile) -> bool:
    """Same bytes, as far as the Hub's hashes say."""
    if file.size != signed.size:
        return False
    if file.sha256 is not None:
        return file.sha256 == signed.sha256
    return file.git_oid == signed.git_oid


def weight_files(snapshot: Snapshot) -> tuple[str, ...]:
    """Paths of the snapshot's weight files, sorted."""
    return tuple(sorted(file.path for file in snapshot.files if is_weight_file(file.path)))


def content_id(file: RepoFile) -> str:
    """What the Hub says that the file holds: `sha256:<hex>`, or `git:<oid>` of a small one."""
    return f"git:{file.git_oid}" if file.sha256 is None else f"sha256:{file.sha256}"


def same_contents(ours: Iterable[str], theirs: Iterable[str]) -> bool | None:
    """Whether two sets of files are the same files, under whatever names; None when their ids cannot tell.

    Args:
        ours: what each file of one side holds, `kind:value`, empty where it is not known.
        theirs: of the other side.
    """
    first, second = Counter(ours), Counter(theirs)
    if not first or not second or "" in first or "" in second:
        return None
    if first == second:
        return True
    kinds = {name.partition(":")[0] for name in (*first, *second)}
    return False if kinds in ({"sha256"}, {"git"}) else None
