"""`forkwatch diff` as a user runs it, and what it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
from typer.testing import Result

from reports.diff import from_json, json_schema
from tests.forkwatch.conftest import invoke

NOWHERE = "http://127.0.0.1:9"


def run_diff(state: Path, *arguments: str | Path, endpoint: str = NOWHERE) -> Result:
    environment = {"FORKWATCH_HUB__ENDPOINT": endpoint, "FORKWATCH_HUB__RETRIES": "0"}
    return invoke(state, "diff", *map(str, arguments), **environment)


def document_of(done: Result) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(done.stdout)
    jsonschema.validate(document, json_schema())
    from_json(done.stdout)
    return document


def complaints(done: Result) -> list[str]:
    return [line for line in done.stderr.splitlines() if line.startswith("forkwatch:")]
