"""What a crawl finds on a synthetic Hub and what it costs, beside the script that anybody would write first.

    python benchmarks/bench_crawl.py [--repos 100000] [--forks 5000] [--json FILE]

One process holds the Hub (sockets, the real huggingface_hub for the other side), one crawls it into an SQLite
store, cold, then again with nothing new, then after a day of changes; one runs the obvious script: list what
declares the release, what is tagged and what is named alike, `model_info` of each, no history.
"Obvious" is not a straw man: it asks everything that `HfApi` offers without knowing the release's shape.
Downloads are compared on repositories of 64 MB: `snapshot_download` against what a sketch reads (0.2 %).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing as mp
import os
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

CALLS_TARGET, IDLE_TARGET, RECALL_TARGET, RSS_TARGET = 2.0, 0.02, 0.99, 400
SMALL, SMALL_REPOS = 64 << 20, 8
"""Bytes of weights, and repositories, of the comparison of downloads."""
SHARE = 0.002
QUIET = dict.fromkeys(("HF_HUB_DISABLE_PROGRESS_BARS", "HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_XET"), "1")


def serve(repos: int, forks: int, seed: int, pipe: Connection) -> None:
    """The Hub's process: answers over sockets, and takes orders over the pipe."""
    from forkwatch.demo.hub import LoopbackHub
    from forkwatch.demo.population import grow, populate

    began = time.monotonic()
    hub = LoopbackHub()
    truth = populate(hub, repos=repos, forks=forks, seed=seed)
    built, size = time.monotonic() - began, peak_mb()
    weights = random.Random(seed).randbytes(SMALL)
    header = json.dumps(
        {"w": {"dtype": "BF16", "shape": [SMALL // 2048, 1024], "data_offsets": [0, SMALL]}}
    ).encode()
    content = len(header).to_bytes(8, "little") + header + weights
    for number in range(SMALL_REPOS):
        hub.create_repo(f"small/copy-{number}")
        hub.commit(f"small/copy-{number}", {"model.safetensors": content[:-8] + number.to_bytes(8, "little")})
    with hub:
        pipe.send((hub.endpoint, built, size))
        while (order := pipe.recv()) is not None:
            match order:
                case ("score", found):
                    pipe.send(truth.score(found))
                case "grow":
                    day = grow(hub, truth, new=max(1000, repos // 30), seed=seed + 1)
                    truth = getattr(day, "truth", truth)
                    pipe.send(None)


def crawler_side(endpoint: str, state: str, release: str) -> dict[str, Any]:
    """One crawl, as `forkwatch crawl` does it."""
    from crawler.client import HubClient
    from crawler.interface import RepoId
    from forkwatch.pipeline.context import Context, Silent
    from forkwatch.pipeline.crawl import crawl
    from forkwatch.settings import Settings
    from forkwatch.state import StateDir
    from forkwatch.store.engine import open_engine
    from forkwatch.store.models import Release
    from forkwatch.store.store import Store

    folder = StateDir(Path(state))
    folder.create()

    def now() -> datetime:
        return datetime.now(UTC)

    store = Store(open_engine(f"sqlite:///{folder.database}"), now)
    row = store.add_release(
        Release(
            repo=release,
            commit="0" * 40,
            root_digest="",
            signer="",
            trust={"signers": [], "legacy": False, "unsigned": True},
            status="unsigned",
            signature="",
            suite="",
            manifest={},
            added_at=now(),
            verified_at=now(),
        )
    )
    assert row.id is not None
    began = time.monotonic()
    with HubClient(endpoint=endpoint, token=None, cache=folder.cache) as hub:
        done = crawl(Context(hub, store, folder, Settings(), now, Silent()), row.id, RepoId(release))
        cost = hub.cost
    store.close()
    return {
        "found": [known.repo for known in done.present],
        "calls": cost.requests,
        "seconds": time.monotonic() - began,
        "rss_mb": peak_mb(),
        "new": len(done.new),
        "events": len(done.events),
        "left_out": list(done.left_out),
    }


def obvious_side(endpoint: str, release: str) -> dict[str, Any]:
    """The first script that comes to mind, with the real client; requests are counted by a hook."""
    os.environ |= {"HF_ENDPOINT": endpoint} | QUIET
    import httpx2
    import huggingface_hub
    from huggingface_hub.utils._http import hf_request_event_hook

    calls = 0

    def count(request: httpx2.Request) -> None:
        nonlocal calls
        calls += 1
        hf_request_event_hook(request)

    huggingface_hub.set_client_factory(lambda: httpx2.Client(event_hooks={"request": [count]}, timeout=60))
    api = huggingface_hub.HfApi(endpoint=endpoint)
    began = time.monotonic()
    name = release.partition("/")[2]
    found: set[str] = set()
    for query in (
        {"filter": f"base_model:{release}"},
        *({"filter": tag, "search": name} for tag in ("heretic", "abliterated", "uncensored", "decensored")),
        {"search": name},
    ):
        found |= {model.id for model in api.list_models(**query)}
    for repo in sorted(found):
        api.model_info(repo, files_metadata=True)
    seconds = time.monotonic() - began
    return {"found": sorted(found - {release}), "calls": calls, "seconds": seconds, "rss_mb": peak_mb()}


def obvious_download(endpoint: str, state: str) -> dict[str, Any]:
    """`snapshot_download` of the small repositories."""
    os.environ |= {"HF_ENDPOINT": endpoint} | QUIET
    import huggingface_hub

    began = time.monotonic()
    size = 0
    for number in range(SMALL_REPOS):
        folder = huggingface_hub.snapshot_download(f"small/copy-{number}", cache_dir=state, endpoint=endpoint)
        size += sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    return {"bytes": size, "seconds": time.monotonic() - began}


def sketched(endpoint: str, state: str) -> dict[str, Any]:
    """Hashes, headers and bands of the same repositories: what stages 2 to 4 read of a fork."""
    from crawler.client import HubClient
    from crawler.interface import RepoId

    began = time.monotonic()
    with HubClient(endpoint=endpoint, token=None, cache=Path(state)) as hub:
        for number in range(SMALL_REPOS):
            snapshot = hub.snapshot(RepoId(f"small/copy-{number}"))
            hub.tensor_headers(snapshot)
            source = hub.open(snapshot, "model.safetensors")
            band = 8 * 2048
            count = max(1, int(SHARE * SMALL) // band)
            source.read_many([(source.size // count * index, band) for index in range(count)])
        cost = hub.cost
    return {"bytes": cost.bytes_downloaded, "seconds": time.monotonic() - began}


def peak_mb() -> float:
    """Peak resident set of this process, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def alone(function: Callable[..., dict[str, Any]], *arguments: str) -> dict[str, Any]:
    """Run in a fresh process, so that memory and connections are its own."""
    context = mp.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_send, args=(function, arguments, theirs))
    process.start()
    theirs.close()
    result = ours.recv()
    process.join()
    return dict(result)


def _send(function: Callable[..., dict[str, Any]], arguments: tuple[str, ...], pipe: Connection) -> None:
    pipe.send(function(*arguments))


def ask(hub: Connection, order: object) -> Any:
    """An order to the Hub's process, and its answer."""
    hub.send(order)
    return hub.recv()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repos", type=int, default=100_000)
    parser.add_argument("--forks", type=int, default=5_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    from forkwatch.demo.population import RELEASE

    context = mp.get_context("spawn")
    hub, theirs = context.Pipe()
    server = context.Process(
        target=serve, args=(options.repos, options.forks, options.seed, theirs), daemon=True
    )
    server.start()
    endpoint, seconds, rss = hub.recv()
    print(f"hub: {options.repos:,} repositories, {options.forks:,} forks, {seconds:.0f} s, {rss:.0f} MB")
    with tempfile.TemporaryDirectory() as folder:
        cold = alone(crawler_side, endpoint, f"{folder}/state", RELEASE)
        idle = alone(crawler_side, endpoint, f"{folder}/state", RELEASE)
        plain = alone(obvious_side, endpoint, RELEASE)
        score, plain_score = ask(hub, ("score", cold["found"])), ask(hub, ("score", plain["found"]))
        ask(hub, "grow")
        day = alone(crawler_side, endpoint, f"{folder}/state", RELEASE)
        day_score = ask(hub, ("score", day["found"]))
        ours, whole = (
            alone(sketched, endpoint, f"{folder}/ours"),
            alone(obvious_download, endpoint, f"{folder}/hf"),
        )
    hub.send(None)
    server.join(10)
    report(cold, idle, day, day_score)
    compare(cold, plain, score, plain_score)
    print(
        f"bytes of {SMALL_REPOS} repositories of {SMALL >> 20} MB: sketch {ours['bytes']:,} in "
        f"{ours['seconds']:.2f} s, snapshot_download {whole['bytes']:,} in {whole['seconds']:.2f} s: "
        f"1/{whole['bytes'] / ours['bytes']:.0f} of the bytes, "
        f"1/{whole['seconds'] / ours['seconds']:.1f} of the time"
    )
    if options.json is not None:
        figures = {
            "cold": cold,
            "idle": idle,
            "day": day,
            "obvious": plain,
            "sketch": ours,
            "download": whole,
        }
        for side in figures.values():
            side.pop("found", None)
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    sys.exit(0)


def compare(cold: Any, plain: Any, score: Any, plain_score: Any) -> None:
    """Both sides, line by line, with the targets."""
    print(f"{'':34}{'forkwatch':>12}{'obvious':>12}")
    for channel, share in score.by_channel.items():
        if share.of:
            other = plain_score.by_channel[channel]
            print(f"recall, {channel:26}{share.rate:12.4f}{other.rate:12.4f}  n = {share.of}")
    recall, precision, theirs = score.recall, score.precision, plain_score.recall
    found = max(1, theirs.found)
    for name, ours, other, note in (
        (
            "recall of the discoverable",
            recall.rate,
            theirs.rate,
            f"n = {recall.of}, target ≥ {RECALL_TARGET}",
        ),
        ("precision", precision.rate, plain_score.precision.rate, f"n = {precision.of}"),
        ("calls", cold["calls"], plain["calls"], ""),
        ("calls a fork", cold["calls"] / recall.found, plain["calls"] / found, f"target ≤ {CALLS_TARGET}"),
        ("seconds", cold["seconds"], plain["seconds"], ""),
        ("peak RSS, MB", cold["rss_mb"], plain["rss_mb"], f"target ≤ {RSS_TARGET}"),
    ):
        print(f"{name:34}{ours:12.4g}{other:12.4g}  {note}")
    print(f"missed: {', '.join(score.missed[:5]) or 'none'}")


def report(cold: Any, idle: Any, day: Any, day_score: Any) -> None:
    """What crawling again costs."""
    known = len(cold["found"])
    print(
        f"idle re-crawl: {idle['calls']} calls for {known} known = {idle['calls'] / known:.4f} "
        f"(target ≤ {IDLE_TARGET}), {idle['seconds']:.1f} s, {idle['new']} new"
    )
    print(
        f"after a day: {day['calls']} calls, {day['new']} new, {day['events']} events, "
        f"recall {day_score.recall.rate:.4f} (n = {day_score.recall.of}), {day['seconds']:.1f} s"
    )
    for reason in cold["left_out"]:
        print(f"left out: {reason}")


if __name__ == "__main__":
    main()
