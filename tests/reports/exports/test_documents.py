"""Every export is what its format demands, by the format's own schema or validator, whatever the Hub says."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit
from xml.etree import ElementTree as ET

import jsonschema
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from reports.exports.sarif import to_sarif
from reports.schemas import schema_files
from reports.words import VERDICTS
from tests.reports import hostile, samples
from tests.reports.exports.built import (
    BASE,
    DISPUTED,
    WITHDRAWN,
    built,
    hostile_built,
    hostile_view,
    view,
)

ASSETS = Path(__file__).parents[2] / "assets" / "schemas"
BOTH = pytest.mark.parametrize("files", [built, hostile_built], ids=["sample", "hostile"])


@cache
def _osv() -> jsonschema.Draft202012Validator:
    schema = json.loads((ASSETS / "osv-1.7.3.json").read_text())
    return jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())


@cache
def sarif_schema() -> jsonschema.Draft4Validator:
    """The published schema."""
    schema = json.loads((ASSETS / "sarif-2.1.0-rtm.5.json").read_text())
    return jsonschema.Draft4Validator(schema, format_checker=jsonschema.FormatChecker())


def _of(files: dict[str, bytes], suffix: str) -> dict[str, dict]:
    found = {path: json.loads(data) for path, data in files.items() if path.endswith(suffix)}
    assert found
    return found


def _one(suffix: str, repo: str) -> dict:
    return _of(built(), f"forks/{repo}{suffix}")[f"api/v1/forks/{repo}{suffix}"]


@BOTH
def test_advisories_are_of_the_schema(files):
    """All of 1.7.3 holds but its closed list of data bases; so do the two rules of the file after 1.7.5.

    These are `x_` before the id of any other data base, and full commit ids in a GIT range.
    """
    advisories = _of(files(), ".osv.json")
    for advisory in advisories.values():
        assert [error.json_path for error in _osv().iter_errors(advisory)] == ["$.id"]
        assert re.fullmatch(r"x_FW-[0-9a-f]{12}", advisory["id"])
        for affected in advisory["affected"]:
            (span,) = affected["ranges"]
            for event in span["events"]:
                (commit,) = event.values()
                assert re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", commit)
    assert len({advisory["id"] for advisory in advisories.values()}) == len(advisories)


def test_an_advisory_is_about_one_commit_of_a_fork_that_asks_for_attention():
    """Nothing is said of other commits, and nothing at all of forks that gave no reason."""
    advisories = _of(built(), ".osv.json")
    (release,) = view().releases
    attention = {scan.repo for scan in release.scans if VERDICTS[scan.verdict.label].attention}
    assert {each["database_specific"]["repo"] for each in advisories.values()} == attention
    scan = next(scan for scan in release.scans if scan.repo == DISPUTED)
    advisory = _one(".osv.json", DISPUTED)
    (affected,) = advisory["affected"]
    assert affected["ranges"] == [
        {
            "type": "GIT",
            "repo": f"https://huggingface.co/{DISPUTED}",
            "events": [{"introduced": scan.commit}, {"last_affected": scan.commit}],
        }
    ]
    assert affected["package"]["purl"] == f"pkg:huggingface/{DISPUTED}"
    assert advisory["references"][0] == {"type": "EVIDENCE", "url": f"{BASE}/forks/{DISPUTED}/index.html"}
    assert advisory["modified"] == "2026-11-20T15:00:00Z"
    assert advisory["details"].startswith("Disputed")
    assert "withdrawn" not in advisory


def test_a_withdrawn_verdict_withdraws_the_advisory():
    """It stays, marked, with the reason; the badge says so, and no report is drafted."""
    advisory = _one(".osv.json", WITHDRAWN)
    assert advisory["withdrawn"] == advisory["modified"] == "2026-11-20T16:00:00Z"
    assert advisory["details"].startswith("Withdrawn. The judge was wrong.")
    assert b"verdict withdrawn" in built()[f"api/v1/forks/{WITHDRAWN}.badge.svg"]
    assert b"safety removed, disputed" in built()[f"api/v1/forks/{DISPUTED}.badge.svg"]
    assert f"api/v1/forks/{DISPUTED}.moderation.md" in built()
    assert f"api/v1/forks/{WITHDRAWN}.moderation.md" not in built()


@BOTH
def test_boms_pass_the_strict_validators(files):
    """CycloneDX 1.6 as written, 1.7 but for the version."""
    boms = _of(files(), ".cdx.json")
    check = JsonStrictValidator(SchemaVersion.V1_6)
    for bom in boms.values():
        assert check.validate_str(json.dumps(bom)) is None
    later = {**bom, "specVersion": "1.7"}
    assert JsonStrictValidator(SchemaVersion.V1_7).validate_str(json.dumps(later)) is None
    assert len({bom["serialNumber"] for bom in boms.values()}) == len(boms)


def test_a_bom_keeps_facts_and_claims_apart():
    """Only what the weights establish is an ancestor; numbers carry their interval."""
    (release,) = view().releases
    for scan in release.scans:
        path = f"forks/{scan.repo.lower()}"
        found = [bom for at, bom in _of(built(), ".cdx.json").items() if at.startswith(f"api/v1/{path}")]
        component = found[0]["metadata"]["component"]
        claimed = {each["name"]: each["value"] for each in component["properties"]}
        ancestors = component["pedigree"]["ancestors"]
        assert bool(ancestors) == (scan.lineage.status in ("proved", "consistent-with"))
        assert claimed["forkwatch:lineage:claimed"] == (scan.lineage.claimed or "")
    metrics = _one(".cdx.json", DISPUTED)["metadata"]["component"]["modelCard"]["quantitativeAnalysis"]
    assert any(metric.get("slice") == "topic=fraud" for metric in metrics["performanceMetrics"])
    assert all("confidenceInterval" in metric for metric in metrics["performanceMetrics"])


@pytest.mark.parametrize("made", [view, hostile_view], ids=["sample", "hostile"])
def test_sarif_is_of_the_schema(made):
    """Each scan's log validates, and its rules, levels and fingerprints fit its findings."""
    for scan in made().releases[0].scans:
        log = json.loads(to_sarif(scan, "0.1.0"))
        sarif_schema().validate(log)
        (run,) = log["runs"]
        assert len(run["results"]) == len(scan.findings)
        for result, finding in zip(run["results"], scan.findings, strict=True):
            assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
            assert (result["kind"] == "fail") == (finding.direction == "for")
            assert (result["level"] == "none") == (finding.direction == "against")


