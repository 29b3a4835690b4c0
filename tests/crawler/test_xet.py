from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawler.interface import BadAnswerError, HubUnavailableError, RepoFile, RepoId, Snapshot
from crawler.xet import Term, equal_ranges, parse_terms
from tests.crawler.conftest import MakeClient
from tests.crawler.liar import Answer, Liar, lying

REPO = RepoId("a/b")
COMMIT = "c" * 40
XET = "e" * 64
A, B, C = "a" * 64, "b" * 64, "c" * 64
TERMS = (Term(A, 0, 3, 1000), Term(B, 4, 9, 500))


def reconstruction(terms: tuple[Term, ...] = TERMS) -> dict[str, object]:
    """As specified, with the signed addresses that we ignore."""
    told = [
        {
            "hash": term.xorb,
            "unpacked_length": term.length,
            "range": {"start": term.start, "end": term.end},
        }
        for term in terms
    ]
    return {"offset_into_first_range": 0, "terms": told, "xorbs": {A: [{"url": "http://x", "ranges": []}]}}


def test_same_run_of_the_same_object_is_the_same_bytes() -> None:
    """Offsets are cumulated; what goes on in both files is one range; other runs are left out."""
    first = (Term(A, 0, 3, 10), Term(A, 3, 5, 20), Term(B, 0, 1, 5), Term(C, 0, 9, 7))
    second = (Term(B, 7, 8, 4), Term(A, 0, 3, 10), Term(A, 3, 5, 20), Term(B, 0, 2, 9), Term(C, 0, 9, 7))
    assert equal_ranges(first, second) == ((0, 4, 30), (35, 43, 7))
    assert equal_ranges(first, ()) == equal_ranges((), second) == ()


def test_run_with_two_lengths_is_not_believed() -> None:
    """One of the two answers is wrong, so nothing is proved."""
    assert equal_ranges((Term(A, 0, 3, 10),), (Term(A, 0, 3, 11),)) == ()


terms = st.lists(
    st.builds(
        lambda xorb, start: Term(xorb, start, start + 1, 1 + start),
        st.sampled_from([A, B, C]),
        st.integers(0, 3),
    ),
    max_size=12,
).map(tuple)


def content(parts: tuple[Term, ...]) -> bytes:
    """A file that the terms make, when each run has bytes of its own."""
    return b"".join(f"{part.xorb[0]}{part.start}".encode() * part.length for part in parts)


@given(terms, terms)
def test_ranges_are_equal_in_any_two_files(first: tuple[Term, ...], second: tuple[Term, ...]) -> None:
    """Each named range holds the same bytes in both; each byte of the second file is named at most once."""
    left, right = content(first), content(second)
    end = 0
    for a, b, length in equal_ranges(first, second):
        assert b >= end
        assert left[2 * a : 2 * (a + length)] == right[2 * b : 2 * (b + length)]
        assert len(left[2 * a : 2 * (a + length)]) == 2 * length > 0
        end = b + length


@given(terms)
def test_file_is_equal_to_itself(parts: tuple[Term, ...]) -> None:
    """All of it, and every byte is named."""
    assert sum(length for _, _, length in equal_ranges(parts, parts)) == sum(part.length for part in parts)


def test_reconstruction_is_read() -> None:
    """Terms in order; the addresses are ignored."""
    assert parse_terms(reconstruction(), 1500, "f") == TERMS
    assert parse_terms({"terms": []}, 0, "f") == ()


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        {"terms": {}},
        {"terms": [None]},
        {"terms": [{}]},
        reconstruction() | {"offset_into_first_range": 5},
        reconstruction((Term(A, 0, 3, 1000),)),
        reconstruction((Term(A, 0, 3, 2000), Term(A, 0, 3, -500))),
        reconstruction((Term("../x", 0, 3, 1500),)),
        reconstruction((Term(A, 3, 3, 1500),)),
        reconstruction((Term(A, -1, 3, 1500),)),
        reconstruction((Term(A, 0, 1 << 40, 1500),)),
        reconstruction((Term(A, 0, True, 1500),)),
        reconstruction((Term(A, 0, 3, 1500.0),)),  # type: ignore[arg-type] # that is the point
    ],
)
def test_hostile_reconstruction_is_refused(value: object) -> None:
    """Wrong types, lengths that do not add up, runs that cannot be."""
    with pytest.raises(BadAnswerError):
        parse_terms(value, 1500, "f")


@pytest.fixture
def start() -> Iterator[Callable[[], Liar]]:
    with ExitStack() as stack:
        yield lambda: stack.enter_context(lying())


@pytest.fixture
def store(start: Callable[[], Liar]) -> Liar:
    """The content-addressed store, on an origin of its own; it knows version 1 of the protocol only."""
    liar = start()
    liar.answers["GET", f"/v1/reconstructions/{XET}"] = Answer(body=json.dumps(reconstruction()).encode())
    return liar


