"""``python -S ending_server.py HOST:PORT|PATH``: ends a Redis-compatible server in order, as its init script would."""

from __future__ import annotations

import socket
import sys


def main(address: str) -> None:
    """Send SHUTDOWN; returns when the server has closed the connection."""
    host, _, port = address.rpartition(":")
    connection = socket.create_connection((host, int(port))) if host else socket.socket(socket.AF_UNIX)
    if not host:
        connection.connect(address)
    with connection:
        connection.sendall(b"SHUTDOWN\r\n")
        while connection.recv(1024):
            pass


if __name__ == "__main__":
    main(sys.argv[1])
