"""Building again: only what changed is rendered, and the result is what building everything gives."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from reports import build, switch
from reports.build import build_site
from reports.interface import Gap, SiteView, VerdictChange
from reports.manifest import NAME, from_text, read_manifest
from reports.rows import light
from reports.scan import ScanDocument
from tests.reports import samples
from tests.reports.html_tools import tree


@pytest.fixture(params=[0, 10_000], ids=["spare", "no-spare"])
def _spare(request, monkeypatch):
    monkeypatch.setattr(build, "SPARE_FROM", request.param)


def small(view: SiteView | None = None, *more: ScanDocument) -> SiteView:
    """The sample with four of its forks: these tests build many sites."""
    view = samples.view() if view is None else view
    (release,) = view.releases
    return replace(view, releases=(replace(release, scans=(*release.scans[5:9], *more)),))


def other() -> SiteView:
    """With a fifth."""
    first = samples.view().releases[0].scans[0]
    assert isinstance(first, ScanDocument)
    return small(None, replace(first, repo="new/fork"))


def changed(view: SiteView, rng: random.Random) -> SiteView:
    """The view after something that may happen."""
    (release,) = view.releases
    scans = list(release.scans)
    at = rng.randrange(len(scans))
    scan = scans[at]
    assert isinstance(scan, ScanDocument)
    match rng.randrange(7):
        case 0 if len(scans) > 3:
            del scans[at]
        case 1:
            scans[at] = replace(scan, hub=replace(scan.hub, downloads=rng.randrange(10_000)))
        case 2:
            label = rng.choice(("inconclusive", "safety-removed", "benign-derivative"))
            scans[at] = replace(scan, verdict=replace(scan.verdict, label=label))
            change = VerdictChange(
                repo=scan.repo, commit=scan.commit, at=scan.scanned_at, before=scan.verdict.label, after=label
            )
            release = replace(release, changes=(*release.changes, change))
        case 3:
            gap = Gap(repo=rng.choice((scan.repo, "new/gap")), reason=f"reason {rng.random()}")
            release = replace(release, gaps=(*release.gaps[:3], gap))
        case 4:
            scans[at] = replace(scan, heatmap=None, findings=scan.findings[:1])
        case 5:
            view = replace(view, contact=rng.choice(("a@example.org", "b@example.org", None)))
        case _:
            name = f"new/fork-{rng.randrange(4)}"
            if name not in {each.repo for each in scans}:
                scans.append(replace(scan, repo=name))
    return replace(view, releases=(replace(release, scans=tuple(scans)),))


@pytest.mark.usefixtures("_spare")
def test_any_series_of_builds_ends_as_one_full_build(tmp_path):
    """Whatever happened in whatever order: byte for byte, the manifest included."""
    rng = random.Random(8)
    view = small(samples.lived())
    (release,) = view.releases
    view = replace(view, releases=(replace(release, tree=None),))
    out = tmp_path / "site"
    for turn in range(8):
        build_site(view, out, pieces=tmp_path / "pieces.db")
        if turn % 4 == 3:
            build_site(view, tmp_path / f"whole-{turn}")
            assert tree(out) == tree(tmp_path / f"whole-{turn}")
        view = changed(view, rng)


@pytest.mark.usefixtures("_spare")
def test_what_did_not_change_is_the_same_file_and_is_not_loaded(tmp_path):
    """Pages of other forks keep inode and time over three builds, and nobody asks for their documents."""
    asked: list[str] = []
    whole = {scan.repo: scan for scan in small().releases[0].scans}

    class Stored:
        """Rows without documents."""

        def whole(self, row):
            asked.append(row.repo)
            return whole[row.repo]

        def version(self, row):
            return repr(row)

        def samples(self, _row, history):
            return history.samples

    out = tmp_path / "site"
    page = out / "forks" / small().releases[0].scans[1].repo.lower() / "index.html"
    seen = set()
    for day in range(4):
        (release,) = small().releases
        rows = [light(scan) for scan in release.scans]
        rows[0] = replace(rows[0], hub=replace(rows[0].hub, downloads=day))
        stored = replace(release, scans=tuple(rows), documents=Stored())
        asked.clear()
        build_site(samples.with_releases(stored), out)
        assert set(asked) == (whole.keys() if day == 0 else {rows[0].repo})
        seen.add((page.stat().st_ino, page.stat().st_mtime_ns))
    assert len(seen) == 1


@pytest.mark.parametrize("damage", ["missing", "cut", "other-templates", "old-format", "climbs"])
def test_a_manifest_that_does_not_hold_is_no_manifest(tmp_path, damage):
    """Everything is rendered, what is the same stays the same file, and the manifest is whole again."""
    out = tmp_path / "site"
    build_site(small(), out)
    before = tree(out)
    inode = (out / "index.html").stat().st_ino
    text = (out / NAME).read_text()
    match damage:
        case "missing":  # only the content of the file: without the file the folder is not ours
            (out / NAME).write_text("")
        case "cut":
            (out / NAME).write_text(text[: len(text) // 2])
        case "other-templates":
            (out / NAME).write_text(text.replace(text.split("\t")[1], "0" * 64, 1))
        case "old-format":
            (out / NAME).write_text("forkwatch.site/1\n")
        case "climbs":
            (out / NAME).write_text(text.replace("\tindex.html\t", "\t../index.html\t"))
            assert from_text((out / NAME).read_text()) is None
    (out / "how-to-read.html").write_text("changed by hand")
    report = build_site(small(), out)
    assert report.rendered == len(read_manifest(out).files)
    assert tree(out) == before or damage == "other-templates"
    assert (out / "index.html").stat().st_ino == inode


@pytest.mark.usefixtures("_spare")
def test_a_site_that_was_changed_by_hand_can_be_built(tmp_path):
    """Deleted, added and changed files are put right by a full build, also in the spare."""
    out = tmp_path / "site"
    build_site(small(), out)
    before = tree(out)
    build_site(other(), out)
    for site in (out, switch.spare(out)):
        if site.exists():
            (site / "how-to-read.html").unlink()
            (site / "stray.txt").write_text("x")
    build_site(small(), out, full=True)
    assert tree(out) == before
    build_site(other(), out)
    build_site(small(), out)
    assert tree(out) == before


BUILDER = """
import sys
from pathlib import Path
from reports import build
from tests.reports.test_build import other, small
build.SPARE_FROM = 0
views = small(), other()
build.build_site(views[0], Path(sys.argv[1]))
print("ready", flush=True)
for turn in range(1, 10_000):
    build.build_site(views[turn % 2], Path(sys.argv[1]), full=turn % 3 == 0)
"""


def test_kill_with_a_spare_leaves_a_whole_site(tmp_path):
    """As without one: one of two sites byte for byte, whatever state the spare is in."""
    build_site(small(), tmp_path / "a")
    build_site(other(), tmp_path / "b")
    whole = [tree(tmp_path / "a"), tree(tmp_path / "b")]
    out, root, rng = tmp_path / "public" / "site", Path(__file__).parents[2], random.Random(1)
    for _ in range(2):
        child = subprocess.Popen(
            [sys.executable, "-c", BUILDER, str(out)],
            stdout=subprocess.PIPE,
            cwd=root,
            env=os.environ | {"PYTHONPATH": str(root)},
        )
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        time.sleep(0.2 * rng.random())
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        assert tree(out) in whole
    build_site(small(), out)
    assert tree(out) == whole[0]
