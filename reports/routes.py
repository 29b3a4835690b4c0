"""Where each page lives, and relative links between them, so that the site works under any path and from file://."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from reports.interface import OperatorKey, ReleaseView, ReplacedFork, SiteView
from reports.rows import ForkRow
from reports.text import repo_folder, slug

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Routes:
    """Addresses of pages, relative to the site's root."""

    releases: Mapping[Key, str]
    """(release repo, commit) → folder."""
    forks: Mapping[Key, str]
    """(`release@commit`, fork repo) → folder."""
    replaced: Mapping[Key, str]
    """(`release@commit`, identity) → folder, of repositories whose name another one has."""
    findings: frozenset[str]
    """Ids that have a page."""

    def release(self, release: ReleaseView) -> str:
        """The page of a release."""
        return f"{self.releases[release.repo, release.commit]}/index.html"

    def fork(self, release: ReleaseView, repo: str) -> str | None:
        """The page of a fork of a release, if it has a verdict."""
        folder = self.forks.get((release_key(release), repo))
        return f"{folder}/index.html" if folder else None

    def fork_page(self, release: ReleaseView, repo: str) -> str:
        """The page of a fork that is known to have a verdict."""
        return f"{self.forks[release_key(release), repo]}/index.html"

    def document(self, release: ReleaseView, repo: str) -> str:
        """The JSON document behind a fork's page."""
        return f"api/v1/{self.forks[release_key(release), repo]}.json"

    def former_page(self, release: ReleaseView, former: ReplacedFork) -> str:
        """The page of a repository whose name another one has."""
        return f"{self.replaced[release_key(release), former.identity]}/index.html"

    def former_document(self, release: ReleaseView, former: ReplacedFork) -> str:
        """The JSON document behind it."""
        return f"api/v1/{self.replaced[release_key(release), former.identity]}.json"

    def signed(self, document: str) -> str:
        """The signed verdict beside a JSON document."""
        return document.removesuffix(".json") + ".attestation.json"

    def key(self, key: OperatorKey) -> str:
        """A public key of the operator."""
        return f"api/v1/keys/{key.id}.pem"

    def tree(self, release: ReleaseView) -> str:
        """The family of a release as JSON."""
        return f"api/v1/{self.releases[release.repo, release.commit]}/tree.json"

    def finding(self, finding_id: str) -> str | None:
        """The page of a finding, if there is one."""
        return self.finding_page(finding_id) if finding_id in self.findings else None

    def finding_page(self, finding_id: str) -> str:
        """The page of a finding that is known to have one."""
        return f"findings/{slug(finding_id)}.html"


def release_key(release: ReleaseView) -> str:
    """`org/name@commit`."""
    return f"{release.repo}@{release.commit}"


def sorted_scans(release: ReleaseView) -> tuple[ForkRow, ...]:
    """By name, whatever order the view has. Never by harm."""
    return release.once(_by_name)


def _by_name(release: ReleaseView) -> tuple[ForkRow, ...]:
    return tuple(sorted(release.scans, key=lambda scan: (scan.repo.lower(), scan.repo, scan.commit)))


def sorted_replaced(release: ReleaseView) -> tuple[ReplacedFork, ...]:
    """By name, then by what tells them apart."""
    return tuple(sorted(release.replaced, key=lambda former: (former.scan.repo, former.identity)))


def sorted_releases(view: SiteView) -> tuple[ReleaseView, ...]:
    """By name, then commit."""
    return tuple(sorted(view.releases, key=lambda release: (release.repo, release.commit)))


def routes(view: SiteView) -> Routes:
    """Give every page an address. A repository under two releases gets a page for each."""
    releases: dict[Key, str] = {}
    forks: dict[Key, str] = {}
    replaced: dict[Key, str] = {}
    used: set[str] = set()
    for release in sorted_releases(view):
        folder = f"releases/{repo_folder(release.repo)}"
        releases[release.repo, release.commit] = _free(folder, release.commit, used)
        key = release_key(release)
        for scan in sorted_scans(release):
            forks[key, scan.repo] = _free(f"forks/{repo_folder(scan.repo)}", key, used)
        for former in sorted_replaced(release):
            folder = f"forks/{repo_folder(former.scan.repo)}~{_short(former.identity)}"
            replaced[key, former.identity] = _free(folder, key, used)
    ids = frozenset(finding.id for finding in view.findings)
    return Routes(MappingProxyType(releases), MappingProxyType(forks), MappingProxyType(replaced), ids)


def _free(folder: str, key: str, used: set[str]) -> str:
    if folder in used:
        folder = f"{folder}~{_short(key)}"
    used.add(folder)
    return folder


def _short(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:10]


def relative(source: str, target: str) -> str:
    """A link from page `source` to `target`, both relative to the root."""
    here, there = source.split("/")[:-1], target.split("/")
    same = 0
    while same < min(len(here), len(there) - 1) and here[same] == there[same]:
        same += 1
    return "/".join([".."] * (len(here) - same) + there[same:])
