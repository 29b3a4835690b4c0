"""What a site of 10,000 forks costs: built whole, after one change, beside a plain loop and a generator.

    python -m benchmarks.bench_site [--forks 10000] [--generator PYTHON] [--json FILE]

The store is a real one (SQLite); 30 % of the forks are evaluated. Our builds are the command as a user runs
it, imports included. Every measurement is a process of its own, whose peak memory and processor time the
kernel tells: on a machine that others use, processor time is what can be compared. "Plain" is the script that
anybody would write first: load every document, render every page with the same templates, write every file.
`--generator` is a Python with Pelican: it gets the finished content of the same pages and wraps it in a
template of its own, so that it has less to do than we have.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.site_store import change, fill

ROOT = Path(__file__).parents[1]
FULL_TARGET, CHANGE_TARGET, RSS_TARGET, PAGE_TARGET = 60.0, 2.0, 500, 200_000


def build(folder: Path, out: Path) -> dict[str, float]:
    """One build, by the command that a user gives."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "forkwatch", "report", "build", "--out", str(out)]
    environment = os.environ | {"FORKWATCH_STATE_DIR": str(folder), "PYTHONPATH": str(ROOT)}
    subprocess.run(command, check=True, capture_output=True, env=environment, cwd=folder)
    return {"seconds": time.perf_counter() - began}


def plain(folder: Path, out: Path) -> dict[str, float]:
    """Everything in memory, every file rendered and written, nothing kept."""
    began = time.perf_counter()
    from forkwatch.pipeline.publish import site_view
    from reports.rows import IN_MEMORY
    from reports.site import site_files

    files = 0
    with _context(folder) as context:
        view = site_view(context)
        whole = tuple(
            replace(
                release,
                scans=tuple(release.documents.whole(row) for row in release.scans),
                histories=tuple(
                    replace(history, samples=release.documents.samples(row, history))
                    for row, history in zip(release.scans, release.histories, strict=True)
                ),
                documents=IN_MEMORY,
            )
            for release in view.releases
        )
        for path, content in site_files(replace(view, releases=whole)):
            (out / path).parent.mkdir(parents=True, exist_ok=True)
            data = content if isinstance(content, bytes) else content.encode()
            (out / path).write_bytes(data)
            files += 1
    return {"seconds": time.perf_counter() - began, "written": files}


def generator(folder: Path, out: Path, python: str, source: Path) -> dict[str, float]:
    """Pelican on the same pages: their titles and bodies are given to it as HTML."""
    content = folder / "content"
    content.mkdir()
    for index, page in enumerate(sorted(source.rglob("*.html"))):
        text = page.read_text(encoding="utf-8")
        title = text.partition("<title>")[2].partition("</title>")[0]
        body = text.partition("<main")[2].partition(">")[2].partition("</main>")[0]
        slug = page.relative_to(source).as_posix().removesuffix(".html").replace("/", "-")
        head = (
            f'<html><head><title>{title}</title><meta name="date" content="2026-11-30">'
            f'<meta name="slug" content="{slug}-{index}"></head>'
        )
        (content / f"{index}.html").write_text(f"{head}<body>{body}</body></html>", encoding="utf-8")
    theme = folder / "theme" / "templates"
    theme.mkdir(parents=True)
    for name in (
        "article",
        "page",
        "index",
        "archives",
        "author",
        "authors",
        "category",
        "categories",
        "tag",
        "tags",
        "period_archives",
    ):
        inner = "{{ article.content }}" if name == "article" else ""
        (theme / f"{name}.html").write_text(
            "<!doctype html><html lang=en><head><meta charset=utf-8><title>x</title></head>"
            f"<body><header>forkwatch</header><main>{inner}</main></body></html>"
        )
    settings = folder / "pelicanconf.py"
    settings.write_text(
        f"PATH = {str(content)!r}\nTHEME = {str(folder / 'theme')!r}\n"
        "TIMEZONE = 'UTC'\nSITENAME = 'forkwatch'\n"
        "DIRECT_TEMPLATES = []\nFEED_ALL_ATOM = CATEGORY_FEED_ATOM = TRANSLATION_FEED_ATOM = None\n"
        "AUTHOR_SAVE_AS = CATEGORY_SAVE_AS = TAG_SAVE_AS = ''\nARTICLE_PATHS = ['']\nPAGE_PATHS = ['none']\n"
    )
    began = time.perf_counter()
    subprocess.run(
        [python, "-m", "pelican", str(content), "-s", str(settings), "-o", str(out)],
        check=True,
        capture_output=True,
    )
    return {"seconds": time.perf_counter() - began, "written": sum(1 for _ in out.rglob("*.html"))}


def _context(folder: Path) -> Any:
    from forkwatch.cli.session import session
    from forkwatch.state import StateDir

    return session(state=StateDir(folder))


