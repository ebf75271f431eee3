"""What the tests of ranks share."""

import json
import socket

from sweep.store import RunDirectory


def rank_environment(rank: int, size: int, port: int) -> dict[str, str]:
    """What torchrun sets."""
    values = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return {name: str(value) for name, value in values.items()}


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def rows(directory: RunDirectory) -> list[dict]:
    return [json.loads(line) for line in directory.curve.read_text().splitlines()]
