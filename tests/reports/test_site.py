"""The site: deterministic, complete, linked, and inert whatever the Hub says."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from reports.build import build_site
from reports.interface import EmptySiteError, NotASiteError
from reports.manifest import NAME as MARKER
from reports.verdicts import verdicts
from tests.reports import hostile, samples
from tests.reports.html_tools import broken_links, pages_of, tree

RELEASE_PAGE = "releases/demo/smollm2-135m-guarded/index.html"


def test_the_same_view_gives_the_same_bytes(site, tmp_path):
    """Built elsewhere, later and with the forks in another order, the site is the same."""
    sample = samples.view()
    (release,) = sample.releases
    shuffled = replace(
        release, scans=release.scans[::-1], gaps=release.gaps[::-1], changes=release.changes[::-1]
    )
    build_site(replace(sample, releases=(shuffled,)), tmp_path / "again")
    assert tree(tmp_path / "again") == tree(site)


def test_a_second_build_touches_nothing(tmp_path):
    """Unchanged pages keep their inode and time; the folder itself is not replaced."""
    out = tmp_path / "site"
    first = build_site(samples.view(), out)
    before = {path: _identity(path) for path in (out, *out.rglob("*"))}
    second = build_site(samples.view(), out)
    assert first.written
    assert not first.unchanged
    assert second.unchanged == first.written
    assert not second.written
    assert not second.removed
    assert {path: _identity(path) for path in before} == before
    assert list(tmp_path.iterdir()) == [out]


def _identity(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_ino, status.st_mtime_ns, status.st_size


def test_one_new_fork_writes_only_the_pages_that_mention_it(tmp_path):
    """The fork's page and document, the lists and the digest change; other pages stay the same files."""
    out = tmp_path / "site"
    build_site(samples.view(), out)
    other = (out / "forks/poet/smollm2-guarded-lora/index.html").stat().st_ino
    report = build_site(
        samples.view(samples.Fork("new/fork", "inconclusive", (), "Nothing yet.", reason="x")), out
    )
    own = {path for path in report.written if "/new/fork" in path}
    assert own >= {"api/v1/forks/new/fork.json", "forks/new/fork/index.html"}
    assert {"index.html", "verdicts.json", "digest/2026-W47.html", RELEASE_PAGE} <= set(report.written)
    about_others = ("forks/", "api/v1/forks/", "findings/", "how-to-read", "api/v1/schema/", "assets/site")
    assert not [path for path in set(report.written) - own if path.startswith(about_others)]
    assert report.rendered == len(report.written)
    assert (out / "forks/poet/smollm2-guarded-lora/index.html").stat().st_ino == other
    assert set(build_site(samples.view(), out).removed) == own


def test_every_internal_link_resolves(site, hostile_site):
    """Pages, assets, documents and anchors exist, also under hostile names."""
    assert broken_links(site) == []
    assert broken_links(hostile_site) == []


def test_every_fork_has_a_page_that_says_what_was_found(pages):
    """Verdict in words, sample size, claim beside fact, commit, signer and command are on each page."""
    view = samples.view()
    (verdicts_of_release,) = verdicts(view).releases
    addresses = {row.repo: row.page for row in verdicts_of_release.verdicts}
    for scan in view.releases[0].scans:
        text = pages[addresses[scan.repo]].text
        for needed in (scan.repo, scan.verdict.summary, scan.commit, scan.original.signer, "It claims"):
            assert needed in text, (scan.repo, needed)
        assert "Its weights show" in text
        assert f"forkwatch scan {scan.repo}" in text
        assert scan.safety.reason in text if scan.safety.reason else "n\u00a0=\u00a0120" in text


def test_the_index_accounts_for_every_candidate(pages):
    """Counts, gaps with reasons and the forks that need a decision are on the first page."""
    text = " ".join(pages["index.html"].text.split())
    assert "19 candidate forks of 1 guarded release" in text
    assert "6 of them need a decision" in text
    assert "gated: its files cannot be read without access" in text
    assert "vanished/smollm2-guarded-x" in text


