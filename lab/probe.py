"""Looking at what runs, from the outside and with short deadlines."""

import http.client
import json
import socket
from typing import Any

from lab import names

TIMEOUT_S = 1.0


def ask(
    host: str, port: int, path: str, *, method: str = "GET", body: bytes = b"", timeout_s: float = TIMEOUT_S
) -> Any:
    """(status, JSON or None) of one request. Raises OSError, http.client.HTTPException."""
    connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
    try:
        connection.request(method, path, body or None, {"Content-Type": "application/json"} if body else {})
        answer = connection.getresponse()
        text = answer.read()
        try:
            return answer.status, json.loads(text)
        except ValueError:
            return answer.status, text.decode(errors="replace")
    finally:
        connection.close()


def answers_http(host: str, port: int, path: str) -> bool:
    """Whether it answers with 200."""
    try:
        return bool(ask(host, port, path)[0] == 200)
    except (OSError, http.client.HTTPException):
        return False


def redis(host: str, port: int, *words: str, timeout_s: float = TIMEOUT_S) -> Any:
    """One command in the Redis protocol; str, int, None or lists of them. Raises OSError; an error is a ValueError."""
    with socket.create_connection((host, port), timeout_s) as connection:
        parts = [f"*{len(words)}\r\n", *(f"${len(word.encode())}\r\n{word}\r\n" for word in words)]
        connection.sendall("".join(parts).encode())
        with connection.makefile("rb") as answer:
            return _read(answer)


def _read(answer: Any) -> Any:
    line = answer.readline()
    if not line:
        raise ConnectionError("closed")
    kind, rest = line[:1], line[1:-2]
    if kind == b"-":
        raise ValueError(rest.decode())
    if kind == b":":
        return int(rest)
    if kind == b"$":
        size = int(rest)
        return None if size < 0 else answer.read(size + 2)[:-2].decode("latin-1")
    if kind == b"*":
        return [_read(answer) for _ in range(int(rest))]
    return rest.decode()


def resolves(host: str, port: int, name: str) -> bool:
    """Whether the name server knows the name."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
        line.settimeout(TIMEOUT_S)
        try:
            line.sendto(names.ask(name, 1), (host, port))
            return line.recv(4096)[7:8] == b"\x01"
        except OSError:
            return False


def answers_sip(host: str, port: int) -> bool:
    """Whether it answers OPTIONS with 200, over UDP."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
        line.settimeout(TIMEOUT_S)
        try:
            line.connect((host, port))
            own = "{}:{}".format(*line.getsockname())
            line.send(
                f"OPTIONS sip:{host}:{port} SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bKready\r\n"
                f"Max-Forwards: 70\r\nFrom: <sip:{own}>;tag=1\r\nTo: <sip:{host}>\r\nCall-ID: ready@{own}\r\n"
                "CSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n".encode()
            )
            return line.recv(65536).startswith(b"SIP/2.0 200 ")
        except OSError:
            return False


def pings(host: str, port: int) -> bool:
    """Whether a Redis or Sentinel is there and has loaded its data."""
    try:
        return bool(redis(host, port, "PING") == "PONG")
    except (OSError, ValueError):
        return False
