"""Kills the daemon, its workers and their evaluation children at random, and compares what comes out.

    python -m benchmarks.soak_daemon FAMILY_STATE OUT [KILLS] [SEED]

FAMILY_STATE is a state folder whose demo family is built (`forkwatch demo`). Two copies of it judge the
family: one undisturbed (`forkwatch worker --drain`), one by a daemon of which a random process gets SIGKILL
every few seconds until KILLS are done. Results carry one fixed time (FORKWATCH_CLOCK), so the two sites must
have the same bytes, but for what a verdict cost: a stage that was killed is paid for twice.

Prints the counts, and exits with 1 where a file differs, a job is lost or an alert is missing or doubled.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

CLOCK = "2026-01-05T12:00:00+00:00"
_COST = re.compile(r'"cost":\s*\{[^}]*\}')
SETTINGS = """
free_space_floor_gb = 0.1

[daemon]
port = {port}
crawl_every_minutes = 600
grace_seconds = 5
digest = false

[alerts]
command = ["{python}", "-c", "import sys; open('{told}', 'a').write(sys.stdin.read() + chr(10))"]
"""


def prepared(source: Path, folder: Path, port: int) -> Path:
    """A state folder with the family and one guarded release, and no result."""
    folder.mkdir(parents=True)
    shutil.copytree(source / "demo", folder / "demo", symlinks=True)
    told = folder / "told.jsonl"
    text = SETTINGS.format(port=port, python=sys.executable, told=told)
    (folder / "forkwatch.toml").write_text('[hub]\nendpoint = "demo"' + text)
    family = next(path.parent for path in sorted((folder / "demo").glob("*/hub.json")))
    release = json.loads((family / "hub.json").read_text())["release"]
    run(folder, "release", "add", release, "--public-key", str(family / "keys" / "release.pub"),
        "--suite", str(family / "suite.json"))  # fmt: skip
    return folder


def environment(folder: Path) -> dict[str, str]:
    return {
        **os.environ,
        "FORKWATCH_STATE_DIR": str(folder),
        "FORKWATCH_CONFIG": str(folder / "forkwatch.toml"),
        "FORKWATCH_CLOCK": CLOCK,
        "OMP_NUM_THREADS": "1",
    }


def run(folder: Path, *words: str) -> None:
    command = [sys.executable, "-m", "forkwatch", *words]
    subprocess.run(command, env=environment(folder), check=True, capture_output=True)


def start(folder: Path) -> subprocess.Popen[bytes]:
    log = (folder / "daemon.log").open("ab")
    command = [sys.executable, "-m", "forkwatch", "daemon"]
    return subprocess.Popen(command, env=environment(folder), stdout=log, stderr=log, start_new_session=True)


def family_of(daemon: int) -> list[tuple[int, str]]:
    """The daemon's processes with what they are: daemon, worker or evaluation child."""
    parents: dict[int, int] = {}
    words: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                words[int(entry.name)] = (entry / "cmdline").read_bytes().decode("utf-8", "replace")
            except OSError:
                continue
    found = [(daemon, "daemon")] if daemon in parents else []
    below = [daemon]
    while below:
        below = [pid for pid, parent in parents.items() if parent in below]
        found += [(pid, "child" if "evals.child" in words[pid] else "worker") for pid in below]
    return found


def jobs(folder: Path) -> Counter[str]:
    with sqlite3.connect(folder / "forkwatch.db") as database:
        return Counter(dict(database.execute("SELECT state, count(*) FROM job GROUP BY state")))


def soaked(folder: Path, kills: int, rng: random.Random) -> Counter[str]:
    """Kill until there were enough; then let it finish."""
    daemon, done, quiet = start(folder), Counter[str](), 0
    while quiet < 6:
        time.sleep(rng.uniform(0.3, 3.0))
        if daemon.poll() is not None:
            daemon = start(folder)
            continue
        if sum(done.values()) < kills:
            pid, kind = rng.choice(family_of(daemon.pid) or [(daemon.pid, "daemon")])
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            done[kind] += 1
            if kind == "daemon":
                daemon.wait()
            retry(folder)
        else:
            state = jobs(folder)
            quiet = quiet + 1 if state["queued"] + state["running"] == 0 else 0
            retry(folder)
    daemon.terminate()
    daemon.wait()
    return done


def retry(folder: Path) -> None:
    """A killed worker is no poison: an operator would try again, and waiting is not what is tested."""
    with sqlite3.connect(folder / "forkwatch.db", timeout=30) as database:
        database.execute("UPDATE job SET state = 'queued', attempts = 0 WHERE state = 'quarantined'")
        database.execute("UPDATE job SET not_before = NULL WHERE state = 'queued'")


def files(site: Path) -> dict[str, str]:
    return {
        path.relative_to(site).as_posix(): _COST.sub('"cost": {}', path.read_text("utf-8", "replace"))
        for path in sorted(site.rglob("*"))
        if path.is_file() and path.name != ".forkwatch-site"
    }


def alerts(folder: Path) -> Counter[str]:
    told = folder / "told.jsonl"
    lines = told.read_text().splitlines() if told.exists() else []
    return Counter(json.loads(line)["key"] for line in lines)


def main() -> None:
    source, out = Path(sys.argv[1]), Path(sys.argv[2])
    kills = int(sys.argv[3]) if len(sys.argv) > 3 else 200
    rng = random.Random(int(sys.argv[4]) if len(sys.argv) > 4 else 0)
    calm, rough = prepared(source, out / "calm", 9491), prepared(source, out / "rough", 9492)
    soaked(calm, 0, rng)
    began = time.monotonic()
    done = soaked(rough, kills, rng)
    ours, theirs = files(calm / "site"), files(rough / "site")
    differ = sorted(path for path in ours.keys() | theirs.keys() if ours.get(path) != theirs.get(path))
    told, again = alerts(calm), alerts(rough)
    print(f"{sum(done.values())} kills ({dict(done)}) in {time.monotonic() - began:.0f} s")
    print(f"jobs: {dict(jobs(rough))}")
    print(f"{len(ours)} files, {len(differ)} differ: {differ[:10]}")
    lost = sorted(told.keys() - again.keys())
    copies = sum(again.values()) - len(again)
    print(f"{len(told)} alerts, {len(lost)} lost, {copies} told again with the same key")
    sys.exit(bool(differ or lost or jobs(rough)["quarantined"]))


if __name__ == "__main__":
    main()