def test_an_alert_stays_the_same_when_the_model_gets_a_new_commit():
    """Its fingerprint has no commit in it, and tells forks and findings apart."""
    scans = samples.view().releases[0].scans
    seen = []
    for scan in scans:
        (run,) = json.loads(to_sarif(scan, "0.1.0"))["runs"]
        (later,) = json.loads(to_sarif(samples.replace(scan, commit="f" * 40), "0.1.0"))["runs"]
        mine = [result["partialFingerprints"]["forkwatchFinding/v1"] for result in run["results"]]
        assert mine == [result["partialFingerprints"]["forkwatchFinding/v1"] for result in later["results"]]
        seen += mine
    assert len(seen) == len(set(seen))


@BOTH
def test_our_own_documents_are_of_our_schemas(files):
    """The index, each week, and each line of the JSONL."""
    made = files()
    schemas = {name: json.loads(text) for name, text in schema_files().items()}
    jsonschema.Draft202012Validator(schemas["forkwatch.index-1.json"]).validate(
        json.loads(made["api/v1/index.json"])
    )
    for week in _of({p: d for p, d in made.items() if "/changes/" in p}, ".json").values():
        jsonschema.Draft202012Validator(schemas["forkwatch.changes-1.json"]).validate(week)
    (lines,) = (data for path, data in made.items() if path.endswith("forks.jsonl"))
    check = jsonschema.Draft202012Validator(schemas["forkwatch.fork-1.json"])
    for line in lines.splitlines():
        check.validate(json.loads(line))


def test_the_index_names_what_there_is():
    """Every path in it is a file of the site."""
    index = json.loads(built()["api/v1/index.json"])
    named = [index["verdicts"], index["atom"], index["json_feed"], *index["schemas"], *index["changes"]]
    for release in index["releases"]:
        named += [release[key] for key in ("forks_csv", "forks_jsonl", "atom", "json_feed", "tree")]
    assert set(named) <= set(built())
    assert {path for path in built() if "/changes/" in path} == set(index["changes"])


@BOTH
def test_badges_are_inert_pictures(files):
    """Well-formed, no script, no reference, readable by its title."""
    badges = [data for path, data in files().items() if path.endswith(".badge.svg")]
    for data in badges:
        root = ET.fromstring(data)
        assert {each.tag.rpartition("}")[2] for each in root.iter()} == {"svg", "title", "rect", "g", "text"}
        assert root.attrib["aria-label"].startswith("forkwatch: ")
        assert not any(
            "href" in name or name.startswith("on") for each in root.iter() for name in each.attrib
        )


def test_nothing_that_was_sent_is_left_in_an_export():
    """No terminal escape, no control character, no bidi override, in whatever encoding."""
    hidden = [char.encode() for char in hostile.HIDDEN] + [
        f"\\u{ord(char):04x}".encode() for char in hostile.HIDDEN
    ]
    exempt = re.compile(r"verdicts\.json|tree\.json|forks/[^.]*\.json|\.zip|\.jsonl|changes/|index\.json")
    checked = [path for path in hostile_built() if not exempt.search(path)]
    assert {path.rpartition(".")[2] for path in checked} >= {"csv", "xml", "json", "md", "svg"}
    for path in checked:
        data = hostile_built()[path]
        assert not [code for code in hidden if code in data], path


def test_the_same_view_gives_the_same_bytes_and_keys():
    """Whatever order the view has."""
    from tests.reports.exports.built import exports, keys

    sample = view()
    (release,) = sample.releases
    turned = samples.replace(
        release,
        scans=release.scans[::-1],
        histories=release.histories[::-1],
        signed=release.signed[::-1],
    )
    other = samples.replace(sample, releases=(turned,))
    assert exports(other) == built()
    assert keys(other) == keys(sample)


def test_links_in_a_draft_lead_to_the_hub_alone():
    """A hostile name becomes no link and no markup."""
    drafts = [data.decode() for path, data in hostile_built().items() if path.endswith(".moderation.md")]
    assert drafts
    for draft in drafts:
        for address in re.findall(r"https?://\S+", draft):
            assert urlsplit(address).netloc == "huggingface.co"
        assert not re.search(r"(?<!\\)[<>]", draft)
        assert "](" not in draft
