"""The conditions that conftest promises really hold."""

import socket
import warnings

import jax
import jax.numpy as jnp
import pytest


@pytest.mark.parametrize("host", ["192.0.2.1", "example.com"])
def test_the_network_is_blocked(host: str) -> None:
    with pytest.raises(RuntimeError, match="127.0.0.1"):
        socket.create_connection((host, 80), timeout=0.1)


def test_loopback_is_not_blocked() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(("127.0.0.1", server.getsockname()[1]), timeout=5) as client:
            assert client.getpeername() == server.getsockname()


def test_eight_devices_strict_ranks_and_dtypes() -> None:
    assert len(jax.devices("cpu")) == 8
    with pytest.raises(ValueError, match="rank_promotion"):
        jnp.ones((2, 3)) + jnp.ones(3)
    with pytest.raises(jax.dtypes.TypePromotionError):
        jnp.ones(2, jnp.float32) + jnp.ones(2, jnp.int32)


def test_a_warning_is_an_error() -> None:
    with pytest.raises(UserWarning):
        warnings.warn("anything", UserWarning, stacklevel=1)
