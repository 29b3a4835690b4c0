"""Write the generated references (findings, exit codes, command line); `--check` only compares."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

os.environ.update(COLUMNS="100", TERM="dumb", NO_COLOR="1")

from typer.testing import CliRunner

from forkwatch.cli.app import app
from forkwatch.errors import Exit
from forkwatch.policy.catalogue import CATALOGUE, finding_page

DOCS = Path(__file__).parent
METHODOLOGY = DOCS.parent / "reports" / "methodology"
COMMANDS = (
    "init", "release add", "release list", "release verify", "release check",
    "release adopt", "release keep", "release card", "release sign",
    "verify", "crawl", "tree", "scan", "diff", "eval", "robustness", "effort", "judge bench",
    "suite import", "suite show", "lineage",
    "index add", "index list", "index remove", "attest key", "attest sign", "attest verify",
    "run", "report build", "report serve", "report verify", "report publish", "digest",
    "dispute open", "dispute resolve", "dispute withdraw", "dispute list",
    "status", "demo", "doctor", "version",
)  # fmt: skip
EXIT_MEANINGS = {
    Exit.OK: "Nothing at or above `--fail-on`.",
    Exit.FINDING: "A finding at or above `--fail-on`; in `verify`, an altered copy; in `attest verify`, "
    "files or a document that are not the attested ones; in `release check`, something to decide; in `eval`, "
    "a limit that is missed; in `demo`, a fork that was not recognised as built.",
    Exit.USAGE: "Wrong arguments or settings.",
    Exit.INCONCLUSIVE: "Inconclusive, or nothing to examine: no release, candidate, signature or readable "
    "weights; in `eval`, a limit on something that was not measured.",
    Exit.HUB: "The Hub or the network: unknown repository, wrong token, unreachable, damaged download; "
    "in `digest --send`, a message that the mail server did not take.",
    Exit.INTERNAL: "An internal error, or a machine that cannot do the work (no disk space, "
    "or reduced isolation where full isolation is required).",
    Exit.SIGNATURE: "The signature of the original, of the copy in `verify`, or of a signed verdict does not "
    "verify; nothing else was run.",
}


def pages() -> Iterator[tuple[Path, str]]:
    """Every generated file and its content."""
    for spec in CATALOGUE.values():
        yield DOCS / "findings" / f"{spec.id}.md", finding_page(spec)
    yield DOCS / "exit-codes.md", _exit_codes()
    yield DOCS / "cli.md", _cli()
    # An installed forkwatch has no docs folder, and its site shows these pages.
    yield METHODOLOGY / "index.md", (DOCS / "methodology.md").read_text()
    for path in sorted((DOCS / "methodology").glob("*.md")):
        yield METHODOLOGY / path.name, path.read_text()


def _exit_codes() -> str:
    rows = [f"| {code.value} | {EXIT_MEANINGS[code]} |" for code in Exit]
    signals = [
        "| 130 | Interrupted (SIGINT). |",
        "| 141 | The reader of the output went away (SIGPIPE), as with `| head`. |",
        "| 143 | Terminated (SIGTERM). |",
    ]
    return "\n".join(
        ["# Exit codes of every command", "", "| Code | Meaning |", "|---|---|", *rows, *signals, ""]
    )


def _cli() -> str:
    parts = ["# Command line", ""]
    for command in COMMANDS:
        shown = CliRunner().invoke(app, [*command.split(), "--help"], prog_name="forkwatch").output
        text = "\n".join(line.rstrip() for line in shown.strip().splitlines())
        parts += [f"## forkwatch {command}", "", "```text", text, "```", ""]
    return "\n".join(parts)


def main() -> int:
    """Write what differs; with `--check`, name it and fail."""
    stale = [(path, text) for path, text in pages() if not path.is_file() or path.read_text() != text]
    found = {*DOCS.glob("findings/*.md"), *METHODOLOGY.glob("*.md")}
    extra = sorted(found - {path for path, _ in pages()})
    if "--check" in sys.argv[1:]:
        for path in [path for path, _ in stale] + extra:
            sys.stderr.write(f"{path} is not current; run `python docs/generate.py`\n")
        return 1 if stale or extra else 0
    for path, text in stale:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    for path in extra:
        path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
