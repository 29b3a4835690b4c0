"""Named steps of the pipeline at which a process can be made to die.

A step is a function of the product and a moment of it. Nothing in the product knows of it: `sitecustomize`
in this folder, which Python imports by itself, wraps the functions as their modules are imported.
"""

from __future__ import annotations

from dataclasses import dataclass

BEFORE, WITHIN, AFTER = "before", "within", "after"


@dataclass(frozen=True, slots=True)
class Point:
    """A function at which a process dies."""

    name: str
    """`step.what`."""
    module: str
    attribute: str
    """In the module in which it is looked up when it is called."""
    moments: tuple[str, ...]
    seconds: float = 1.0
    """About how long it takes: within it, death comes at a random time in this."""

    @property
    def forward(self) -> bool:
        """Whether it is only reached by a fork that is evaluated."""
        return self.step == "eval" or self.name == "diff.weights"

    @property
    def step(self) -> str:
        """As issue and documentation name it."""
        return self.name.partition(".")[0]


_TASKS, _STAGES = "forkwatch.pipeline.tasks", "forkwatch.pipeline.stages"
_BEHAVIOUR, _STORE = "forkwatch.pipeline.behaviour", "forkwatch.store.store"

POINTS = (
    Point("crawl.listing", _TASKS, "crawl", (WITHIN, AFTER)),
    Point("crawl.pin", _STORE, "Store.pin", (AFTER,)),
    Point("download.chunk", "crawler.cache", "Part.write", (AFTER,)),
    Point("download.rename", "crawler.cache", "Part.commit", (BEFORE, AFTER)),
    Point("diff.sketch", _STAGES, "sketch", (WITHIN,), 2.0),
    Point("diff.weights", _STAGES, "diff", (WITHIN, AFTER), 3.0),
    Point("eval.original", _BEHAVIOUR, "evaluate_original", (WITHIN,), 20.0),
    Point("eval.direction", _BEHAVIOUR, "refusal_direction", (WITHIN,), 10.0),
    Point("eval.fork", _BEHAVIOUR, "evaluate_fork", (WITHIN, AFTER), 20.0),
    Point("eval.training", "forkwatch.pipeline.classifier", "train_and_keep", (WITHIN, AFTER), 4.0),
    Point("eval.trainer", "forkwatch.daemon.apart", "do_apart", (WITHIN, AFTER), 10.0),
    Point("result.keep", _STORE, "Store.put_result", (BEFORE, AFTER)),
    Point("verdict.transaction", _STORE, "_tell", (BEFORE, AFTER)),
    Point("verdict.add", _STORE, "Store.add_verdict", (BEFORE, AFTER)),
    Point("job.finish", "forkwatch.jobs.worker", "Worker._finish", (BEFORE, AFTER)),
    Point("outbox.tell", "forkwatch.alerts", "Teller.tell", (BEFORE, AFTER)),
    Point("outbox.mark", "forkwatch.store.outbox", "Outbox.sent", (AFTER,)),
    Point("publish.render", "forkwatch.pipeline.publish", "build_site", (WITHIN,), 2.0),
    Point("publish.files", "reports.draft", "Draft.finish", (BEFORE, AFTER)),
    Point("publish.switch", "reports.switch", "replace", (BEFORE, AFTER)),
    Point("digest.write", "reports.mail", "write_digest", (WITHIN, AFTER), 0.1),
    Point("digest.claim", "forkwatch.store.mailing", "claim", (AFTER,)),
    Point("digest.send", "forkwatch.smtp", "Server.send", (WITHIN, AFTER), 0.1),
    Point("digest.note", "forkwatch.store.mailing", "note_sent", (AFTER,)),
)
"""`publish.files` and `publish.switch` enclose the window between the finished files and the switch;
`outbox.tell` after is between sent and noted, as is `digest.send` after. `eval.training` is the process that
trains, `eval.trainer` the worker that waits for it; the other `eval` are workers whose child evaluates."""