def test_forks_are_listed_by_name_and_never_offered(pages):
    """The table is in order of names, orders on offer are name and date, and no page leads to the Hub."""
    page = pages[RELEASE_PAGE]
    names = [attrs["data-name"] for attrs in page.all("tr") if "data-name" in attrs]
    assert names == sorted(names)
    assert len(names) == len(samples.FORKS)
    assert {attrs["value"] for attrs in page.all("option")} & {"name", "scanned"} == {"name", "scanned"}
    links = [link for each in pages.values() for link in each.links]
    assert not [link for link in links if "huggingface" in link or link.endswith((".safetensors", ".gguf"))]
    assert {link for link in links if ":" in link} == {
        "https://example.org/survey",
        "mailto:forks@example.org",
    }


def test_every_page_meets_the_basics(pages):
    """Language, policy, one h1, skip link, unique ids, captions, scopes, no inline style or script."""
    for name, page in pages.items():
        if name.startswith("digest/"):
            continue
        policy = next(attrs["content"] for attrs in page.all("meta") if "http-equiv" in attrs)
        assert policy.startswith(
            "default-src 'none'; style-src 'self'; img-src 'self' data:; script-src 'self'"
        ), name
        assert page.all("html") == [{"lang": "en"}], name
        assert [len(page.all(tag)) for tag in ("h1", "main", "style")] == [1, 1, 0], name
        assert any(attrs.get("href") == "#main" for attrs in page.all("a")), name
        assert len(page.ids) == len(set(page.ids)), name
        assert len(page.all("caption")) == len(page.all("table")) or name.startswith(
            ("findings/", "methodology/")
        ), name
        assert all("scope" in attrs for attrs in page.all("th")), name
        assert not [
            attrs for _, attrs in page.tags if "style" in attrs or any(key.startswith("on") for key in attrs)
        ]
        assert [set(attrs) for attrs in page.all("script")] == [{"src", "defer"}], name


def test_a_heatmap_has_its_numbers_as_a_table(pages):
    """What the picture shows can be read."""
    page = pages["forks/abl/smollm2-directional/index.html"]
    assert (
        len(
            [
                1
                for attrs in page.all("rect")
                if re.fullmatch(r"h\d", attrs.get("class", "")) and attrs["width"] == "15"
            ]
        )
        == 210
    )
    assert "0.04" in page.text
    assert "60 of the 210 tensors shown changed (down_proj, o_proj)" in page.text


def test_pages_stay_small(site):
    """No page above 200 kB, the script below 5 kB."""
    sizes = {name: len(data) for name, data in tree(site).items() if name.endswith(".html")}
    assert max(sizes.values()) < 200_000
    assert (site / "assets/site.js").stat().st_size < 5_000


def test_hostile_text_is_text(hostile_pages):
    """Markup, escapes, bidi and endless names from the Hub end as visible characters and nothing else."""
    forks = [page for name, page in hostile_pages.items() if name.startswith("forks/")]
    assert len(forks) == len(samples.FORKS) + 2  # an endless name, and a replaced repository
    for name, page in hostile_pages.items():
        scripts = list(page.all("script"))
        assert len(scripts) == (0 if name.startswith("digest/") else 1), name
        assert not {tag for tag, _ in page.tags} & {"img", "iframe", "object", "form"}, name
        assert not [key for _, attrs in page.tags for key in attrs if key.startswith("on")], name
        assert not [
            link
            for link in page.links
            if "javascript" in link or "\\" in link or "//" in link.replace("https://example.org", "")
        ], name
        assert not set(page.text) & set(hostile.HIDDEN), name
        assert not [
            value for _, attrs in page.tags for value in attrs.values() if set(value) & set(hostile.HIDDEN)
        ], name
        assert len(page.text) < 200_000, name
    assert all(
        "<script>window.pwned=1</script>evil" in page.text for page in forks if "a" * 90 not in page.text
    )
    assert all("{{ 7*7 }}" in page.text for page in forks if "a" * 90 not in page.text)


def test_a_hostile_id_gets_no_command(hostile_pages):
    """What is not a repository id is not put where somebody would paste it into a shell."""
    forks = [page for name, page in hostile_pages.items() if name.startswith("forks/")]
    assert not [page for page in forks if "forkwatch scan" in page.text]


def test_a_repository_under_two_releases_has_two_pages(tmp_path):
    """One page never overwrites the other, and each names the other."""
    sample = samples.view()
    (one,) = sample.releases
    two = replace(one, repo="demo/other", commit="f" * 40, scans=one.scans[:1], gaps=(), changes=())
    build_site(replace(sample, releases=(two, one)), tmp_path / "site")
    found = [name for name in pages_of(tmp_path / "site") if name.startswith("forks/mirror-lab/")]
    assert len(found) == 2
    assert broken_links(tmp_path / "site") == []
    assert all("Also compared with" in pages_of(tmp_path / "site")[name].text for name in found)


