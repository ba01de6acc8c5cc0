"""What the HTTP listener bears: every attack gets a clear answer or a closed connection, in bounded time."""

import time

import pytest

from tests.security.conftest import BODY_BYTES, CONNECTIONS, HEAD_BYTES, TIMEOUT_S, Target
from tests.security.raw import Raw, basic, request

HEALTH = request("GET", "/healthz")
SLACK_S = 4.0
FORM = b"Content-Type: application/x-www-form-urlencoded\r\n"


def healthy(target: Target) -> bool:
    """Whether somebody else is served, and at once."""
    began = time.monotonic()
    with target.raw() as raw:
        raw.send(HEALTH)
        return raw.reply().status == 200 and time.monotonic() - began < 1.0


@pytest.fixture(autouse=True)
def unharmed(target: Target):  # type: ignore[no-untyped-def]
    """The server serves others after each attack."""
    yield
    until = time.monotonic() + 10
    while not healthy(target):
        assert time.monotonic() < until, "the server no longer answers"


# -- time ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "first",
    [b"", b"\r\n", b"G", b"GET /healthz HTTP/1.1\r\nHost: x\r\n", b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: "],
)
def test_slow_heads_are_cut(target: Target, first: bytes) -> None:
    with target.raw() as raw:
        raw.send(first)
        began = time.monotonic()
        for _ in range(200):
            if not raw.send(b"\r\n" if not first.strip() else b"a"):
                break
            if raw.ended(0.1):
                break
        assert raw.closed or raw.ended(0.1)
        assert time.monotonic() - began < TIMEOUT_S + SLACK_S


@pytest.mark.parametrize(
    "path", ["/healthz", "/2010-04-01/Accounts/AC/Messages.json", "/connectors/web/receipt", "/media/x"]
)
@pytest.mark.parametrize("coding", [b"Content-Length: 5000\r\n", b"Transfer-Encoding: chunked\r\n"])
def test_slow_bodies_are_cut(target: Target, path: str, coding: bytes) -> None:
    with target.raw() as raw:
        raw.send(b"POST " + path.encode() + b" HTTP/1.1\r\nHost: x\r\n" + FORM + coding + b"\r\n")
        began = time.monotonic()
        for _ in range(200):
            if not raw.send(b"1\r\na\r\n" if b"chunked" in coding else b"a") or raw.ended(0.1):
                break
        assert raw.closed or raw.ended(0.1)
        assert time.monotonic() - began < TIMEOUT_S + SLACK_S


def test_slow_body_of_a_customer_gets_408(target: Target) -> None:
    account = target.tenants[0].account
    path = f"/2010-04-01/Accounts/{account.sid}/Messages.json"
    head = request("POST", path, basic(account.sid, account.auth_token) + FORM)
    with target.raw() as raw:
        raw.send(head.replace(b"Content-Length: 0", b"Content-Length: 100") + b"To=")
        reply = raw.reply()
        assert reply.status == 408
        assert raw.ended(SLACK_S)


def test_idle_kept_alive_connections_are_closed(target: Target) -> None:
    with target.raw() as raw:
        raw.send(HEALTH)
        assert raw.reply().status == 200
        assert raw.ended(TIMEOUT_S + SLACK_S)


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("right", [True, False])
def test_whoever_does_not_read_is_cut(target: Target, method: str, right: bool) -> None:
    account = target.tenants[0].account
    path = f"/2010-04-01/Accounts/{account.sid}/Messages.json"
    ask = request(method, path, (basic(account.sid, account.auth_token) if right else b"") + FORM)
    before = rss_kib(target)
    with target.raw() as raw:
        raw._socket.settimeout(0.5)
        began = time.monotonic()
        alive = True
        while alive and time.monotonic() - began < 20:
            try:
                raw._socket.sendall(ask * 10)
            except TimeoutError:
                continue
            except OSError:
                alive = False
        assert not alive, "a client that never reads is served for ever"
    assert rss_kib(target) - before < 40_000


