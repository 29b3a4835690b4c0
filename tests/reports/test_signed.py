"""What the publisher signed about a release, and what the operator signed about forks, on the site."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from reports import attestation
from reports.attestation import VerdictPredicate, document_digest
from reports.build import build_site
from reports.card import BaselineView, ReleaseCardDocument, ThresholdsView
from reports.document import to_json
from reports.interface import InvalidDocumentError, OperatorKey, SignedVerdict, SiteView
from reports.scan import RateView, UnmeasuredView
from reports.site import site_files
from tests.reports import samples
from tests.reports.html_tools import broken_links, parse
from tests.reports.sample_forks import RELEASE

EVIL = '</dd><script>alert(1)</script>\u202e"\x1b[2J'
BASELINE = BaselineView(
    refusal=RateView(rate=0.95, n=72, ci=(0.88, 0.98)),
    over_refusal=RateView(rate=0.1, n=72, ci=(0.05, 0.2)),
    ungradeable=UnmeasuredView(unmeasured=EVIL),
    suite=EVIL,
    suite_digest="sha256:1",
    judge=EVIL,
    device=EVIL,
    isolation=EVIL,
    measured_at=EVIL,
    subject="sha256:2",
)
CARD = ReleaseCardDocument(
    name=EVIL,
    license=EVIL,
    intended_use=EVIL,
    languages=(EVIL, "en"),
    contacts=(EVIL,),
    baseline=BASELINE,
    thresholds=ThresholdsView(degraded_drop=0.15, removed_below=0.5),
)
FORK = "abl/smollm2-directional"
PAGE = f"forks/{FORK}/index.html"
RELEASE_PAGE = f"releases/{RELEASE.lower()}/index.html"


def site(**changes: object) -> dict[str, str]:
    """The sample's site with changes to its release."""
    view = samples.view()
    return dict(site_files(replace(view, releases=(replace(view.releases[0], **changes),))))


def signed_view() -> SiteView:
    view = samples.view()
    release = replace(view.releases[0], signed=(SignedVerdict(repo=FORK, bundle='{"a": 1}\n'),))
    keys = (
        OperatorKey(id="a" * 64, pem="OLD\n", current=False),
        OperatorKey(id="b" * 64, pem="NEW\n", current=True),
    )
    return replace(view, releases=(release,), keys=keys)


@pytest.mark.parametrize("baseline", [BASELINE, UnmeasuredView(unmeasured=EVIL)], ids=["measured", "not"])
def test_a_card_is_text(baseline: BaselineView | UnmeasuredView) -> None:
    """Every field of a hostile card is shown, as text."""
    page = site(card=replace(CARD, baseline=baseline))[RELEASE_PAGE]
    shown = parse(page).text
    assert not parse(page).all("img")
    assert "What its publisher says" in page
    assert "&lt;script&gt;alert(1)" in page
    assert "<script>alert" not in page
    assert "\u202e" not in page
    assert "\x1b" not in page
    assert ("Ungradeable" in shown) == (baseline is BASELINE)


def test_a_release_without_a_card() -> None:
    """No empty section."""
    assert "What its publisher says" not in site()[RELEASE_PAGE]


def test_signed_verdicts_have_files_and_links(tmp_path: Path) -> None:
    """The bundle beside its document, the keys under their ids, and the page of that fork names both."""
    build_site(signed_view(), tmp_path / "site")
    assert broken_links(tmp_path / "site") == []
    files = dict(site_files(signed_view()))
    assert files[f"api/v1/forks/{FORK}.attestation.json"] == '{"a": 1}\n'
    assert [files[f"api/v1/keys/{letter * 64}.pem"] for letter in "ab"] == ["OLD\n", "NEW\n"]
    assert f"{FORK.split('/')[1]}.attestation.json" in files[PAGE]
    assert "b" * 64 in files[PAGE]
    assert "a" * 64 not in files[PAGE]
    assert sum(".attestation.json" in text for path, text in files.items() if path.endswith(".html")) == 1


def test_the_digest_of_a_document() -> None:
    """It stands for what is said, whatever the spelling; not for figures that change by themselves."""
    scan = samples.view().releases[0].scans[0]
    digest = document_digest(to_json(scan))
    assert document_digest(to_json(scan).replace("\n", " ")) == digest
    assert document_digest(to_json(replace(scan, hub=replace(scan.hub, downloads=7)))) == digest
    assert document_digest(to_json(replace(scan, commit="0" * 40))) != digest
    for text in ("[]", "{", "[" * 99999):
        with pytest.raises(InvalidDocumentError):
            document_digest(text)


def test_the_schema_of_the_predicate() -> None:
    """It is valid, and required is what every predicate has."""
    schema = attestation.json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$id"] == attestation.PREDICATE_TYPE
    assert set(schema["required"]) == set(VerdictPredicate.__dataclass_fields__)
