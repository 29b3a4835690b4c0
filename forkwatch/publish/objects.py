"""Objects of an S3-compatible store below one prefix, by boto3: the few requests that a publication needs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from forkwatch.errors import Exit, SettingsError
from forkwatch.publish.interface import PublishError

CONNECTIONS = 8
"""Requests at a time."""

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".jsonl": "application/x-ndjson",
    ".svg": "image/svg+xml",
    ".xml": "application/atom+xml; charset=utf-8",
    ".csv": "text/csv; charset=utf-8",
    ".md": "text/markdown; charset=utf-8",
    ".zip": "application/zip",
    ".pem": "application/x-pem-file",
}
"""Of the files of a site; a store that serves them says what it was told."""
_CACHE = "no-cache"
"""Names of files do not change with their content: caches must ask whether theirs is the newest."""


@dataclass(frozen=True, slots=True)
class Found:
    """An object as it was read."""

    data: bytes
    etag: str
    age: float
    """Seconds since it was written, by the store's clock."""


@dataclass(frozen=True, slots=True)
class Objects:
    """A bucket's objects below `prefix`."""

    client: Any
    bucket: str
    prefix: str
    """Empty, or ends with a slash."""

    def read(self, path: str) -> Found | None:
        """The object, if there is one."""
        from botocore.exceptions import ClientError

        try:
            answer = self.client.get_object(Bucket=self.bucket, Key=self.prefix + path)
        except ClientError as error:
            if _code(error) == "NoSuchKey":
                return None
            raise
        return Found(answer["Body"].read(), answer["ETag"], _age(answer))

    def put(self, path: str, data: bytes, **condition: str) -> str | None:
        """Write an object; its tag, or None where the condition does not hold.

        A store that knows no conditions says so, or ignores them; then the object is written.
        """
        from botocore.exceptions import ClientError

        type_ = _TYPES.get(PurePosixPath(path).suffix, "text/plain; charset=utf-8")
        told: dict[str, Any] = {"Bucket": self.bucket, "Key": self.prefix + path, "Body": data}
        told |= {"ContentType": type_, "CacheControl": _CACHE}
        try:
            answer = self.client.put_object(**told, **condition)
        except ClientError as error:
            if condition and _code(error) in _NOT_SO:
                return None
            if not condition or _code(error) != "NotImplemented":
                raise
            answer = self.client.put_object(**told)
        return str(answer["ETag"])

    def delete(self, path: str) -> None:
        """Remove an object, if it is there."""
        self.client.delete_object(Bucket=self.bucket, Key=self.prefix + path)

    def tags(self) -> Iterator[tuple[str, str]]:
        """Path and tag of every object: of one that was sent in one piece, its MD5."""
        for page in self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=self.prefix
        ):
            for entry in page.get("Contents", ()):
                yield entry["Key"].removeprefix(self.prefix), entry["ETag"].strip('"')


@contextmanager
def opened(bucket: str, prefix: str, endpoint: str | None) -> Iterator[Objects]:
    """The objects, with boto3's usual places for credentials, region and endpoint.

    Raises:
        SettingsError: boto3 or credentials are missing.
        PublishError: the store refuses, or cannot be reached.
    """
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError as error:
        raise SettingsError("a bucket needs boto3", tip="pip install 'forkwatch[s3]'") from error
    elsewhere = endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    config = Config(
        retries={"max_attempts": 5, "mode": "standard"},
        connect_timeout=20,
        read_timeout=60,
        max_pool_connections=CONNECTIONS,
        request_checksum_calculation="when_required",  # other stores than Amazon's refuse its newer trailers
        response_checksum_validation="when_required",
        s3={"addressing_style": "path" if elsewhere else "auto"},
    )
    try:
        client = boto3.session.Session().client("s3", endpoint_url=elsewhere, config=config)
        yield Objects(client, bucket, prefix)
    except ClientError as error:
        raise _refused(bucket, error) from error
    except (BotoCoreError, ValueError) as error:  # a malformed endpoint is a ValueError
        raise _failed(error) from error


_REFUSALS = {
    "NoSuchBucket": "Create it, and allow reading as your readers need it: forkwatch does neither.",
    "InvalidAccessKeyId": "Check AWS_ACCESS_KEY_ID, or the profile.",
    "SignatureDoesNotMatch": "Check AWS_SECRET_ACCESS_KEY, or the profile.",
    "ExpiredToken": "The credentials are no longer valid: get new ones.",
    "AccessDenied": "The credentials need ListBucket, GetObject, PutObject and DeleteObject there.",
}


def _refused(bucket: str, error: Any) -> PublishError:
    code = _code(error)
    refused = PublishError(f"the bucket {bucket}: the store answers {code}", tip=_REFUSALS.get(code, ""))
    if code in _REFUSALS:
        refused.code = Exit.USAGE
    return refused


def _failed(error: Exception) -> PublishError | SettingsError:
    kind = type(error).__name__
    if kind in {"NoCredentialsError", "PartialCredentialsError", "ProfileNotFound"}:
        tip = "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; HF_TOKEN is for the Hub."
        return SettingsError(f"no credentials for the bucket: {str(error)[:200]}", tip=tip)
    if kind == "NoRegionError":
        return SettingsError("no region for the bucket", tip="Set AWS_REGION.")
    return PublishError(f"{kind}: {str(error)[:300]}", tip="Run it again: what was sent is not sent twice.")


def _code(error: Any) -> str:
    """What the store says; a request without a body says its status only."""
    code = str(error.response.get("Error", {}).get("Code", "nothing"))
    return _STATUS.get(code, code)


_STATUS = {"403": "AccessDenied", "404": "NoSuchKey", "412": "PreconditionFailed", "501": "NotImplemented"}
_NOT_SO = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey"})


def _age(answer: Any) -> float:
    from email.utils import parsedate_to_datetime

    now = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
    return float((now - answer["LastModified"]).total_seconds())