def test_names_that_differ_in_case_have_two_pages(tmp_path):
    """No page is lost on a file system that ignores case."""
    twins = (
        samples.Fork("org/twin", "unrelated", (), "One."),
        samples.Fork("Org/Twin", "unrelated", (), "Two."),
    )
    build_site(samples.view(*twins), tmp_path / "site")
    lowered = [name.lower() for name in tree(tmp_path / "site")]
    assert len(lowered) == len(set(lowered))


def test_nothing_to_publish_is_an_error(tmp_path):
    """An empty site would look like a clean one."""
    empty = replace(samples.view().releases[0], scans=(), gaps=(), changes=())
    for view in (samples.with_releases(), samples.with_releases(empty)):
        with pytest.raises(EmptySiteError):
            build_site(view, tmp_path / "site")
    assert list(tmp_path.iterdir()) == []


def test_only_gaps_are_published_as_such(tmp_path):
    """A release of which nothing could be examined has a site that says so."""
    blind = replace(samples.view().releases[0], scans=(), changes=())
    build_site(samples.with_releases(blind), tmp_path / "site")
    text = " ".join(pages_of(tmp_path / "site")["index.html"].text.split())
    assert "0 forks have a verdict" in text
    assert "2 candidates could not be examined" in text


@pytest.mark.parametrize(
    ("signature", "said"),
    [
        ("invalid", "signature does not verify"),
        ("unsigned", "not signed, pinned on first use"),
        ("claimed", "signed by nobody trusted, pinned on first use"),
    ],
)
def test_an_unverified_original_is_said_on_every_page_that_depends_on_it(tmp_path, signature, said):
    """A comparison with bytes of unknown origin never looks like one with the signed release."""
    (release,) = samples.view().releases
    bad = replace(release.original, signature=signature)
    scans = tuple(replace(scan, original=bad) for scan in release.scans)
    build_site(samples.with_releases(replace(release, original=bad, scans=scans)), tmp_path / "site")
    for name, page in pages_of(tmp_path / "site").items():
        if name.startswith(("forks/", "releases/", "digest/", "index")):
            assert said in page.text.lower(), name
            assert "signed manifest" not in page.text, name
            assert "Signature verified" not in page.text, name


def test_a_folder_that_is_not_ours_is_not_replaced(tmp_path):
    """A mistyped path costs nobody their files."""
    out = tmp_path / "home"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(NotASiteError):
        build_site(samples.view(), out)
    assert tree(tmp_path) == {"home/thesis.txt": b"mine"}


def test_an_empty_folder_may_be_filled(tmp_path):
    """A fresh mount point is fine."""
    (tmp_path / "site").mkdir()
    build_site(samples.view(), tmp_path / "site")
    assert (tmp_path / "site" / MARKER).is_file()


def test_digests_of_earlier_weeks_stay(tmp_path):
    """A rebuild keeps the archive, and only the archive."""
    out = tmp_path / "site"
    build_site(samples.view(), out)
    (out / "digest/2026-W46.html").write_text("old")
    (out / "digest/2026-W46.eml").write_text("old")
    (out / "digest/notes.txt").write_text("stray")
    assert build_site(samples.view(), out).removed == ("digest/notes.txt",)
    assert (out / "digest/2026-W46.eml").read_text() == "old"


def test_the_site_is_readable_by_a_web_server(site):
    """Files and folders have ordinary permissions."""
    mask = os.umask(0)
    os.umask(mask)
    assert {
        path.stat().st_mode & 0o777 for path in (site, *(path for path in site.rglob("*") if path.is_dir()))
    } == {0o777 & ~mask}
    assert {path.stat().st_mode & 0o777 for path in site.rglob("*") if path.is_file()} == {0o666 & ~mask}


def test_templates_have_no_way_around_escaping():
    """No template marks anything as safe or turns escaping off."""
    folder = Path(__file__).parents[2] / "reports" / "templates"
    for path in folder.glob("*.*ml"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"\|\s*safe|autoescape|Markup|style=|<script>", text), path.name
