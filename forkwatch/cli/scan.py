"""`forkwatch scan`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forkwatch.cli.handled import handled
from forkwatch.cli.options import (
    DepthChoice,
    JsonOption,
    ReleaseOption,
    RequireIsolationOption,
    SeverityChoice,
    scan_exit,
)
from forkwatch.cli.output import data
from forkwatch.errors import SettingsError
from forkwatch.text import plain
from reports.scan import NumberView, RateView, ScanDocument, is_reduced
from reports.words import SIGNATURES


@handled
def scan(
    repo: Annotated[str, typer.Argument(metavar="ORG/NAME")],
    release: ReleaseOption = None,
    revision: Annotated[
        str | None, typer.Option("--revision", help="Commit, tag or branch (default: main).")
    ] = None,
    depth: Annotated[DepthChoice, typer.Option("--depth", help="How far to go.")] = DepthChoice.EVAL,
    fail_on: Annotated[
        SeverityChoice | None, typer.Option("--fail-on", help="Exit with 1 from this severity.")
    ] = None,
    require_isolation: RequireIsolationOption = False,
    json_output: JsonOption = False,
    sarif: Annotated[
        Path | None, typer.Option("--sarif", help="Also write the findings as SARIF 2.1.0 to this file.")
    ] = None,
) -> None:
    """Examine one repository: what was changed, and what it did to safety."""
    from crawler.interface import parse_repo_id
    from forkwatch.cli.session import isolating_settings, session
    from forkwatch.pipeline.forecast import fit, forecast
    from forkwatch.pipeline.funnel import Depth
    from forkwatch.pipeline.originals import open_original
    from forkwatch.pipeline.run import release_of
    from forkwatch.pipeline.run import scan as examine
    from reports.document import to_json

    parse_repo_id(repo)
    settings = isolating_settings(required=require_isolation, evaluates=depth is DepthChoice.EVAL)
    with session(settings) as context:
        original = open_original(context, release_of(context, repo, release))
        document = examine(context, original, repo, revision=revision, depth=Depth[depth.name])
        log = context.store.verdicts(original.release_id)
        others = {verdict.repo_id: verdict.document for verdict in log if verdict.repo != document.repo}
        document = forecast(document, fit(others.values()))
        threshold = fail_on or context.settings.policy.fail_on
    if sarif is not None:
        _write_sarif(sarif, document)
    if json_output:
        data(to_json(document).removesuffix("\n"))
    else:
        data("\n".join(_lines(document)))
    raise typer.Exit(scan_exit(document, threshold))


def _write_sarif(path: Path, document: ScanDocument) -> None:
    """In one step, so that code scanning never reads half of it."""
    from forkwatch import __version__
    from reports.exports.sarif import to_sarif

    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(to_sarif(document, __version__))
        part.replace(path)
    except OSError as error:
        raise SettingsError(f"cannot write {path}: {error.strerror}", tip="Choose another place.") from error


def _lines(document: ScanDocument) -> list[str]:
    """The document for a person, in a dozen lines."""
    refusal, cost = document.safety.refusal, document.cost
    claimed = document.lineage.claimed or "no base"
    lines = [
        f"{document.repo}@{document.commit[:12]}: {document.verdict.label} ({document.verdict.certainty})",
        f"  {document.verdict.summary}",
        f"  compared with {document.release}, {SIGNATURES[document.original.signature][0].lower()}",
        f"  lineage: {document.lineage.status} from the weights; the card claims {claimed}",
        f"  edits:   {', '.join(edit.kind for edit in document.edits) or 'none'}",
        f"  refusal: original {_rate(refusal.original)}, fork {_rate(refusal.fork)}",
        f"  intent:  {_intent(document)}",
        *([f"  {document.safety.isolation}"] if is_reduced(document.safety.isolation) else []),
        "  findings:",
    ]
    for finding in document.findings:
        sign = "+" if finding.direction == "for" else "-"
        lines.append(f"    {sign} {finding.severity:8} {finding.id} ({finding.certainty}): {finding.summary}")
    lines.extend(f"  not measured: {gap}" for gap in document.verdict.not_measured)
    read = f"{cost.bytes_downloaded:,} of {cost.bytes_total:,} bytes"
    lines.append(f"  cost: {read}, {cost.requests} requests, {cost.seconds:.1f} s")
    return [plain(line, 1000) for line in lines]


def _intent(document: ScanDocument) -> str:
    intent, loss = document.intent, document.forecast.loss
    if intent.status == "not-measured":
        return f"not measured ({intent.reason})"
    acts = "consistent with acting" if intent.status == "aligned" else "no sign of acting"
    text = (
        f"{acts} on the directions that carry refusals (alignment {intent.alignment}, harmless directions "
        f"{intent.expected}, p = {intent.p_value}, {intent.matrices} matrices); no measurement of behaviour"
    )
    if isinstance(loss, RateView):
        text += f"; expected loss of refusals {_rate(loss)}"
    return text


def _rate(number: NumberView) -> str:
    if isinstance(number, RateView):
        return f"{number.rate:.0%} (n = {number.n}, 95 % {number.ci[0]:.0%} to {number.ci[1]:.0%})"
    return f"not measured ({number.unmeasured})"
