"""Everything that can be wrong with what we are given: one clear line, its exit code, the store unharmed."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from forkwatch.demo.hub import Fault
from tests.forkwatch.conftest import RELEASE, World, invoke

CARD = f"---\nbase_model: {RELEASE}\n---\n".encode()


def _lines(stderr: str) -> list[str]:
    return [line for line in stderr.splitlines() if line.startswith("forkwatch:")]


def _rows(world: World) -> dict[str, int]:
    with sqlite3.connect(world.state / "forkwatch.db") as connection:
        tables = ("release", "verdict", "result", "snapshot")
        return {table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables}


def test_unknown_repository(world: World) -> None:
    """A repository that does not exist is a Hub error, in one line, and leaves nothing behind."""
    before = _rows(world)

    done = world.run("scan", "demo/there-is-no-such-repo")

    assert done.exit_code == 4
    assert len(_lines(done.stderr)) == 1
    assert "demo/there-is-no-such-repo" in done.stderr
    assert _rows(world) == before


def test_not_a_repository_id(world: World) -> None:
    """A string that cannot be a repository id is a usage error."""
    assert world.run("scan", "../etc/passwd").exit_code == 2


def test_gated_repository(world: World) -> None:
    """A gated repository is inconclusive, with a document that says why."""
    world.hub.create_repo("demo/gated-fork", gated=True)
    world.hub.commit("demo/gated-fork", {"README.md": CARD, "model.safetensors": b"\0" * 64})

    done = world.run("scan", "demo/gated-fork", "--json")

    document = json.loads(done.stdout)
    assert done.exit_code == 3
    assert document["verdict"]["label"] == "inconclusive"
    assert [finding["id"] for finding in document["findings"] if finding["id"] == "access-denied"]


def test_wrong_token(world: World) -> None:
    """A token that the Hub refuses is named as the problem, and is not printed."""
    done = world.run("scan", "demo/anything", HF_TOKEN="hf_wrongwrongwrong")

    assert done.exit_code == 4
    assert len(_lines(done.stderr)) == 1
    assert "token" in done.stderr.lower()
    assert "hf_wrongwrongwrong" not in done.stderr + done.stdout


def test_release_that_was_tampered_with(world: World, family: Path) -> None:
    """A release whose files do not match the signature is refused with 6, and not stored."""
    files: dict[str, bytes | Path] = {
        path.name: path for path in (family / "repos" / RELEASE).iterdir() if path.is_file()
    }
    files["config.json"] = files["config.json"].read_bytes() + b"\n"  # type: ignore[union-attr]  # a Path, see above
    world.hub.create_repo("lab/tampered")
    world.hub.commit("lab/tampered", files)
    before = _rows(world)

    done = world.run("release", "add", "lab/tampered", "--public-key", str(world.key))

    assert done.exit_code == 6
    assert len(_lines(done.stderr)) == 1
    assert _rows(world)["release"] == before["release"]


def test_guarded_release_that_no_longer_verifies(world: World) -> None:
    """If the local original was altered, nothing else runs: no listing, no scan, no verdict."""
    config = next((world.state / "originals").rglob("config.json"))
    config.write_text(config.read_text() + " ")
    before, seen = _rows(world), len(world.hub.requests)

    done = world.run("run", "--once")

    assert done.exit_code == 6
    assert _rows(world) == before
    assert len(world.hub.requests) == seen


def test_wrong_public_key(world: World, tmp_path: Path) -> None:
    """A key that did not sign the release gives 6; a file that is no key is the user's mistake."""
    from detector.provenance.sign import generate_key

    generate_key(tmp_path)
    other = next(path for path in tmp_path.iterdir() if path.suffix == ".pub")

    assert world.run("release", "add", RELEASE, "--public-key", str(other)).exit_code == 6
    garbage = tmp_path / "garbage.pub"
    garbage.write_text("not a key")
    assert world.run("release", "add", RELEASE, "--public-key", str(garbage)).exit_code == 2


