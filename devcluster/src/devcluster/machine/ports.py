"""Ports of this machine's loopback address."""

from __future__ import annotations

import socket

__all__ = ["free_port", "is_free"]

_HOST = "127.0.0.1"


def is_free(port: int) -> bool:
    """Return whether a port can be listened on."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((_HOST, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind((_HOST, 0))
        return int(listener.getsockname()[1])
