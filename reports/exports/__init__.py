"""Files of the site for machines, as entries of its plan; see `reports.plan`.

A new export is an `Entry(path, key, render)` yielded by one of the functions below. Its key covers all that
it depends on: `site.key`, `release.key` or `fork.key`.
"""

from __future__ import annotations

from collections.abc import Iterator

from reports import document, schemas, tree_json, verdicts
from reports.context import Fork, Release, Site
from reports.plan import Entry, digest, fixed


def site_exports(site: Site) -> Iterator[Entry]:
    """Files about no release in particular."""
    yield Entry("verdicts.json", digest("verdicts", site.key), lambda: verdicts.verdicts_json(site.view))
    for name, text in schemas.schema_files().items():
        yield fixed(f"api/v1/schema/{name}", text)
    for key in site.view.keys:
        yield fixed(site.routes.key(key), key.pem)


def release_exports(release: Release) -> Iterator[Entry]:
    """Files about one release."""
    tree = release.view.tree
    if tree is not None:
        path = release.site.routes.tree(release.view)
        yield Entry(path, digest("tree", tree), lambda: tree_json.to_json(tree))


def fork_exports(fork: Fork) -> Iterator[Entry]:
    """Files about one fork. Its document is loaded when one is rendered."""
    yield Entry(fork.document, digest("document", fork.key), lambda: document.to_json(fork.scan()))
    if fork.bundle is not None:
        yield fixed(fork.site.routes.signed(fork.document), fork.bundle)
