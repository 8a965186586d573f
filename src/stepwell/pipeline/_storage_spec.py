"""From what names a storage to the storage: paths, URLs, ids, configurations with ``${env:NAME}`` in them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stepwell.errors import BadArguments
from stepwell.pipeline.storage import Storage, checked_prefix

REFERENCE = re.compile(r"\$\{env:([A-Za-z_][A-Za-z0-9_]*)\}")
_LOCAL = frozenset({"local", "file_system"})
_S3 = frozenset({"s3", "amazon_s3", "minio"})
_KEYS = {
    **dict.fromkeys(_LOCAL, frozenset({"location"})),
    **dict.fromkeys(
        _S3, frozenset({"bucket_name", "access_key", "secret_key", "region_name", "endpoint_url", "prefix"})
    ),
    "memory": frozenset({"location"}),
}


def resolve(spec: Any, env: Mapping[str, str], token: str) -> Storage:
    """Open it. Raises as `open_storage`."""
    if isinstance(spec, Mapping):
        return _configured(spec, env, token)
    if isinstance(spec, os.PathLike):
        return _local(os.fspath(spec), token)
    if isinstance(spec, bool) or not isinstance(spec, str | int):
        message = f"a storage is a path, a URL, an id or a configuration, got {type(spec).__name__}"
        raise BadArguments(message)
    if isinstance(spec, str):
        spec = expanded(spec, env)
        if not spec.strip():
            raise BadArguments("the storage is empty")
        if "://" in spec:
            return _url(spec, token)
        if "/" in spec or os.sep in spec or spec in {".", ".."} or spec.startswith("~"):
            return _local(spec, token)
    from stepwell.pipeline._workspace import Workspace

    workspace = Workspace.current(env)
    known = workspace.storages()
    if str(spec) in known:
        return resolve(known[str(spec)], env, token)
    if isinstance(spec, str) and Path(spec).is_dir():
        return _local(spec, token)
    message = f"Failed to get storage {spec}: not found in {workspace.storage.url}"
    raise BadArguments(message, hint=f"a folder is written with a slash: ./{spec}" if isinstance(spec, str) else None)


def expanded(value: Any, env: Mapping[str, str]) -> Any:
    """The value with each ``${env:NAME}`` in its texts replaced.

    Raises:
        BadArguments: a variable is not set.
    """
    if isinstance(value, str):
        return REFERENCE.sub(lambda match: _variable(match[1], env), value)
    if isinstance(value, Mapping):
        return {key: expanded(item, env) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [expanded(item, env) for item in value]
    return value


def references(value: Any) -> Iterator[str]:
    """The names of all variables that the value refers to."""
    if isinstance(value, str):
        yield from REFERENCE.findall(value)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from references(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from references(item)


def _variable(name: str, env: Mapping[str, str]) -> str:
    if name not in env:
        message = f"the environment variable {name} is not set"
        raise BadArguments(message)
    return env[name]


def _local(path: str, token: str) -> Storage:
    from stepwell.pipeline._storage_local import LocalStorage

    return LocalStorage(path, token)


def _url(url: str, token: str) -> Storage:
    if url.startswith("file://"):
        return _local(url.removeprefix("file://"), token)
    from stepwell.pipeline._storage_objects import open_url

    return open_url(url)


def _configured(spec: Mapping[str, Any], env: Mapping[str, str], token: str) -> Storage:
    provider = spec.get("provider")
    settings = spec.get("configuration", {})
    if provider not in _KEYS:
        message = f"unknown storage provider {provider!r}: known are {', '.join(sorted(_KEYS))}"
        raise BadArguments(message)
    if not isinstance(settings, Mapping):
        message = f"the configuration of a storage is a mapping, got {type(settings).__name__}"
        raise BadArguments(message)
    unknown = sorted(set(settings) - _KEYS[provider])
    if unknown:
        message = f"unknown in the configuration of a storage of provider {provider!r}: {', '.join(unknown)}"
        raise BadArguments(message)
    settings = expanded(settings, env)
    if provider in _LOCAL:
        return _local(_needed(settings, "location", provider), token)
    from stepwell.pipeline._storage_objects import open_url

    if provider == "memory":
        return open_url(f"memory://{str(settings.get('location', '')).strip('/')}")
    return open_url(_s3_url(settings, provider), _s3_options(settings))


def _s3_url(settings: Mapping[str, Any], provider: str) -> str:
    prefix = checked_prefix(str(settings.get("prefix") or "").strip("/"))
    return f"s3://{_needed(settings, 'bucket_name', provider)}" + (f"/{prefix}" if prefix else "")


def _s3_options(settings: Mapping[str, Any]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for ours, theirs in (("access_key", "key"), ("secret_key", "secret"), ("endpoint_url", "endpoint_url")):
        value = settings.get(ours)
        if value:
            options[theirs] = value.get_secret_value() if hasattr(value, "get_secret_value") else value
    if settings.get("region_name"):
        options["client_kwargs"] = {"region_name": settings["region_name"]}
    return options


def _needed(settings: Mapping[str, Any], key: str, provider: str) -> str:
    value = settings.get(key)
    if not isinstance(value, str) or not value.strip():
        message = f"a storage of provider {provider!r} needs {key}"
        raise BadArguments(message)
    return value