def child(task: str, *arguments: str) -> dict[str, float]:
    """Run one measurement in a process of its own; its result, and its peak memory in MB."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.bench_site", "--task", task, *arguments],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def run_task(task: str, arguments: list[str]) -> None:
    """In the child."""
    paths = [Path(argument) for argument in arguments]
    found: dict[str, float] = {}
    match task:
        case "fill":
            fill(paths[0], int(arguments[1]))
        case "build":
            found = build(paths[0], paths[1])
        case "plain":
            found = plain(paths[0], paths[1])
        case "change":
            change(paths[0], int(arguments[1]))
        case "generator":
            found = generator(paths[0], paths[1], arguments[2], paths[3])
        case _:
            raise SystemExit(f"no such task: {task}")
    who = resource.RUSAGE_CHILDREN if task in {"build", "generator"} else resource.RUSAGE_SELF
    used = resource.getrusage(who)
    found |= {"peak_mb": used.ru_maxrss / 1024, "cpu": used.ru_utime + used.ru_stime}
    print(json.dumps(found))


def measure(forks: int, python: str | None, folder: Path) -> dict[str, Any]:
    """All of it."""
    state, site = folder / "state", folder / "site"
    state.mkdir()
    child("fill", str(state), str(forks))
    print(f"store: {(state / 'forkwatch.db').stat().st_size / 1e6:.0f} MB, {forks:,} forks", flush=True)
    rows: dict[str, Any] = {"forks": forks, "full": child("build", str(state), str(site))}
    sizes = {path: path.stat().st_size for path in site.rglob("*") if path.is_file()}
    pages = {path: size for path, size in sizes.items() if path.suffix == ".html"}
    largest = max(pages, key=lambda path: pages[path])
    rows |= {
        "files": len(sizes),
        "site_mb": sum(sizes.values()) / 1e6,
        "pages": len(pages),
        "largest_page": [largest.relative_to(site).as_posix(), pages[largest]],
    }
    print(json.dumps(rows), flush=True)
    rows["same"] = child("build", str(state), str(site))
    rows["one_change"] = []
    for number in (9, 1239 % forks, 5679 % forks):
        child("change", str(state), str(number))
        rows["one_change"].append(child("build", str(state), str(site)))
        print(json.dumps(rows["one_change"][-1]), flush=True)
    rows["plain"] = child("plain", str(state), str(folder / "plain"))
    print(json.dumps(rows["plain"]), flush=True)
    rows["identical_to_plain"] = _same(site, folder / "plain")
    if python is not None:
        work = folder / "generator"
        work.mkdir()
        rows["generator"] = child("generator", str(work), str(folder / "generated"), python, str(site))
        print(json.dumps(rows["generator"]), flush=True)
    return rows


def _same(site: Path, other: Path) -> bool:
    """Whether the incremental site is what rendering everything gives, but for digests of earlier weeks."""
    done = subprocess.run(
        ["diff", "-rq", "--exclude=.forkwatch-site", "--exclude=digest", str(site), str(other)],
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


def report(rows: dict[str, Any]) -> None:
    """The table."""
    full, changes = rows["full"], rows["one_change"]
    once = sorted(each["cpu"] for each in changes)[len(changes) // 2]
    waited = sorted(each["seconds"] for each in changes)[len(changes) // 2]
    print(f"files {rows['files']:,}, pages {rows['pages']:,}, {rows['site_mb']:.0f} MB")
    print(f"processor of all processes: full {full['cpu']:.1f} s, one change {once:.1f} s")
    for name, value, target in (
        ("full build, s", full["seconds"], FULL_TARGET),
        ("after one change, s", waited, CHANGE_TARGET),
        ("memory of a process, MB", max(full["peak_mb"], *(each["peak_mb"] for each in changes)), RSS_TARGET),
        ("largest page, bytes", rows["largest_page"][1], PAGE_TARGET),
    ):
        print(f"{name:<24} {value:>12,.1f}   target {target:>10,}   {'ok' if value <= target else 'MISSED'}")
    print(f"incremental is what rendering everything gives: {rows['identical_to_plain']}")
    for name in ("plain", "generator"):
        if name in rows:
            other = rows[name]
            print(
                f"{name}: {other['cpu']:.1f} s of processor, {other['peak_mb']:.0f} MB; "
                f"{other['cpu'] / full['cpu']:.2f}x a full build, {other['cpu'] / once:.1f}x one change, "
                f"{other['peak_mb'] / full['peak_mb']:.1f}x the memory"
            )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--forks", type=int, default=10_000)
    parser.add_argument("--generator", help="a Python that has Pelican")
    parser.add_argument("--folder", type=Path, help="where to work; it is kept")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--task", help=argparse.SUPPRESS)
    given, rest = parser.parse_known_args()
    if given.task:
        run_task(given.task, rest)
        return
    folder = given.folder or Path(tempfile.mkdtemp(prefix="bench-site-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        rows = measure(given.forks, given.generator, folder)
    finally:
        if given.folder is None:
            shutil.rmtree(folder)
    report(rows)
    if given.json:
        given.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    os.environ.setdefault("FORKWATCH_STATE_DIR", tempfile.gettempdir())
    main()
