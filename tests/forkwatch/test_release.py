"""Guarding a release: by each way to say whom to trust, and by nobody's word but its own bytes."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from detector.provenance.sign import generate_key
from evals.suite import CORE
from forkwatch.demo.hub import LoopbackHub
from tests.forkwatch.family import CONFIG, RELEASE, Family, card, publish_release, weights
from tests.forkwatch.pki import issue

BARE = "lab/Bare-1B"
"""A release that nobody signs."""


@pytest.fixture
def family(tmp_path: Path) -> Iterator[Family]:
    """A hub with a signed release and one that is not, and an empty state."""
    hub = LoopbackHub()
    publish_release(hub, tmp_path / "release")
    hub.create_repo(BARE)
    hub.commit(BARE, {"README.md": card(), "config.json": CONFIG, "model.safetensors": weights(5)})
    with hub:
        yield Family(hub, tmp_path / "state")


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return tmp_path / "release.pub"


def configured(tmp_path: Path, body: str, repo: str = RELEASE) -> dict[str, str]:
    """The environment of commands that read these settings."""
    file = tmp_path / "forkwatch.toml"
    file.write_text(f'[releases."{repo}"]\n{body}')
    return {"FORKWATCH_CONFIG": str(file)}


def listed(family: Family) -> list[dict[str, Any]]:
    """`release list`, as data."""
    found: list[dict[str, Any]] = json.loads(family.run("release", "list", "--json").stdout)["releases"]
    return found


def test_a_release_is_added_from_the_settings(family: Family, tmp_path: Path) -> None:
    """The key is beside the settings; what is listed and verified says how it is believed."""
    settings = configured(tmp_path, 'public_key = "release.pub"\n')
    added = family.run("release", "add", RELEASE, **settings)
    verified = json.loads(family.run("release", "verify", "--json", **settings).stdout)["releases"]

    assert added.exit_code == 0, added.stderr
    (row,) = listed(family)
    assert (row["signature"], row["trust"], row["to_decide"]) == ("verified", ["key"], 0)
    assert row["signer"].startswith("ecdsa-sha256:")
    assert [(one["signature"], one["files"]) for one in verified] == [("verified", 2)]


def test_somebody_has_to_say_whom_to_trust(family: Family) -> None:
    """Without options and settings nothing is fetched."""
    done = family.run("release", "add", RELEASE)

    assert done.exit_code == 2
    assert "whom to trust" in done.stderr
    assert not family.hub.requests


@pytest.mark.parametrize(
    "options",
    [("--certificate-root", "{key}"), ("--identity", "me"), ("--public-key", "{key}", "--unsigned")],
    ids=["root without pin", "identity without issuer", "both signed and not"],
)
def test_options_that_do_not_go_together(family: Family, key: Path, options: tuple[str, ...]) -> None:
    """The rules of the settings hold for options as well."""
    done = family.run("release", "add", RELEASE, *(option.format(key=key) for option in options))

    assert done.exit_code == 2
    assert not family.hub.requests


@pytest.mark.parametrize(
    "options",
    [
        ("--certificate-root", "{root}", "--certificate-subject", "CN=lab"),
        ("--certificate-root", "{root}", "--certificate-spki", "0" * 64),
        ("--identity", "me@example.org", "--issuer", "https://issuer.example.org"),
    ],
    ids=["subject", "spki", "keyless"],
)
def test_a_key_signature_is_no_other_signature(
    family: Family, tmp_path: Path, options: tuple[str, ...]
) -> None:
    """Whoever trusts certificates or an identity does not get a release that a key signed."""
    root = issue(tmp_path, "root").certificate
    done = family.run("release", "add", RELEASE, *(option.format(root=root) for option in options))

    assert done.exit_code == 6, done.stderr
    assert not listed(family)


def test_a_trust_that_cannot_be_used_is_the_users_mistake(family: Family, tmp_path: Path) -> None:
    """A file that is no certificate says nothing about the release."""
    file = tmp_path / "garbage"
    file.write_text("not what it should be")
    options = ("--certificate-root", str(file), "--certificate-subject", "CN=lab")
    done = family.run("release", "add", RELEASE, *options)

    assert done.exit_code == 2, done.stderr
    assert not listed(family)


def test_options_must_not_contradict_the_settings(family: Family, tmp_path: Path, key: Path) -> None:
    """Neither wins: they would disagree at every run from then on. The same said twice is fine."""
    settings = configured(tmp_path, "unsigned = true\n")
    assert family.run("release", "add", RELEASE, "--public-key", str(key), **settings).exit_code == 2
    settings = configured(tmp_path, f'public_key = "{key}"\nrevision = "{"0" * 40}"\n')
    assert family.run("release", "add", RELEASE, "--revision", "main", **settings).exit_code == 2
    settings = configured(tmp_path, f'public_key = "{key}"\n')
    assert family.run("release", "add", RELEASE, "--public-key", str(key), **settings).exit_code == 0


def test_settings_that_changed_are_not_adopted(family: Family, tmp_path: Path, key: Path) -> None:
    """Neither the new trust nor the old one is used until somebody says which; then all goes on."""
    assert family.run("release", "add", RELEASE, "--public-key", str(key)).exit_code == 0
    (tmp_path / "other").mkdir()
    other = generate_key(tmp_path / "other").public
    settings = configured(tmp_path, f'public_key = "{other}"\n')
    refused = family.run("run", "--once", **settings)
    checked = family.run("release", "check", "--json", **settings)
    kept = family.run("release", "keep", RELEASE, **settings)
    wrong = family.run("release", "add", RELEASE, "--replace", **settings)
    settings = configured(tmp_path, 'public_key = "release.pub"\nsignature = "model.sig"\n')
    again = family.run("release", "check", **settings)

    assert refused.exit_code == 2
    assert "--replace" in refused.stderr
    (release,) = json.loads(checked.stdout)["releases"]
    assert [event["kind"] for event in release["to_decide"]] == ["settings-changed"]
    assert (checked.exit_code, kept.exit_code, wrong.exit_code, again.exit_code) == (1, 3, 6, 0)


def test_another_pin_needs_replace(family: Family, key: Path) -> None:
    """Adding again what is guarded is nothing; with other trust it is a decision that has to be said."""
    assert family.run("release", "add", RELEASE, "--public-key", str(key)).exit_code == 0
    (before,) = listed(family)
    again = family.run("release", "add", RELEASE, "--public-key", str(key))
    refused = family.run("release", "add", RELEASE, "--public-key", str(key), "--legacy")
    replaced = family.run("release", "add", RELEASE, "--public-key", str(key), "--legacy", "--replace")
    (after,) = listed(family)

    assert (again.exit_code, refused.exit_code, replaced.exit_code) == (0, 2, 0)
    assert "--replace" in refused.stderr
    assert before["root_digest"] == after["root_digest"]


def test_an_unsigned_release_is_pinned_and_says_so(family: Family) -> None:
    """Every file is covered, the card too; each line and the document say that nobody signed it."""
    added = family.run("release", "add", BARE, "--unsigned")
    family.fork("ann/copy", card(BARE), marker=5)
    scanned = family.run("scan", "ann/copy", "--json", "--depth", "match")
    shown = family.run("scan", "ann/copy", "--depth", "match")
    document = json.loads(scanned.stdout)

    assert added.exit_code == 0, added.stderr
    for line in (added.stderr, family.run("release", "list").stdout, family.run("release", "verify").stderr):
        assert "unsigned, pinned on first use" in line
    assert "not signed, pinned on first use" in shown.stdout
    (row,) = listed(family)
    assert (row["signature"], row["signer"], row["trust"]) == ("unsigned", "", ["unsigned"])
    assert (document["original"]["signature"], document["original"]["signer"]) == ("unsigned", "")
    assert document["verdict"]["label"] == "authentic"
    assert document["verdict"]["certainty"] == "consistent-with"
    assert "pinned copy" in document["verdict"]["summary"]
    assert "the signed" not in scanned.stdout
    assert "covered by the signature" not in scanned.stdout


def test_every_page_says_that_nobody_signed_it(family: Family) -> None:
    """Overview, release, fork and digest, and the exports."""
    assert family.run("release", "add", BARE, "--unsigned").exit_code == 0
    family.hub.create_repo("bob/card")
    family.hub.commit("bob/card", {"README.md": card(BARE)})
    done = family.run("run", "--once")
    site = family.state / "site"
    pages = [site / "index.html", *site.glob("releases/**/*.html"), *site.glob("forks/**/index.html")]
    exported = json.loads((site / "verdicts.json").read_text())["releases"][0]["original"]

    assert done.exit_code == 0, done.stderr
    assert len(pages) >= 3
    for page in (*pages, *site.glob("digest/*.html")):
        text = page.read_text()
        assert "ot signed, pinned on first use" in text, page
        assert "Signature verified" not in text, page
    assert (exported["signature"], exported["signer"]) == ("unsigned", "")


@pytest.mark.parametrize("how", ["changed", "added", "removed", "renamed", "linked"])
def test_a_pinned_copy_that_was_tampered_with_is_refused(family: Family, how: str) -> None:
    """One byte, one file more or less, or the same bytes under another name: exit 6, and nothing runs."""
    assert family.run("release", "add", BARE, "--unsigned").exit_code == 0
    config = next((family.state / "originals").rglob("config.json"))
    match how:
        case "changed":
            content = config.read_bytes()
            config.unlink()
            config.write_bytes(content[:-1] + b" ")
        case "added":
            (config.parent / "more.py").write_text("")
        case "removed":
            config.unlink()
        case "renamed":
            config.rename(config.parent / "config.jsoo")
        case _:
            config.rename(family.state / "config.json")
            config.symlink_to(family.state / "config.json")
    done = family.run("release", "verify")
    again = family.run("release", "add", BARE, "--unsigned", "--replace")

    assert (done.exit_code, again.exit_code) == (6, 6), done.stderr + again.stderr
    assert "verified" not in done.stdout
    assert family.run("run", "--once").exit_code == 6


def test_a_broken_signature_is_no_better_for_trusting_nobody(family: Family) -> None:
    """Unsigned means that there is no bundle; one that is garbage is a warning, and is refused."""
    family.hub.commit(BARE, {"model.sig": b"{}"}, replace=False)
    done = family.run("release", "add", BARE, "--unsigned")

    assert done.exit_code == 6
    assert not listed(family)


def test_a_release_that_somebody_signed_is_a_claim_where_nobody_is_trusted(family: Family) -> None:
    """It is pinned like an unsigned one, and no page calls it signed."""
    added = family.run("release", "add", RELEASE, "--unsigned")

    assert added.exit_code == 0, added.stderr
    assert "claimed: signed by nobody you trust, pinned on first use" in added.stderr
    (row,) = listed(family)
    assert (row["signature"], row["signer"]) == ("claimed", "")
    assert family.run("release", "verify").exit_code == 0


def suites(family: Family) -> list[str]:
    """Digests of the prompt suites of the guarded releases."""
    with closing(sqlite3.connect(family.state / "forkwatch.db")) as database:
        return [suite for (suite,) in database.execute("SELECT suite FROM release")]


def test_a_release_keeps_its_prompt_suite(family: Family, tmp_path: Path, key: Path) -> None:
    """Added again without --suite, it has the one that it had; another one has to be allowed."""
    options = ("release", "add", RELEASE, "--public-key", str(key))
    own, other = tmp_path / "own.json", tmp_path / "other.json"
    for indent, file in enumerate((own, other)):
        file.write_text(json.dumps(json.loads(CORE.read_text()), indent=indent))
    assert family.run(*options, "--suite", str(own)).exit_code == 0
    (before,) = suites(family)
    again = family.run(*options)
    replaced = family.run(*options, "--replace")
    refused = family.run(*options, "--suite", str(other))
    kept = suites(family)
    taken = family.run(*options, "--suite", str(other), "--replace")

    assert (again.exit_code, replaced.exit_code, refused.exit_code, taken.exit_code) == (0, 0, 2, 0)
    assert kept == [before] == [hashlib.sha256(own.read_bytes()).hexdigest()]
    assert str(CORE) in again.stderr.replace("\n", "")
    assert "--replace" in refused.stderr
    assert suites(family) == [hashlib.sha256(other.read_bytes()).hexdigest()]


@pytest.mark.parametrize("options", [("--revision", ""), ("--signature", ""), ("--identity", "")])
def test_an_empty_option_is_no_option(family: Family, key: Path, options: tuple[str, str]) -> None:
    """A variable that was not set pins nothing else than what was meant."""
    done = family.run("release", "add", RELEASE, "--public-key", str(key), *options)
    adopted = family.run("release", "adopt", RELEASE, "--revision", "")

    assert (done.exit_code, adopted.exit_code) == (2, 2)
    assert [family.run("release", command, "").exit_code for command in ("verify", "check")] == [2, 2]
    assert "empty" in done.stderr
    assert not family.hub.requests


@pytest.mark.parametrize("path", [".github", ".git/config", ".github/workflows/x.yml", "a/.github"])
def test_files_that_no_loader_looks_at(family: Family, path: str) -> None:
    """A file of git's, or named like its folders, is the same in the pinned copy and in the listing."""
    family.hub.commit(BARE, {path: b"on: push\n"}, replace=False)
    added = [family.run("release", "add", BARE, "--unsigned") for _ in range(2)]

    assert [done.exit_code for done in added] == [0, 0], added[0].stderr + added[1].stderr
    assert family.run("release", "verify").exit_code == 0


def test_settings_are_found_under_any_case(family: Family, tmp_path: Path, key: Path) -> None:
    """The Hub does not tell names apart by case: a section in another one is not a removed section."""
    settings = configured(tmp_path, 'public_key = "release.pub"\n', RELEASE.upper())
    assert family.run("release", "add", RELEASE, **settings).exit_code == 0
    settings = configured(tmp_path, f'public_key = "{key}"\nlegacy = true\n', RELEASE.lower())

    assert family.run("release", "verify", **settings).exit_code == 2
    assert family.run("release", "adopt", RELEASE, **settings).exit_code == 2


def test_a_signer_cannot_write_to_the_terminal(family: Family, key: Path) -> None:
    """The subject of a certificate is text of whoever asked for the certificate."""
    assert family.run("release", "add", RELEASE, "--public-key", str(key)).exit_code == 0
    with closing(sqlite3.connect(family.state / "forkwatch.db")) as database, database:
        database.execute("UPDATE release SET signer = ?", ("x509:CN=a\x1b[2J\u202eb",))

    for command in ("list", "verify"):
        for form in ((), ("--json",)):
            done = family.run("release", command, *form)
            assert done.exit_code == 0, done.output
            assert not {"\x1b", "\u202e"} & set(done.output), command
