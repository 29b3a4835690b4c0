"""The loopback hub's metadata endpoints, as the real huggingface_hub client reads them."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import httpx2
import pytest
from huggingface_hub import HfApi, RepoFile, RepoFolder
from huggingface_hub.errors import (
    BadRequestError,
    DisabledRepoError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils._http import parse_ratelimit_headers

from forkwatch.demo.hub import LoopbackHub, Quota
from tests.forkwatch.demo.hub_samples import CARD, CONFIG, REPO, WEIGHTS, add_model, safetensors


def _ids(api: HfApi, **query: object) -> list[str]:
    return [model.id for model in api.list_models(**query)]  # type: ignore[arg-type]  # one helper for all filters


def test_filters_are_anded(hub: LoopbackHub, api: HfApi) -> None:
    """A model is listed only when it has every tag that was asked for."""
    add_model(hub)
    hub.create_repo("demo/declared")
    hub.commit("demo/declared", {"README.md": b"---\nbase_model: lab/base\n---\n"})
    assert set(_ids(api, filter="base_model:lab/base")) == {REPO, "demo/declared"}
    assert _ids(api, filter=["base_model:finetune:lab/base", "uncensored"]) == [REPO]
    assert _ids(api, filter=["base_model:adapter:lab/base"]) == []


def test_search_author_gated_and_pipeline_narrow_the_list(hub: LoopbackHub, api: HfApi) -> None:
    """Search looks at the id only and ignores case; author, gated and pipeline_tag compare whole values."""
    add_model(hub)
    add_model(hub, "other/Model-GGUF", gated=True)
    hub.create_repo("other/empty")
    assert _ids(api, search="mODEl-g") == ["other/Model-GGUF"]
    assert _ids(api, search="uncensored") == []
    assert set(_ids(api, author="other")) == {"other/Model-GGUF", "other/empty"}
    assert _ids(api, gated=True) == ["other/Model-GGUF"]
    assert set(_ids(api, gated=False)) == {REPO, "other/empty"}
    assert set(_ids(api, pipeline_tag="text-generation")) == {REPO, "other/Model-GGUF"}


def test_list_is_sorted_in_descending_order(hub: LoopbackHub, api: HfApi) -> None:
    """Each order puts the largest value first, and `limit` cuts the list."""
    hub.create_repo("demo/a", downloads=1, likes=3, created_at=datetime(2026, 3, 1, tzinfo=UTC))
    hub.create_repo("demo/b", downloads=2, likes=2, created_at=datetime(2026, 2, 1, tzinfo=UTC))
    hub.create_repo("demo/c", downloads=3, likes=1, created_at=datetime(2026, 1, 1, tzinfo=UTC))
    assert _ids(api, sort="created_at") == ["demo/a", "demo/b", "demo/c"]
    assert _ids(api, sort="last_modified") == ["demo/a", "demo/b", "demo/c"]
    assert _ids(api, sort="downloads") == ["demo/c", "demo/b", "demo/a"]
    assert _ids(api, sort="likes", limit=2) == ["demo/a", "demo/b"]


def test_pages_are_linked_and_survive_new_repositories() -> None:
    """Following `Link` yields every model once, although one is created between two pages."""
    with LoopbackHub(page_size=2) as hub:
        for number in range(5):
            hub.create_repo(f"demo/m{number}")
        api = HfApi(endpoint=hub.endpoint, token=False)
        models = api.list_models(sort="created_at")
        ids = [next(iter(models)).id]
        hub.create_repo("demo/late")
        ids += [model.id for model in models]
        assert ids == ["demo/m4", "demo/m3", "demo/m2", "demo/m1", "demo/m0"]
        pages = [request for request in hub.requests if request.route == "list"]
        assert len(pages) == 3
        assert all(("sort", "createdAt") in page.query for page in pages)


def test_items_carry_the_properties_that_were_asked_for(hub: LoopbackHub, web: httpx2.Client) -> None:
    """The default item is short, `full` adds files and commit, `expand` shows nothing but what it names."""
    commit = add_model(hub)
    url = f"{hub.endpoint}/api/models"
    (short,) = web.get(url).json()
    assert short["modelId"] == REPO
    assert not {"sha", "siblings", "cardData"} & short.keys()
    (full,) = web.get(url, params={"full": "true", "cardData": "true", "config": "true"}).json()
    assert full["sha"] == commit
    assert {"rfilename": "config.json"} in full["siblings"]
    assert full["cardData"]["license"] == "apache-2.0"
    assert full["config"]["model_type"] == "llama"
    (chosen,) = web.get(url, params={"expand": ["sha", "gated"]}).json()
    assert chosen.keys() == {"_id", "id", "sha", "gated"}


@pytest.mark.parametrize("name", ["baseModels", "childrenModelCount", "usedStorage", "nonsense"])
def test_list_refuses_properties_it_does_not_have(hub: LoopbackHub, api: HfApi, name: str) -> None:
    """A property that only model_info has is a 400 whose message lists the valid ones."""
    with pytest.raises(BadRequestError, match="cardData"):
        _ids(api, expand=[name])


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=x", f"limit={'9' * 5000}", "sort=name", "cursor=%25", "cursor=WzFd", "cursor=e30="],
)
def test_malformed_listing_is_a_bad_request(hub: LoopbackHub, web: httpx2.Client, query: str) -> None:
    """A limit, order or cursor that means nothing is refused rather than ignored."""
    assert web.get(f"{hub.endpoint}/api/models?{query}").status_code == 400


@pytest.mark.parametrize("cursor", ["%25", "e30=", "WyJ4Il0=", "Wy0xXQ=="])
def test_malformed_cursor_of_a_tree_is_a_bad_request(
    hub: LoopbackHub, web: httpx2.Client, cursor: str
) -> None:
    """A cursor that is no position in the tree is refused."""
    add_model(hub)
    assert web.get(f"{hub.endpoint}/api/models/{REPO}/tree/main?cursor={cursor}").status_code == 400


def test_model_info_tells_hashes_and_derived_properties(hub: LoopbackHub, api: HfApi) -> None:
    """With blobs, every file has its size and git id, and an LFS file its SHA-256."""
    commit = add_model(hub)
    info = api.model_info(REPO, files_metadata=True)
    assert info.sha == commit
    assert info.safetensors is not None
    assert info.safetensors.parameters == {"F32": 64 * 32 + 32}
    assert info.config == {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
    assert info.library_name == "transformers"
    files = {file.rfilename: file for file in info.siblings or ()}
    assert files["config.json"].lfs is None
    assert files["config.json"].size == len(CONFIG)
    git_blob = hashlib.sha1(b"blob %d\0" % len(CONFIG) + CONFIG, usedforsecurity=False).hexdigest()
    assert files["config.json"].blob_id == git_blob
    weights = files["model.safetensors"].lfs
    assert weights is not None
    assert weights.sha256 == hashlib.sha256(WEIGHTS).hexdigest()
    assert weights.size == len(WEIGHTS)


def test_expand_tells_the_model_tree(hub: LoopbackHub, api: HfApi) -> None:
    """baseModels names parent and relation, childrenModelCount counts those that declare this one."""
    add_model(hub)
    hub.create_repo("lab/base")
    fork = vars(api.model_info(REPO, expand=["baseModels"]))
    assert [model["id"] for model in fork["base_models"]["models"]] == ["lab/base"]
    base = vars(api.model_info("lab/base", expand=["childrenModelCount"]))
    assert base["children_model_count"] == {"adapter": 0, "finetune": 1, "merge": 0, "quantized": 0}


def test_blobs_and_expand_go_together(hub: LoopbackHub, web: httpx2.Client) -> None:
    """One raw call can give file hashes and expanded properties, which the Python client forbids."""
    add_model(hub)
    url = f"{hub.endpoint}/api/models/{REPO}?blobs=true&expand=siblings&expand=baseModels&securityStatus=true"
    shown = web.get(url).json()
    assert shown["baseModels"]["relation"] == "finetune"
    assert any("lfs" in file for file in shown["siblings"])
    assert shown["securityRepoStatus"] == {"scansDone": False, "filesWithIssues": []}
    hub.set_scan(REPO, {"model.safetensors": "suspicious"})
    issues = [{"path": "model.safetensors", "level": "suspicious"}]
    assert web.get(url).json()["securityRepoStatus"] == {"scansDone": True, "filesWithIssues": issues}
    entries = web.get(f"{hub.endpoint}/api/models/{REPO}/tree/main?expand=true").json()
    told = {
        entry["path"]: entry["securityFileStatus"]["status"] for entry in entries if entry["type"] == "file"
    }
    assert (told["model.safetensors"], told["config.json"]) == ("suspicious", "safe")


def test_tree_lists_files_and_folders(hub: LoopbackHub, api: HfApi) -> None:
    """The tree is flat unless recursive, can start in a folder, and carries the LFS hash."""
    add_model(hub)
    top = list(api.list_repo_tree(REPO))
    assert [entry.path for entry in top] == ["README.md", "config.json", "extra", "model.safetensors"]
    assert isinstance(top[2], RepoFolder)
    weights = top[3]
    assert isinstance(weights, RepoFile)
    assert weights.lfs is not None
    assert weights.lfs.sha256 == hashlib.sha256(WEIGHTS).hexdigest()
    assert "extra/note.txt" in [entry.path for entry in api.list_repo_tree(REPO, recursive=True)]
    assert [entry.path for entry in api.list_repo_tree(REPO, "extra")] == ["extra/note.txt"]
    with pytest.raises(RemoteEntryNotFoundError):
        list(api.list_repo_tree(REPO, "nowhere"))


def test_expanded_tree_tells_the_last_commit_of_each_file(hub: LoopbackHub, api: HfApi) -> None:
    """A file that a later commit left alone keeps the commit that brought it."""
    first = add_model(hub)
    second = hub.commit(REPO, {"extra/note.txt": b"changed"}, replace=False)
    last = {entry.path: entry.last_commit for entry in api.list_repo_tree(REPO, recursive=True, expand=True)}
    assert {path: commit.oid for path, commit in last.items() if commit} == {
        "README.md": first,
        "config.json": first,
        "extra": second,
        "extra/note.txt": second,
        "model.safetensors": first,
    }


def test_paged_tree_and_commits_are_complete() -> None:
    """Pages of two yield every file and every commit once."""
    with LoopbackHub(page_size=2) as hub:
        hub.create_repo(REPO)
        ids = [hub.commit(REPO, {f"{name}.txt": b"x"}, replace=False) for name in "abcde"]
        api = HfApi(endpoint=hub.endpoint, token=False)
        assert [file.path for file in api.list_repo_tree(REPO)] == [f"{name}.txt" for name in "abcde"]
        history = [commit.commit_id for commit in api.list_repo_commits(REPO)]
        assert history[:5] == ids[::-1]
        assert len(history) == 6
        assert [file.path for file in api.list_repo_tree(REPO, revision=ids[1])] == ["a.txt", "b.txt"]


def test_paths_info_omits_what_does_not_exist(hub: LoopbackHub, api: HfApi, web: httpx2.Client) -> None:
    """Known paths come back once each, unknown ones silently do not; a JSON body does as well as a form."""
    add_model(hub)
    found = api.get_paths_info(REPO, ["config.json", "nope", "extra", "config.json"], expand=True)
    assert [entry.path for entry in found] == ["config.json", "extra"]
    assert found[0].last_commit is not None
    url = f"{hub.endpoint}/api/models/{REPO}/paths-info/main"
    assert [entry["path"] for entry in web.post(url, json={"paths": ["README.md"]}).json()] == ["README.md"]
    assert web.post(url, json={"paths": "README.md"}).status_code == 400
    assert web.post(url, json=["README.md"]).status_code == 400
    assert web.post(url, json={"paths": ["x"] * 2001}).status_code == 400
    assert web.get(url).status_code == 405


def test_commits_and_refs(hub: LoopbackHub, api: HfApi) -> None:
    """The history is newest first, and `main` points at its head."""
    commit = add_model(hub)
    newest, oldest = api.list_repo_commits(REPO)
    assert (newest.commit_id, newest.title, newest.message) == (commit, "Upload model", "All of it.")
    assert oldest.title == "initial commit"
    refs = api.list_repo_refs(REPO, include_pull_requests=True)
    assert [(ref.name, ref.target_commit) for ref in refs.branches] == [("main", commit)]
    assert refs.pull_requests == []


def test_old_revisions_stay_readable(hub: LoopbackHub, api: HfApi) -> None:
    """A commit id shows the repository as it was; an unknown one is RevisionNotFound."""
    first = add_model(hub)
    hub.commit(REPO, {"README.md": b"# Rewritten"})
    assert api.model_info(REPO, revision=first).tags == [
        "transformers",
        "safetensors",
        "llama",
        "text-generation",
        "uncensored",
        "base_model:lab/base",
        "base_model:finetune:lab/base",
        "license:apache-2.0",
        "region:us",
    ]
    assert api.model_info(REPO).tags == ["region:us"]
    assert api.model_info(REPO, revision="refs/heads/main").sha == api.model_info(REPO).sha
    with pytest.raises(RevisionNotFoundError):
        api.model_info(REPO, revision="v1")


def test_headers_of_all_shards_come_in_one_call(hub: LoopbackHub, api: HfApi) -> None:
    """`safetensors-metadata` gives the tensors of every shard; a broken shard is refused."""
    hub.create_repo(REPO)
    shards = {
        "model-1.safetensors": safetensors({"a": (2, 3)}),
        "model-2.safetensors": safetensors({"b": (4,)}),
    }
    index = b'{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}'
    hub.commit(REPO, {**shards, "model.safetensors.index.json": index})
    metadata = api.get_sharded_safetensors_metadata(REPO)
    assert metadata.weight_map == {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    assert metadata.files_metadata["model-1.safetensors"].tensors["a"].shape == [2, 3]
    hub.commit(REPO, {"model-2.safetensors": b"no"}, replace=False)
    with pytest.raises(HfHubHTTPError, match=r"model-2\.safetensors"):
        api.get_sharded_safetensors_metadata(REPO)


@pytest.mark.parametrize(
    "index", [b"", b"[]", b"{}", b'{"weight_map": [1]}', b'{"weight_map": {"a": "absent"}}']
)
def test_broken_index_is_refused(hub: LoopbackHub, api: HfApi, index: bytes) -> None:
    """A file that is no safetensors index, or names shards that do not exist, is 422; a missing one 404."""
    hub.create_repo(REPO)
    with pytest.raises(RemoteEntryNotFoundError):
        api.get_sharded_safetensors_metadata(REPO)
    hub.commit(REPO, {"model.safetensors.index.json": index})
    with pytest.raises(HfHubHTTPError) as error:
        api.get_sharded_safetensors_metadata(REPO)
    assert error.value.response.status_code == 422


def test_unknown_and_private_repositories_are_not_found(hub: LoopbackHub, api: HfApi) -> None:
    """A private repository looks like a missing one to anybody without a token, in lists too."""
    add_model(hub, private=True)
    for repo in ("demo/none", REPO):
        with pytest.raises(RepositoryNotFoundError):
            api.model_info(repo)
    assert _ids(api) == []
    member = HfApi(endpoint=hub.endpoint, token="hf_demo")
    assert member.model_info(REPO).private is True
    assert _ids(member) == [REPO]


def test_wrong_token_is_refused_everywhere(hub: LoopbackHub) -> None:
    """A token that the hub does not know gets 401 in the live Hub's words, even for a public repository."""
    add_model(hub)
    stranger = HfApi(endpoint=hub.endpoint, token="hf_wrong")
    with pytest.raises(HfHubHTTPError) as error:
        stranger.model_info(REPO)
    assert error.value.response.status_code == 401
    assert error.value.response.headers["x-error-message"] == "Invalid username or password."
    assert [request.authorized for request in hub.requests] == [True]
    assert HfApi(endpoint=hub.endpoint, token="hf_demo").whoami()["name"] == "demo"


