"""From a request to a reply: which endpoint, which repository, who may read it. No sockets here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from urllib.parse import quote

from forkwatch.demo.hub import content, details, large, writing
from forkwatch.demo.hub.ask import Ask, Site
from forkwatch.demo.hub.faults import Addressed, Route
from forkwatch.demo.hub.listing import list_models
from forkwatch.demo.hub.repo import Repo
from forkwatch.demo.hub.state import DATASETS, SPACES
from forkwatch.demo.hub.wire import BadRequestError, Json, Reply, Request, error_reply, json_reply

_ENDPOINTS: Mapping[Route, Callable[[Ask], Reply]] = MappingProxyType(
    {
        "info": details.info,
        "tree": details.tree,
        "paths-info": details.paths_info,
        "commits": details.commits,
        "refs": details.refs,
        "safetensors-metadata": details.safetensors_metadata,
        "resolve": content.resolve,
        "xet-token": content.xet_token,
        "preupload": writing.preupload,
        "commit": writing.commit,
        "lfs-batch": large.batch,
    }
)

_AT_REVISION: Mapping[str, Route] = MappingProxyType(
    {"revision": "info", "paths-info": "paths-info", "commits": "commits", "xet-read-token": "xet-token"}
)

_WRITTEN_TO: frozenset[Route] = frozenset(
    {"create-repo", "validate-yaml", "preupload", "commit", "lfs-batch"}
)
_POSTED: frozenset[Route] = _WRITTEN_TO | {"paths-info"}

_ACCOUNT: Json = {"type": "user", "name": "demo", "auth": {"type": "access_token"}}


@dataclass(frozen=True, slots=True)
class Target(Addressed):
    """What a request to the hub is about."""

    revision: str = "main"


def target_of(request: Request) -> Target | None:  # noqa: PLR0911 - one a shape of address
    """What a request is about; None when no endpoint has that address."""
    match request.segments:
        case ("lfs", oid):
            return Target("lfs-upload", None, oid)
        case ("api", "whoami-v2"):
            return Target("whoami")
        case ("api", "models"):
            return Target("list")
        case ("api", "models", namespace, name, *rest):
            return _below_repo(f"{namespace}/{name}", rest)
        case ("api", "repos", "create"):
            return Target("create-repo")
        case ("api", "validate-yaml"):
            return Target("validate-yaml")
        case ("api", "spaces", *rest) | ("spaces", *rest):
            return _in_space(rest, api=request.segments[0] == "api")
        case ("api", "datasets", *rest) | ("datasets", *rest):
            return _in_dataset(rest, api=request.segments[0] == "api")
        case (namespace, name, "resolve", revision, *path) if path:
            return Target("resolve", f"{namespace}/{name}", "/".join(path), revision)
        case _:
            return None


def _in_dataset(rest: list[str], *, api: bool) -> Target | None:
    match rest:
        case [namespace, name] if api:
            return Target("info", f"{DATASETS}{namespace}/{name}")
        case [namespace, name, "revision", revision] if api:
            return Target("info", f"{DATASETS}{namespace}/{name}", None, revision)
        case [namespace, name, "resolve", revision, *path] if path and not api:
            return Target("resolve", f"{DATASETS}{namespace}/{name}", "/".join(path), revision)
        case _:
            return None


def _in_space(rest: list[str], *, api: bool) -> Target | None:  # noqa: PLR0911 - one a shape of address
    match rest:
        case [namespace, name] if api:
            return Target("info", f"{SPACES}{namespace}/{name}")
        case [namespace, name, "revision", revision] if api:
            return Target("info", f"{SPACES}{namespace}/{name}", None, revision)
        case [namespace, name, "tree", revision, *path] if api:
            return Target("tree", f"{SPACES}{namespace}/{name}", "/".join(path), revision)
        case [namespace, name, "preupload" | "commit" as route, revision] if api:
            return Target(route, f"{SPACES}{namespace}/{name}", None, revision)
        case [namespace, name, "info", "lfs", "objects", "batch"] if name.endswith(".git"):
            return Target("lfs-batch", f"{SPACES}{namespace}/{name.removesuffix('.git')}")
        case [namespace, name, "resolve", revision, *path] if path and not api:
            return Target("resolve", f"{SPACES}{namespace}/{name}", "/".join(path), revision)
        case _:
            return None


def _below_repo(repo: str, rest: list[str]) -> Target | None:
    match rest:
        case []:
            return Target("info", repo)
        case ["refs"]:
            return Target("refs", repo)
        case ["revision" | "paths-info" | "commits" | "xet-read-token" as kind, revision]:
            return Target(_AT_REVISION[kind], repo, None, revision)
        case ["tree", revision, *path]:
            return Target("tree", repo, "/".join(path), revision)
        case ["safetensors-metadata", *path] if path:
            return Target("safetensors-metadata", repo, "/".join(path))
        case _:
            return None


def reply_to(request: Request, target: Target | None, site: Site) -> Reply:
    """The answer of a well-behaved hub."""
    if request.method == "PUT" and target is not None and target.route == "lfs-upload":
        return large.take(request, site, target.path or "")
    token = _bearer(request)
    if token is not None and token not in site.tokens:
        return error_reply(401, "Invalid username or password.")
    if target is None:
        return error_reply(404, "Sorry, we can't find the page you are looking for.")
    if request.method == "PUT" or (request.method == "POST") != (target.route in _POSTED):
        return error_reply(405, "Method not allowed")
    try:
        return _authenticated(request, target, site, authorized=token is not None)
    except BadRequestError as error:
        return error_reply(400, str(error))


def _authenticated(request: Request, target: Target, site: Site, *, authorized: bool) -> Reply:
    if target.route in _WRITTEN_TO | {"whoami"} and not authorized:
        return error_reply(401, "Invalid username or password.")
    match target.route:
        case "whoami":
            return json_reply(_ACCOUNT)
        case "create-repo":
            return writing.create_repo(request, site)
        case "validate-yaml":
            return writing.validate_yaml(request)
        case "list":
            return list_models(request, site, authorized=authorized)
        case _:
            return _about_repo(request, target, site, authorized=authorized)


def _about_repo(request: Request, target: Target, site: Site, *, authorized: bool) -> Reply:
    name = target.repo or ""
    repo = site.state.find(name)
    if repo is None and (moved := site.state.moved_to(name)) is not None:
        location = request.target.replace(f"/{quote(name)}", f"/{quote(moved)}", 1)
        return Reply(307, (("Location", location),))
    if repo is None or (repo.private and not authorized):
        return error_reply(404, "Repository not found", "RepoNotFound")
    return _refusal(repo, target.route) or _endpoint(request, target, site, repo)


def _refusal(repo: Repo, route: Route) -> Reply | None:
    """Why the repository may not be read: disabled ones show their properties, gated ones all but bytes."""
    if repo.disabled and route != "info":
        return error_reply(403, "Access to this resource is disabled.")
    if repo.gated and route == "resolve":
        message = f"Access to {repo.name} is restricted and you are not in the authorized list."
        return error_reply(403, message, "GatedRepo")
    return None


def _endpoint(request: Request, target: Target, site: Site, repo: Repo) -> Reply:
    commit = repo.commit(target.revision)
    if commit is None:
        return error_reply(404, f"Invalid rev id: {target.revision}", "RevisionNotFound")
    return _ENDPOINTS[target.route](Ask(request, site, repo, commit, target.path or ""))


def _bearer(request: Request) -> str | None:
    """The token that was sent; another authentication scheme counts as a wrong token."""
    given = request.headers.get("authorization")
    if given is None:
        return None
    scheme, _, token = given.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""
