"""Keys are made of names, never of positions, and say where in a run an operation stands."""

from __future__ import annotations

from hashlib import blake2b

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.core import child_key, idempotency_key, item_key, label, operation_id, parent_of
from stepwell.core._keys import named_item_key, shard_of


@pytest.mark.parametrize(
    "name, text",
    [
        ("load", "load"),
        ("load it", "load it"),
        ("a/b", "a%2Fb"),
        ("50%", "50%25"),
        ("a#2", "a%232"),
        ("a[0]", "a%5B0%5D"),
        ("a\tb\x7f", "a%09b%7F"),
        ("größe", "größe"),
    ],
)
def test_labels_encode_what_keys_are_made_of(name: str, text: str) -> None:
    assert label(name) == text


def test_later_operations_with_a_label_are_numbered() -> None:
    assert [child_key("", "load", n) for n in (1, 2, 3)] == ["load", "load#2", "load#3"]
    assert child_key("etl", "load", 2) == "etl/load#2"
    assert item_key("etl/m", 3) == "etl/m[3]"
    assert named_item_key("m", "a/b") == "m[key=a%2Fb]"


@pytest.mark.parametrize(
    "key, parent",
    [
        ("a", ""),
        ("a/b", "a"),
        ("a/b#2", "a"),
        ("m[3]", "m"),
        ("m[3]/s", "m[3]"),
        ("a/m[key=x]", "a/m"),
        ("m[1]/n[2]", "m[1]/n"),
    ],
)
def test_parents(key: str, parent: str) -> None:
    assert parent_of(key) == parent


@given(st.text(min_size=1), st.integers(1, 99), st.sampled_from(["", "a", "a/b", "m[1]", "m[key=x]"]))
def test_any_name_stands_below_its_parent(name: str, ordinal: int, parent: str) -> None:
    assert parent_of(child_key(parent, label(name), ordinal)) == parent


@given(st.text(min_size=1), st.text(min_size=1))
def test_different_names_have_different_labels(one: str, other: str) -> None:
    assert (label(one) == label(other)) == (one == other)


def test_operation_ids_are_equal_in_every_run() -> None:
    assert operation_id("etl/load") == blake2b(b"stepwell:etl/load", digest_size=32).hexdigest()
    assert len(operation_id("x")) == 64


def test_idempotency_keys_differ_between_runs_and_steps_only() -> None:
    assert idempotency_key("r", "a") == f"r:{operation_id('a')[:32]}"
    assert len({idempotency_key(r, k) for r in ("r", "q") for k in ("a", "b")}) == 4


def test_shards_come_from_the_run_id() -> None:
    assert shard_of("r") == shard_of("r")
    assert all(0 <= shard_of(str(n)) < 4096 for n in range(200))