# -- size ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "head",
    [
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-A: " + b"a" * (HEAD_BYTES + 1) + b"\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n"
        + b"".join(b"X-%d: a\r\n" % n for n in range(HEAD_BYTES // 6))
        + b"\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"A:\r\n" * 1000 + b"\r\n",
        b"GET /" + b"a" * HEAD_BYTES + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-A: " + b"a" * (300 * 1024),
        b"a" * (1024 * 1024),
    ],
)
def test_large_heads_are_refused(target: Target, head: bytes) -> None:
    with target.raw() as raw:
        raw.send(head)
        reply = raw.reply(TIMEOUT_S + SLACK_S)
        assert reply.status in (400, 414, 431) or (reply.status == 0 and reply.closed)
        assert raw.ended(TIMEOUT_S + SLACK_S)


@pytest.mark.parametrize("path", ["/2010-04-01/Accounts/{sid}/Messages.json", "/connectors/web/receipt"])
def test_large_bodies_are_refused(target: Target, path: str) -> None:
    account = target.tenants[0].account
    login = basic(account.sid, account.auth_token) + FORM
    for coding in (
        b"Content-Length: 99999999\r\n",
        b"Content-Length: 99999999999999999999\r\n",
        b"Transfer-Encoding: chunked\r\n",
    ):
        with target.raw() as raw:
            head = (
                b"POST "
                + path.format(sid=account.sid).encode()
                + b" HTTP/1.1\r\nHost: x\r\n"
                + login
                + coding
                + b"\r\n"
            )
            raw.send(head)
            for _ in range(200):
                if not raw.send(b"%x\r\n" % 8192 + b"a" * 8192 + b"\r\n"):
                    break
            reply = raw.reply(TIMEOUT_S + SLACK_S)
            assert reply.status in (400, 413) or (reply.status == 0 and reply.closed), reply
            assert raw.ended(TIMEOUT_S + SLACK_S)


@pytest.mark.parametrize(
    "form",
    [
        b"&" * (BODY_BYTES - 1),
        b"a=" + b"%00" * 1000,
        b"&".join(b"a%d=1" % n for n in range(3000)),
        b"Body=" + b"%ED%A0%80" * 100,
        b"Body=%00",
        b"%ff%fe=%ff",
        b"To=" + b"[" * 20_000,
    ],
)
def test_form_bombs_are_refused(target: Target, form: bytes) -> None:
    account = target.tenants[0].account
    with target.raw() as raw:
        raw.send(
            request(
                "POST",
                f"/2010-04-01/Accounts/{account.sid}/Messages.json",
                basic(account.sid, account.auth_token) + FORM,
                form,
            )
        )
        reply = raw.reply()
        assert reply.status == 400, reply


@pytest.mark.parametrize(
    "body",
    [
        b"--b\r\n" * 5000,
        b"".join(b'--b\r\nContent-Disposition: form-data; name="a%d"\r\n\r\n1\r\n' % n for n in range(400))
        + b"--b--\r\n",
        b"--b\r\n" + b"X: y\r\n" * 4000 + b"\r\n\r\n--b--\r\n",
        b"--b\r\nContent-Disposition: form-data; name=" + b'"' * 20_000,
        b"\x00" * 20_000,
        b'--b\r\nContent-Disposition: form-data; name="To"; filename="x"\r\n\r\n+1\r\n--b--\r\n',
    ],
)
def test_multipart_bombs_are_refused(target: Target, body: bytes) -> None:
    account = target.tenants[0].account
    kind = b"Content-Type: multipart/form-data; boundary=b\r\n"
    with target.raw() as raw:
        began = time.monotonic()
        raw.send(
            request(
                "POST",
                f"/2010-04-01/Accounts/{account.sid}/Messages.json",
                basic(account.sid, account.auth_token) + kind,
                body,
            )
        )
        assert raw.reply().status == 400
        assert time.monotonic() - began < 1.0


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 30_000,
        b'{"a":' * 6000,
        b"{",
        b"\xff",
        b'{"id": "\\ud800", "status": "delivered"}',
        b'[1,"x",null]',
        b"5",
        b"null",
        b'{"id": {"a": 1}, "status": []}',
    ],
)
def test_carrier_json_of_wrong_shape_is_refused(target: Target, body: bytes) -> None:
    for kind in ("receipt", "inbound"):
        with target.raw() as raw:
            raw.send(
                request(
                    "POST",
                    f"/connectors/web/{kind}?token=carrier-callback-token",
                    b"Content-Type: application/json\r\n",
                    body,
                )
            )
            assert raw.reply().status in (200, 400), body


# -- framing ---------------------------------------------------------------------------------------------------