@pytest.fixture
def hub(start: Callable[[], Liar], store: Liar) -> Liar:
    """A hub with one file of 1,500 bytes in the store."""
    liar = start()
    liar.answers["HEAD", f"/{REPO}/resolve/{COMMIT}/w.safetensors"] = Answer(
        302, {"Location": f"{store.url}/signed", "X-Xet-Hash": XET}
    )
    grant(liar, store.url)
    return liar


def grant(hub: Liar, url: object, token: object = "cas_secret") -> None:
    told = json.dumps({"accessToken": token, "exp": 2000000000, "casUrl": url}).encode()
    hub.answers["GET", f"/api/models/{REPO}/xet-read-token/{COMMIT}"] = Answer(body=told)


SNAPSHOT = Snapshot(
    repo=REPO,
    commit=COMMIT,  # type: ignore[arg-type] # a plain text in a test
    files=(RepoFile("w.safetensors", 1500, "d" * 40, "f" * 64),),
    tags=(),
    claims=(),
    license=None,
    access="open",  # type: ignore[arg-type] # unused here
    created_at=None,
    last_modified=None,
    downloads=0,
    likes=0,
)


def test_each_token_goes_to_its_own_origin(hub: Liar, store: Liar, make_client: MakeClient) -> None:
    """The Hub's to the Hub, the store's to the store; version 2 is tried first."""
    client = make_client(endpoint=hub.url, token="hf_secret")
    assert client.xet_terms(SNAPSHOT, "w.safetensors") == TERMS
    assert {token for _, _, token in hub.seen} == {"Bearer hf_secret"}
    assert [(path, token) for _, path, token in store.seen] == [
        (f"/v2/reconstructions/{XET}", "Bearer cas_secret"),
        (f"/v1/reconstructions/{XET}", "Bearer cas_secret"),
    ]


@pytest.mark.parametrize("status", [404, 501])
def test_store_that_does_not_answer_proves_nothing(
    hub: Liar, store: Liar, make_client: MakeClient, status: int
) -> None:
    """Neither version known: no terms, no retry, no error."""
    for version in ("v1", "v2"):
        store.answers["GET", f"/{version}/reconstructions/{XET}"] = Answer(status)
    assert make_client(endpoint=hub.url).xet_terms(SNAPSHOT, "w.safetensors") is None
    assert len(store.seen) == 2


def test_store_that_fails_is_reported(hub: Liar, store: Liar, make_client: MakeClient) -> None:
    """A broken server is retried, and then an error rather than an absence."""
    store.answers["GET", f"/v2/reconstructions/{XET}"] = Answer(500)
    with pytest.raises(HubUnavailableError):
        make_client(endpoint=hub.url, retries=1).xet_terms(SNAPSHOT, "w.safetensors")
    assert len(store.seen) == 2


def test_file_outside_the_store(hub: Liar, store: Liar, make_client: MakeClient) -> None:
    """Without a hash there are no terms, and nobody else is asked."""
    hub.answers["HEAD", f"/{REPO}/resolve/{COMMIT}/w.safetensors"].headers["X-Xet-Hash"] = "../../x"
    assert make_client(endpoint=hub.url).xet_terms(SNAPSHOT, "w.safetensors") is None
    assert store.seen == []


@pytest.mark.parametrize(
    ("url", "token"),
    [
        (None, "t"),
        ("", "t"),
        ("ftp://127.0.0.1/", "t"),
        ("http://[", "t"),
        ("file:///etc", "t"),
        ("https://x", ""),
        ("https://x", 3),
        ("https://x", "a\nX: y"),
        ("https://x", "x" * 100_000),
    ],
)
def test_grant_that_is_none(
    hub: Liar, store: Liar, make_client: MakeClient, url: object, token: object
) -> None:
    """A store that is no web address, or a token that is no header value, is refused unasked."""
    grant(hub, url, token)
    with pytest.raises(BadAnswerError):
        make_client(endpoint=hub.url).xet_terms(SNAPSHOT, "w.safetensors")
    assert store.seen == []


def test_store_that_redirects_is_not_followed(
    hub: Liar, store: Liar, start: Callable[[], Liar], make_client: MakeClient
) -> None:
    """The store's token is not carried on, and the other host hears nothing."""
    other = start()
    store.answers["GET", f"/v2/reconstructions/{XET}"] = Answer(302, {"Location": f"{other.url}/x"})
    with pytest.raises(BadAnswerError, match="another host"):
        make_client(endpoint=hub.url).xet_terms(SNAPSHOT, "w.safetensors")
    assert other.seen == []


def test_plain_store_of_a_real_hub_is_refused() -> None:
    """Plain http is for a hub on this machine only."""
    from crawler.xet import _is_store

    assert _is_store("https://cas.example", plain=False)
    assert not _is_store("http://cas.example", plain=False)
    assert _is_store("http://127.0.0.1:9", plain=True)