def test_truncated_safetensors(world: World, family: Path) -> None:
    """A weight file that ends early is a finding and an inconclusive verdict, not a crash."""
    whole = (family / "repos" / RELEASE / "model.safetensors").read_bytes()
    world.hub.create_repo("demo/truncated")
    world.hub.commit("demo/truncated", {"README.md": CARD, "model.safetensors": whole[: len(whole) // 2]})

    done = world.run("scan", "demo/truncated", "--json")

    document = json.loads(done.stdout)
    assert done.exit_code == 3, done.stderr
    assert document["verdict"]["label"] == "inconclusive"
    assert "malformed-weights" in {finding["id"] for finding in document["findings"]}


@pytest.mark.parametrize("files", [{}, {"README.md": CARD}], ids=["empty", "without weights"])
def test_nothing_to_examine(world: World, files: dict[str, bytes]) -> None:
    """A repository without weights is inconclusive: empty is not OK."""
    world.hub.create_repo("demo/bare")
    world.hub.commit("demo/bare", files)

    done = world.run("scan", "demo/bare", "--json")

    assert done.exit_code == 3, done.stderr
    assert json.loads(done.stdout)["verdict"]["label"] == "inconclusive"


def test_no_disk_space(world: World, family: Path) -> None:
    """A download that would go below the free-space floor is refused before it starts."""
    world.hub.create_repo("demo/big")
    weights = bytearray((family / "repos" / RELEASE / "model.safetensors").read_bytes())
    weights[-2:] = b"\x11\x11"
    world.hub.commit("demo/big", {"README.md": CARD, "model.safetensors": bytes(weights)})

    done = world.run("scan", "demo/big", FORKWATCH_HUB__FREE_SPACE_FLOOR_GB="100000000")

    assert done.exit_code == 5
    assert len(_lines(done.stderr)) == 1
    assert "space" in done.stderr
    assert not list((world.state / "cache").rglob("*.part"))


def test_hub_down(world: World) -> None:
    """When nothing listens, every command that needs the Hub says so in one line."""
    for command in (("scan", "demo/x"), ("crawl",), ("run", "--once")):
        done = world.run(*command, FORKWATCH_HUB__ENDPOINT="http://127.0.0.1:9")

        assert done.exit_code == 4, done.stderr
        assert len(_lines(done.stderr)) == 1


def test_hub_with_server_errors(world: World) -> None:
    """A Hub that answers 503 to everything is a Hub error after the retries."""
    world.hub.inject(Fault("info", "503", times=-1))

    assert world.run("scan", "demo/x").exit_code == 4


def test_nothing_guarded(tmp_path: Path) -> None:
    """Without a release there is nothing to examine, which is not success."""
    hub = {"FORKWATCH_HUB__ENDPOINT": "http://127.0.0.1:9"}

    assert invoke(tmp_path, "run", "--once", **hub).exit_code == 3
    assert invoke(tmp_path, "scan", "demo/x", **hub).exit_code == 3
    assert invoke(tmp_path, "report", "build", **hub).exit_code == 3
    assert invoke(tmp_path, "report", "serve", **hub).exit_code == 3


def test_bad_settings(tmp_path: Path) -> None:
    """A wrong value, an unknown section and broken TOML are usage errors that name the place."""
    for text, named in (
        ("[policy]\nalpha = 2\n", "policy.alpha"),
        ("[polcy]\nalpha = 0.1\n", "polcy"),
        ("[policy\n", "TOML"),
        ("[policy]\nalpha = 0.1 # \xff\n", "TOML"),
        (
            "[policy]\nalhpa = 0.1\n[daemon]\nport = 'x'\n",
            "policy.alhpa: there is no such setting (also wrong: ",
        ),
    ):
        file = tmp_path / "forkwatch.toml"
        file.write_bytes(text.encode("latin-1"))

        done = invoke(tmp_path / "state", "status", FORKWATCH_CONFIG=str(file))

        assert done.exit_code == 2
        assert named in done.stderr


def test_init_writes_the_defaults_once(tmp_path: Path) -> None:
    """The template is valid, equals the defaults, and is not overwritten by accident."""
    file = tmp_path / "forkwatch.toml"

    assert invoke(tmp_path, "init", str(file)).exit_code == 0
    assert invoke(tmp_path, "init", str(file)).exit_code == 2
    assert invoke(tmp_path, "init", str(file), "--force").exit_code == 0
    assert invoke(tmp_path, "status", FORKWATCH_CONFIG=str(file)).exit_code == 0
