"""Storages for tests: a local folder, fsspec's memory, and S3 as moto's server speaks it over HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from stepwell.pipeline.storage import Storage, open_storage

KEY, SECRET = "AKIAEXAMPLEEXAMPLE", "canary-of-a-secret-key"


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """Address of an S3 server."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="session")
def s3_config(s3_endpoint: str) -> Callable[[], dict[str, Any]]:
    """Each call makes a bucket and gives the configuration of a storage on it."""
    import s3fs

    numbers = count()

    def make() -> dict[str, Any]:
        bucket = f"bucket-{next(numbers)}"
        files = s3fs.S3FileSystem(key=KEY, secret=SECRET, endpoint_url=s3_endpoint)
        files.mkdir(bucket)
        return {
            "provider": "s3",
            "configuration": {
                "bucket_name": bucket,
                "access_key": KEY,
                "secret_key": SECRET,
                "region_name": "us-east-1",
                "endpoint_url": s3_endpoint,
            },
        }

    return make


@pytest.fixture(params=["local", "memory", "s3"])
def storage_spec(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """What names an empty storage, of each kind."""
    if request.param == "local":
        return str(tmp_path / "store")
    if request.param == "memory":
        return f"memory://{uuid4().hex}"
    return request.getfixturevalue("s3_config")()


@pytest.fixture
def storage(storage_spec: Any) -> Storage:
    """An empty storage, of each kind."""
    return open_storage(storage_spec)
