"""Documents survive the way through JSON, and nothing else passes for one."""

from __future__ import annotations

import json
from dataclasses import replace

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports import verdicts
from reports.document import from_json, json_schema, to_json
from reports.interface import InvalidDocumentError
from reports.scan import EvidenceView, RateView
from reports.schemas import FOLDER, schema_files, write_schemas
from tests.reports import samples

SCANS = samples.view().releases[0].scans
ONE = next(scan for scan in SCANS if scan.repo == "abl/smollm2-directional")


@pytest.mark.parametrize("scan", SCANS, ids=lambda scan: scan.repo)
def test_a_document_is_what_its_json_says(scan):
    """Reading what was written gives an equal document, and writing that gives the same bytes."""
    text = to_json(scan)
    assert from_json(text) == scan
    assert to_json(from_json(text)) == text


@given(st.text(st.characters(exclude_categories=("Cs",))), st.floats(allow_nan=False, allow_infinity=False))
def test_any_text_and_number_survive(text, number):
    """Hostile text and extreme numbers come back unchanged."""
    evidence = (
        EvidenceView(text, number),
        EvidenceView("b", True),
        EvidenceView("i", 3),
        EvidenceView("s", text),
    )
    scan = replace(ONE, edits=(replace(ONE.edits[0], evidence=evidence),))
    assert from_json(to_json(scan)).edits[0].evidence == evidence


def test_the_text_is_canonical():
    """`schema` comes first, the text is ASCII, and bidi characters are escaped in it."""
    text = to_json(replace(ONE, repo="a/\u202eb\x1b[2J"))
    assert next(iter(json.loads(text))) == "schema"
    assert text.isascii()
    assert text.endswith("}\n")
    assert "\\u202e" in text
    assert "\x1b" not in text


def test_a_lone_surrogate_becomes_a_replacement_character():
    """Text that UTF-8 cannot carry is replaced, not passed on and not a crash."""
    assert from_json(to_json(replace(ONE, repo="a/\ud800b"))).repo == "a/\ufffdb"


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_not_finite_is_not_written(number):
    """NaN never reaches a document."""
    rate = RateView(rate=number, n=1, ci=(0.0, 1.0))
    scan = replace(ONE, safety=replace(ONE.safety, ungradeable=rate))
    with pytest.raises(InvalidDocumentError, match="finite"):
        to_json(scan)


def _edited(**changes: object) -> str:
    return json.dumps(json.loads(to_json(ONE)) | changes)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "[" * 100_000,
        _edited(schema="forkwatch.scan/2"),
        _edited(repo=7),
        _edited(files={"identical": "1", "changed": 0, "added": 0, "missing": 0}),
        _edited(files={"identical": 1}),
        _edited(verdict={**json.loads(to_json(ONE))["verdict"], "label": "fine"}),
        to_json(ONE).replace('"requests": 9', '"requests": NaN'),
        to_json(ONE).replace('"seconds": 125.0', '"seconds": 1e999'),
    ],
    ids=["empty", "list", "deep", "schema", "type", "coercion", "missing", "label", "nan", "overflow"],
)
def test_what_is_not_a_document_is_refused(text):
    """No coercion, no missing field, no unknown verdict, no number out of range."""
    with pytest.raises(InvalidDocumentError):
        from_json(text)


def test_a_field_from_the_future_is_ignored():
    """Documents gain fields: a reader of today reads a document of tomorrow."""
    assert from_json(_edited(novelty={"a": 1})) == ONE


def test_the_schema_accepts_every_document_and_knows_every_field():
    """The schema is valid JSON Schema 2020-12, and no key of a document is missing in it."""
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(_closed(schema))
    for scan in SCANS:
        validator.validate(json.loads(to_json(scan)))
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(json.loads(to_json(ONE)) | {"scema": 1})


def test_the_schema_refuses_a_document_without_schema():
    """`schema` is required although the type has a default for it."""
    document = json.loads(to_json(ONE))
    del document["schema"]
    with pytest.raises(jsonschema.ValidationError, match="'schema' is a required property"):
        jsonschema.Draft202012Validator(json_schema()).validate(document)


def _closed(schema: object) -> object:
    """The schema with every object closed, so that a key it does not know is an error."""
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(item) for key, item in schema.items()}
    return {**closed, "additionalProperties": False} if "properties" in schema else closed


def test_the_checked_in_schemas_are_current(tmp_path):
    """`reports.schemas.write_schemas()` would change nothing."""
    assert {path.name for path in FOLDER.glob("*.json")} == set(schema_files())
    for path in write_schemas(tmp_path):
        assert (FOLDER / path.name).read_text(encoding="utf-8") == path.read_text(encoding="utf-8")


def test_verdicts_survive_too():
    """`verdicts.json` reads back equal, validates, and names the page and document of each fork."""
    text = verdicts.verdicts_json(samples.view())
    document = verdicts.from_json(text)
    assert document == verdicts.verdicts(samples.view())
    jsonschema.Draft202012Validator(verdicts.json_schema()).validate(json.loads(text))
    (release,) = document.releases
    assert [row.repo for row in release.verdicts] == sorted(
        (fork.name for fork in samples.FORKS), key=str.lower
    )
    assert {row.verdict for row in release.verdicts} == {fork.label for fork in samples.FORKS}
    assert [gap.repo for gap in release.gaps] == [
        "locked/smollm2-guarded-gated",
        "vanished/smollm2-guarded-x",
    ]