def test_disabled_repository_shows_its_properties_only(hub: LoopbackHub, api: HfApi) -> None:
    """model_info says that it is disabled; its tree raises DisabledRepoError."""
    add_model(hub, disabled=True)
    assert api.model_info(REPO).disabled is True
    with pytest.raises(DisabledRepoError):
        list(api.list_repo_tree(REPO))


def test_every_reply_tells_what_is_left_of_the_quota(web: httpx2.Client) -> None:
    """The headers count down per bucket, and a request over the quota is a 429."""
    with LoopbackHub(quota=Quota(api=2, resolvers=5)) as hub:
        add_model(hub)
        url = f"{hub.endpoint}/api/models/{REPO}"
        replies = [web.get(url) for _ in range(3)]
        assert [reply.status_code for reply in replies] == [200, 200, 429]
        limits = [parse_ratelimit_headers(reply.headers) for reply in replies]
        assert [(limit.remaining, limit.limit, limit.window_seconds) for limit in limits if limit] == [
            (1, 2, 300),
            (0, 2, 300),
            (0, 2, 300),
        ]
        resolved = parse_ratelimit_headers(web.get(f"{hub.endpoint}/{REPO}/resolve/main/README.md").headers)
        assert resolved is not None
        assert (resolved.resource_type, resolved.remaining) == ("resolvers", 4)


