"""The command line. Commands import what they need when they run, so that `--help` is instant."""

from __future__ import annotations

from forkwatch.cli import (
    attest,
    classifier,
    classify,
    config,
    crawl,
    daemon,
    db,
    demo,
    diff,
    digest,
    dispute,
    doctor,
    effort,
    evaluate,
    index,
    init,
    judge,
    lineage,
    probe,
    queue,
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
    worker,
)
from forkwatch.cli.top import new_program

app = new_program()
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
app.command("daemon")(daemon.daemon)
app.command("worker")(worker.worker)
app.command("health")(daemon.health)
app.add_typer(queue.app, name="queue")
app.add_typer(db.app, name="db")
app.add_typer(config.app, name="config")
app.add_typer(report.app, name="report")
app.command("digest")(digest.digest)
app.add_typer(dispute.app, name="dispute")
app.command("status")(status.status)
app.command("demo")(demo.demo)
app.command("doctor")(doctor.doctor)
app.command("version")(version.version)
