"""The published JSON Schemas, as files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

FOLDER = Path(__file__).parent / "schema"
"""Where the checked-in copies live."""


def schema_files() -> Mapping[str, str]:
    """File name to content, for every document type we publish."""
    from reports import (  # every kind of document there is, which a site's build does not ask for
        attestation,
        attribution,
        card_json,
        classifier_json,
        diff,
        document,
        effort_json,
        evaluation_json,
        robustness,
        tree_json,
        verdicts,
    )
    from reports.exports import api, rows  # they are planned together with these schemas

    schemas = {
        "forkwatch.output-classifier-1.json": classifier_json.json_schema(),
        "forkwatch.release-card-1.json": card_json.json_schema(),
        "forkwatch.verdict-1.json": attestation.json_schema(),
        "forkwatch.classify-1.json": attribution.json_schema(),
        "forkwatch.eval-1.json": evaluation_json.json_schema(),
        "forkwatch.index-1.json": api.index_schema(),
        "forkwatch.changes-1.json": api.changes_schema(),
        "forkwatch.fork-1.json": rows.json_schema(),
        "forkwatch.diff-1.json": diff.json_schema(),
        "forkwatch.effort-1.json": effort_json.json_schema(),
        "forkwatch.robustness-1.json": robustness.json_schema(),
        "forkwatch.scan-1.json": document.json_schema(),
        "forkwatch.tree-1.json": tree_json.json_schema(),
        "forkwatch.verdicts-1.json": verdicts.json_schema(),
    }
    return {name: json.dumps(schema, indent=2) + "\n" for name, schema in schemas.items()}


def published() -> Mapping[str, str]:
    """The same, as they are checked in: a site is built without generating them."""
    return {path.name: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.json"))}


def write_schemas(folder: Path = FOLDER) -> tuple[Path, ...]:
    """Write them to `folder` and say which files they are."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, content in schema_files().items():
        path = folder / name
        path.write_text(content, encoding="utf-8")
        paths.append(path)
    return tuple(paths)