def test_quota_is_renewed_with_the_window(shared_session: None) -> None:
    """The real client waits for the window that the hub announced, and then gets its answer."""
    with LoopbackHub(quota=Quota(api=1, window_seconds=1)) as hub:
        add_model(hub)
        api = HfApi(endpoint=hub.endpoint, token=False)
        assert _ids(api) == _ids(api) == [REPO]


def test_card_is_what_was_uploaded(hub: LoopbackHub, api: HfApi) -> None:
    """The README comes back byte for byte, its front matter as cardData."""
    add_model(hub)
    card = api.model_info(REPO).card_data
    assert card is not None
    assert card.base_model == "lab/base"
    assert api.get_paths_info(REPO, "README.md")[0].size == len(CARD)  # type: ignore[union-attr]  # a file


@pytest.mark.parametrize(
    "path", ["/", "/api/models/demo", "/api/models/demo/model/tree", "/nope/x/resolve/main", "/[x?["]
)
def test_other_addresses_do_not_exist(hub: LoopbackHub, web: httpx2.Client, path: str) -> None:
    """An address that is no endpoint is a plain 404."""
    add_model(hub)
    reply = web.get(hub.endpoint + path)
    assert reply.status_code == 404
    assert "x-error-code" not in reply.headers
    assert hub.requests[-1].route is None
