"""Large files on their way in: Git LFS's batch endpoint, and the addresses that it hands out."""

from __future__ import annotations

import hashlib
import re

from forkwatch.demo.hub.ask import Ask, Site
from forkwatch.demo.hub.wire import BadRequestError, Json, Reply, Request, error_reply, json_of, json_reply

_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)


def batch(ask: Ask) -> Reply:
    """Where each object is to be sent; nowhere, if it is here.

    Raises:
        BadRequestError: no list of objects.
    """
    wanted = json_of(ask.request.body).get("objects")
    if not isinstance(wanted, list) or not all(_SHA256.fullmatch(str(each.get("oid"))) for each in wanted):
        raise BadRequestError('"objects" is required')
    found: list[Json] = []
    for each in wanted:
        entry: dict[str, Json] = {"oid": each["oid"], "size": each["size"]}
        if ask.site.state.blob(each["oid"]) is None:
            entry["actions"] = {"upload": {"href": f"{ask.site.origin}/lfs/{each['oid']}"}}
        found.append(entry)
    return json_reply({"transfer": "basic", "objects": found})


def take(request: Request, site: Site, oid: str) -> Reply:
    """`PUT` of one object: the address is the permission, as with a signed one."""
    if hashlib.sha256(request.body).hexdigest() != oid:
        return error_reply(400, "The content is not what was announced")
    site.state.blobs({f"{oid}.bin": request.body})
    return json_reply({"oid": oid})
