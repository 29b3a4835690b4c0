"""The command line. Commands import what they need when they run, so that `--help` is instant."""

from __future__ import annotations

import logging
import signal
import sys
from types import FrameType
from typing import Annotated, NoReturn

import typer

import forkwatch
from forkwatch.cli import (
    attest,
    classifier,
    classify,
    crawl,
    demo,
    diff,
    doctor,
    effort,
    evaluate,
    index,
    init,
    judge,
    lineage,
    probe,
    release,
    release_sign,
    report,
    robustness,
    run,
    scan,
    score,
    status,
    suite,
    tree,
    verify,
    version,
)

app = typer.Typer(
    name="forkwatch",
    help=forkwatch.__doc__,
    epilog="Exit codes: 0 nothing found, 1 finding at or above --fail-on, 2 usage, 3 inconclusive, "
    "4 Hub or network, 5 internal, 6 signature invalid.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command("init")(init.init)
app.add_typer(release.app, name="release")
app.command("verify")(verify.verify)
release.app.command("sign")(release_sign.sign)
release.app.command("card")(release_sign.card)
app.command("crawl")(crawl.crawl)
app.command("tree")(tree.tree)
app.command("scan")(scan.scan)
app.command("diff")(diff.diff)
app.command("eval")(evaluate.evaluate)
app.command("probe")(probe.probe)
app.command("score")(score.score)
app.command("classify")(classify.classify)
app.command("lineage")(lineage.lineage)
app.command("robustness")(robustness.robustness)
app.command("effort")(effort.effort)
app.add_typer(index.app, name="index")
app.add_typer(attest.app, name="attest")
app.add_typer(judge.app, name="judge")
app.add_typer(suite.app, name="suite")
app.add_typer(classifier.app, name="classifier")
app.command("run")(run.run)
app.add_typer(report.app, name="report")
app.command("status")(status.status)
app.command("demo")(demo.demo)
app.command("doctor")(doctor.doctor)
app.command("version")(version.version)


@app.callback()
def options(
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show tracebacks and what libraries log.")
    ] = False,
) -> None:
    """Options of every command."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.DEBUG if verbose else logging.ERROR, format="%(name)s: %(message)s"
    )
    for noisy in ("httpcore2", "httpx2"):  # they log addresses, signed ones included
        logging.getLogger(noisy).setLevel(logging.WARNING)


def main() -> None:
    """Entry point of the `forkwatch` program."""
    signal.signal(signal.SIGTERM, _terminated)
    app()


def _terminated(number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)
