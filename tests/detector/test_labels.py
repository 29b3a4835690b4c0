"""Other scanners' words stand beside our finding, and change nothing of it."""

from __future__ import annotations

import os
import pickle

import pytest

from detector.files import inspect_files
from detector.interface import Evidence, FileFinding
from detector.labels import MAX_LABELLED, labelled, scanners
from tests.detector.inspected import Bytes, snapshot
from tests.forkwatch.ordinary import TRAINING
from tests.hostile.build import imports, torch_zip


def labels(content: bytes) -> dict[str, Evidence]:
    """By scanner, of a file that both must be installed to label."""
    if set(installed := scanners()) != {"picklescan", "fickling"}:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("pip install picklescan fickling")
    source = Bytes(content)
    found = inspect_files(snapshot({"a.bin": source.size}), lambda _: source)
    (finding,) = labelled(found, lambda _: source, installed)
    assert finding.id == found[0].id
    return {label.name: label for label in finding.labels}


def test_a_dangerous_import() -> None:
    """Both name it, as it stands and in torch's archive."""
    for content in (imports("os", "system"), torch_zip(imports("os", "system"))):
        found = labels(content)
        assert (found["picklescan"].value, found["picklescan"].note) == ("dangerous", "os.system")
        assert found["fickling"].value == "likely overtly malicious"


def test_labels_do_not_decide() -> None:
    """What picklescan does not know is unsafe all the same, and a trainer's record is plain all the same."""
    assert labels(imports("torch.hub", "load"))["picklescan"].value != "dangerous"
    assert labels(TRAINING)["fickling"].value == "likely unsafe"


def test_a_flood_of_names_is_cut() -> None:
    """A label is a short line of ASCII, and what is too large is said not to have been scanned."""
    many = b"\x80\x02" + b"".join(b"cm%d\n\xc3\xa9\n0" % at for at in range(50)) + b"N."
    assert all(len(label.note) < 300 and label.note.isascii() for label in labels(many).values())
    large = pickle.dumps(["a" * 300] * 3 + [str(at) * 60 for at in range(3000)])
    assert {label.value for label in labels(large).values()} == {"not scanned"}


def test_files_are_labelled_up_to_a_bound() -> None:
    """Each file once, eight in all; findings about other things are left as they are."""
    asked = list[str]()

    def read(path: str) -> Bytes:
        asked.append(path)
        return Bytes(pickle.dumps(1))

    found = [FileFinding("pickle-file", f"{at}.pkl", "") for at in range(20)]
    found += [FileFinding("executable-file", "a.py", ""), found[0]]
    told = list(labelled(found, read, {"x": lambda _: Evidence("x", "fine")}))
    assert asked == [f"{at}.pkl" for at in range(MAX_LABELLED)]
    assert [bool(each.labels) for each in told] == [*[True] * 8, *[False] * 13, True]
    assert list(labelled(found, read, {})) == found
