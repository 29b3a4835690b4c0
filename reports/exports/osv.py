"""OSV-shaped advisories (1.7.5): a fork whose verdict asks for attention, or once did.

An advisory is never deleted. When the verdict is withdrawn, or another one took its place that asks for no
attention, it is marked as withdrawn. The id begins with `x_`, as that of no registered data base, which the
schema allows since its tag 1.7.5. It follows from the release and the fork's name: a renamed fork gets
another id and keeps the former one as an alias. The range is exactly the commit that was examined;
nothing is said about others. A model is in none of OSV's ecosystems, so the range is of the type GIT on the
Hub's repository.
"""

from __future__ import annotations

from reports.context import Fork
from reports.exports.names import hub_url, is_commit, newest, purl, short_digest, zulu
from reports.exports.rows import line
from reports.pretty import pretty
from reports.routes import release_key
from reports.summary import former_names, withdrawal
from reports.text import clean
from reports.words import VERDICTS

VERSION = "1.7.5"


def has_advisory(fork: Fork) -> bool:
    """Whether a verdict about it asks for attention, or one ever did."""
    labels = {fork.row.verdict.label, *(change.after for change in fork.changes)}
    return any(VERDICTS[label].attention for label in labels)


def to_osv(fork: Fork) -> bytes:
    """The advisory as JSON, in ASCII."""
    return (pretty(osv(fork)) + "\n").encode("ascii")


def osv(fork: Fork) -> dict[str, object]:
    """The advisory."""
    row, word = fork.row, VERDICTS[fork.row.verdict.label]
    withdrawn = withdrawn_at(fork)
    about = line(fork)
    repo = clean(row.repo, 200)
    document: dict[str, object] = {
        "schema_version": VERSION,
        "id": advisory_id(fork),
        "published": zulu(fork.first),
        "modified": newest(row.scanned_at, fork.since, withdrawn, about.gone_at, *_decided(fork)),
    }
    if withdrawn is not None:
        document["withdrawn"] = withdrawn
    if fork.history is not None and (former := former_names(fork.history)):
        document["aliases"] = [_id(fork, name) for name in former]
    document |= {
        "summary": f"{repo}: {word.title.lower()}, compared with {clean(fork.release.view.repo, 200)}",
        "details": _details(fork, withdrawn),
        "affected": _affected(fork),
        "references": _references(fork),
        "credits": [{"name": "forkwatch", "type": "TOOL"}],
        "database_specific": {
            "verdict": row.verdict.label,
            "certainty": row.verdict.certainty,
            "release": clean(release_key(fork.release.view), 300),
            "repo": repo,
            "commit": clean(row.commit, 64),
            "lineage": row.lineage.status,
            "safety": row.safety.status,
            "refusal_original": about.refusal_original,
            "refusal_fork": about.refusal_fork,
            "refusal_n": about.refusal_n,
            "disputed": about.disputed,
            "gone_at": about.gone_at,
            "page": fork.path,
            "document": fork.document,
        },
    }
    return document


def advisory_id(fork: Fork) -> str:
    """`x_FW-` and twelve hex digits."""
    return _id(fork, fork.row.repo)


def withdrawn_at(fork: Fork) -> str | None:
    """Since when nothing is alleged any more; None while something is."""
    withdrawn = withdrawal(fork.disputes)
    if withdrawn is not None:
        return zulu(withdrawn.decided_at or withdrawn.opened_at)
    return None if VERDICTS[fork.row.verdict.label].attention else zulu(fork.since)


def _id(fork: Fork, repo: str) -> str:
    identity = "" if fork.former is None else fork.former.identity
    return f"x_FW-{short_digest(fork.release.view.repo, repo, identity)}"


def _decided(fork: Fork) -> list[str]:
    return [dispute.decided_at or dispute.opened_at for dispute in fork.disputes]


def _details(fork: Fork, withdrawn: str | None) -> str:
    parts = [
        clean(fork.row.verdict.summary, 600),
        VERDICTS[fork.row.verdict.label].meaning,
        "A verdict is about one commit, says nothing about a person, and lists what was not measured.",
    ]
    if withdrawn is not None:
        decided = withdrawal(fork.disputes)
        why = "" if decided is None else clean(decided.decision, 600)
        parts.insert(0, f"Withdrawn. {why or 'A later verdict asks for no attention.'}")
    elif any(dispute.status == "open" for dispute in fork.disputes):
        parts.insert(0, "Disputed: a dispute about this verdict is open.")
    return "\n\n".join(parts)


def _affected(fork: Fork) -> list[dict[str, object]]:
    """The commit that was examined; empty where the name or the commit is none that the Hub could have."""
    row = fork.row
    url, commit = hub_url(row.repo), row.commit.lower()
    if url is None or not is_commit(commit):
        return []
    events = [{"introduced": commit}, {"last_affected": commit}]
    package = {"ecosystem": "GIT", "name": row.repo, "purl": purl(row.repo, "")}
    return [{"package": package, "ranges": [{"type": "GIT", "repo": url, "events": events}]}]


def _references(fork: Fork) -> list[dict[str, str]]:
    found = []
    base = fork.site.view.base_url
    if base is not None:
        found.append({"type": "EVIDENCE", "url": f"{base.rstrip('/')}/{fork.path}"})
    url = hub_url(fork.row.repo)
    if url is not None:
        found.append({"type": "PACKAGE", "url": url})
    return found
