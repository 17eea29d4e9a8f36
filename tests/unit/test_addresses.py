"""Splitting and joining of addresses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataplane.net.addresses import join_host_port, parse_address, split_host_port


@given(
    st.one_of(st.ip_addresses().map(str), st.from_regex(r"[a-z]([a-z0-9.-]*[a-z0-9])?", fullmatch=True)),
    st.integers(0, 65535),
)
def test_what_was_joined_is_split_into_the_same(host: str, port: int) -> None:
    assert split_host_port(join_host_port(host, port)) == (host, port)


@pytest.mark.parametrize(
    "text",
    ["", "a", ":80", "a:", "a:65536", "a:-1", "a:²", "a b:1", "a/b:1", "300.0.0.1:80", "10.0.0:80", "::1:80", "[a]:1",
     "[10.0.0.1]:1", "[]:1", "[::1]", "http://a:1"],
)  # fmt: skip
def test_what_is_no_host_with_a_port_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="HOST:PORT"):
        split_host_port(text)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("tcp://127.0.0.1:5555", ("127.0.0.1", 5555)),
        ("tcp://[::1]:5555", ("::1", 5555)),
        ("tcp://controller.ray.svc:1", ("controller.ray.svc", 1)),
    ],
)
def test_parse_address(address: str, expected: tuple[str, int]) -> None:
    assert parse_address(address) == expected


@pytest.mark.parametrize(
    "address",
    ["", "127.0.0.1:5555", "tcp://127.0.0.1", "tcp://:5555", "tcp://::1:5555", "http://a:1", "tcp://a:0", "tcp://a:65536",
     "tcp://a:b", "tcp://[]:5", "tcp://a:²"],
)  # fmt: skip
def test_parse_address_refuses(address: str) -> None:
    with pytest.raises(ValueError, match="tcp://HOST:PORT"):
        parse_address(address)