POST = b"POST /2010-04-01/Accounts/x/Messages.json HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize(
    "attack",
    [
        POST + b"Content-Length: -1\r\n\r\n",
        POST + b"Content-Length: +1\r\n\r\na",
        POST + b"Content-Length: 0x10\r\n\r\n",
        POST + b"Content-Length: 1, 2\r\n\r\na",
        POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: a\nGET /: x\r\n b\r\n\r\n",
        b"GET /healthz\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /healthz HTTP/9.9\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
        b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT example.com:443 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET http://[::1 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"G\x00T / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: \x00\r\n\r\n",
        b"FROB / HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_broken_framing_is_refused_and_the_connection_ended(target: Target, attack: bytes) -> None:
    with target.raw() as raw:
        raw.send(attack)
        reply = raw.reply(TIMEOUT_S + SLACK_S)
        assert 400 <= reply.status < 600 or (reply.status == 0 and reply.closed), reply
        assert reply.status != 500
        assert raw.ended(TIMEOUT_S + SLACK_S)


def test_pipelined_requests_are_answered_in_order(target: Target) -> None:
    with target.raw() as raw:
        raw.send(HEALTH * 3 + request("GET", "/nothing") + HEALTH)
        assert [raw.reply().status for _ in range(5)] == [200, 200, 200, 404, 200]


def test_pipelining_is_bounded(target: Target) -> None:
    """200,000 requests sent blindly neither grow the process nor slow others."""
    before = rss_kib(target)
    with target.raw() as raw:
        raw._socket.settimeout(3)
        raw.send(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n" * 200_000)
        assert healthy(target)
        assert rss_kib(target) - before < 40_000


def test_smuggling_a_second_request_in_a_body(target: Target) -> None:
    """The body of a refused request is not read as the next request."""
    inner = request("GET", "/healthz")
    with target.raw() as raw:
        raw.send(POST + b"Content-Length: %d\r\n\r\n" % len(inner) + inner)
        assert raw.reply().status == 401
        assert raw.reply(1.0).status == 0


@pytest.mark.parametrize("upgrade", [b"h2c", b"websocket", b"frob"])
def test_upgrades_are_not_taken(target: Target, upgrade: bytes) -> None:
    with target.raw() as raw:
        raw.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: " + upgrade + b"\r\n\r\n")
        assert raw.reply(TIMEOUT_S + SLACK_S).status in (200, 400, 426, 501)
        raw.send(b"\x00\x01garbage" * 10)
        assert raw.ended(TIMEOUT_S + SLACK_S)


# -- connections -----------------------------------------------------------------------------------------------


def test_idle_connections_are_bounded_and_leave_room_again(target: Target) -> None:
    idle = [target.raw() for _ in range(CONNECTIONS * 3)]
    try:
        began = time.monotonic()
        while not healthy(target):
            assert time.monotonic() - began < TIMEOUT_S + SLACK_S
            time.sleep(0.05)
        assert sum(raw.ended(TIMEOUT_S + SLACK_S) for raw in idle) == len(idle)
    finally:
        for raw in idle:
            raw.close()


# -- hosts and paths -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        b"",
        b"a" * 300,
        b"x\x7f",
        b"evil.example/path",
        b"user@evil.example",
        b"a b",
        b"[::1",
        b"x:99999999",
        "é".encode(),
    ],
)
def test_odd_hosts_are_refused_or_not_repeated(target: Target, host: bytes) -> None:
    account = target.tenants[0].account
    with target.raw() as raw:
        raw.send(
            f"GET /2010-04-01/Accounts/{account.sid}/Messages.json HTTP/1.1\r\n".encode()
            + basic(account.sid, account.auth_token)
            + b"Host: "
            + host
            + b"\r\n\r\n"
        )
        reply = raw.reply(TIMEOUT_S + SLACK_S)
        assert reply.status in (200, 400), reply
        assert b"evil" not in reply.body


@pytest.mark.parametrize(
    "path",
    [
        "/media/../../../etc/passwd", "/media/%2e%2e%2f%2e%2e%2fmaster.key", "/media/ME" + "0" * 32, "/media/..%00",
        "/connectors/../healthz/receipt", "/connectors/web/../../x", "/connectors/web/receipt%00",
        "/connectors//receipt",
        "/connectors/nobody/receipt", "/_simulator/../master.key", "/_simulator/handsets/%2e%2e/messages",
        "/2010-04-01/Accounts/../../etc/passwd", "/2010-04-01/Accounts/AC%00/Messages.json", "//healthz",
        "/%2f", "/\\..\\x",
    ],
)  # fmt: skip
def test_paths_lead_nowhere_else(target: Target, path: str) -> None:
    with target.raw() as raw:
        raw.send(request("GET", path))
        assert raw.reply().status in (400, 401, 403, 404, 405), path


def rss_kib(target: Target) -> int:
    """Resident memory of the server."""
    with open(f"/proc/{target.server.pid}/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def test_nothing_of_the_above_raised(target: Target) -> None:
    """No attack reached the last resort: a traceback in the log."""
    log = target.server.log.read_text(errors="replace")
    assert "Traceback" not in log, log[log.index("Traceback") - 500 :][:4000]


def test_other_sockets_stay_open(target: Target) -> None:
    """A connection that behaves is untouched while others misbehave."""
    with target.raw() as good, Raw(target.server.port) as bad:
        good.send(HEALTH)
        assert good.reply().status == 200
        bad.send(b"\x00" * 100)
        assert bad.ended(SLACK_S)
        good.send(HEALTH)
        assert good.reply().status == 200
