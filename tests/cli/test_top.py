"""`trunkline top`: what is made of two scrapes, and the command against a server."""

import http.server
import threading
from collections.abc import Iterator

import pytest

from tests.cli.conftest import Command
from trunkline.cli.top_figures import Scrape, Window, percentile, tables

PAGE = """
trunkline_ready 1.0
trunkline_http_seconds_bucket{method="POST",route="/m",status="2xx",le="0.01"} %(n)s
trunkline_http_seconds_bucket{method="POST",route="/m",status="2xx",le="+Inf"} %(n)s
trunkline_http_seconds_count{method="POST",route="/m",status="2xx"} %(n)s
trunkline_stage_seconds_bucket{line="message",stage="submit",le="0.1"} %(half)s
trunkline_stage_seconds_bucket{line="message",stage="submit",le="1.0"} %(n)s
trunkline_stage_seconds_bucket{line="message",stage="submit",le="+Inf"} %(n)s
trunkline_stage_seconds_count{line="message",stage="submit"} %(n)s
trunkline_stage_seconds_bucket{line="message",stage="lane",le="+Inf"} 0
trunkline_stage_seconds_count{line="message",stage="lane"} 0
trunkline_stage_errors_total{line="message",stage="submit"} %(half)s
trunkline_stage_in_flight{line="message",stage="submit"} 3
trunkline_lane_waiting{kind="acme"} 12
trunkline_lane_late_seconds{kind="acme"} 90
trunkline_callbacks_owed 4
trunkline_callbacks_under_way 2
trunkline_connector_up{connector="acme"} 1.0
trunkline_connector_room{connector="acme"} 88
trunkline_smpp_binds{bind="trx",connector="acme",state="up"} 2
trunkline_smpp_binds{bind="trx",connector="acme",state="down"} 1
trunkline_calls{direction="inbound"} 5
trunkline_call_legs{status="in-progress"} 5
trunkline_media_legs 5
trunkline_media_ticks_skipped_total %(n)s
trunkline_partition_owned{partition="0"} 1
trunkline_partition_owned{partition="1"} 0
trunkline_lease_age_seconds 0.2
process_cpu_seconds_total %(half)s
process_resident_memory_bytes 52428800
"""


def page(count: int) -> str:
    return PAGE % {"n": count, "half": count / 2}


def rows(before: dict[str, Scrape], now: dict[str, Scrape | None], first: str) -> list[tuple[str, ...]]:
    return [row for table in tables(before, now) if table.columns[0] == first for row in table.rows]


def test_percentiles_as_prometheus_has_them() -> None:
    cumulative = [(0.1, 50.0), (1.0, 100.0), (float("inf"), 100.0)]
    assert percentile(cumulative, 0.5) == pytest.approx(0.1)
    assert percentile(cumulative, 0.75) == pytest.approx(0.55)
    assert percentile([(0.1, 0.0), (float("inf"), 5.0)], 0.99) == 0.1
    assert percentile([(0.1, 0.0), (float("inf"), 0.0)], 0.5) is None
    assert percentile([], 0.5) is None


def test_rates_of_a_window_over_two_nodes() -> None:
    before = {"a": Scrape.parse(page(100), 10.0), "b": Scrape.parse(page(0), 10.0)}
    now: dict[str, Scrape | None] = {"a": Scrape.parse(page(120), 12.0), "b": Scrape.parse(page(20), 12.0), "c": None}
    api, submit = rows(before, now, "line")
    assert api[:4] == ("api", "request", "20.0", "0.0")
    assert submit == ("message", "submit", "20.0", "10.0", "6", "100.0 ms", "982.0 ms", "-")
    assert rows(before, now, "waits")[0] == ("lane acme", "24", "3 min")
    assert rows(before, now, "carrier") == [("acme", "4", "2", "yes", "176")]
    assert rows(before, now, "calls")[0][:2] == ("legs", "10")
    assert rows(before, now, "media") == [("engine", "10", "140", "20.0", "-")]
    assert rows(before, now, "node") == [
        ("a", "yes", "1 of 2", "200.0 ms", "500 %", "50 MB"),
        ("b", "yes", "1 of 2", "200.0 ms", "500 %", "50 MB"),
        ("c", "no answer", "-", "-", "-", "-"),
    ]


def test_a_node_that_began_anew_counts_from_nothing() -> None:
    window = Window(Scrape.parse(page(100), 10.0), Scrape.parse(page(4), 12.0))
    assert window.rate("trunkline_stage_seconds_count", stage="submit") == 0
    assert window.percentile(0.5, "trunkline_stage_seconds", stage="submit") == pytest.approx(0.1)


class _Node(http.server.BaseHTTPRequestHandler):
    scrapes = 0

    def do_GET(self) -> None:
        if self.path != "/metrics" or self.headers.get("Authorization") != "Bearer s3cret":
            self.send_error(401)
            return
        type(self).scrapes += 1
        body = page(10 * type(self).scrapes).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def node() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Node)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield "http://{}:{}".format(*server.server_address[:2])
    server.shutdown()
    thread.join()
    server.server_close()


def test_once_prints_the_tables_and_ends(trunkline: Command, node: str) -> None:
    ran = trunkline("top", "--url", node, "--token", "s3cret", "--once", "--interval", "0.1")
    assert ran.code == 0, ran.err
    lines = [line.split("\t") for line in ran.out.splitlines()]
    assert lines[0][:2] == ["node", "ready"]
    assert lines[1][:3] == [node, "yes", "1 of 2"]
    assert ["message", "submit"] in [line[:2] for line in lines]
    assert ["message", "lane"] not in [line[:2] for line in lines]


def test_nobody_there_is_one_line(trunkline: Command, node: str) -> None:
    ran = trunkline("top", "--url", node, "--once")  # without the token
    assert (ran.code, ran.out) == (1, "")
    assert "no answer from" in ran.err
    ran = trunkline("top", "--url", "10.0.0.1:8000", "--once")
    assert ran.code == 1
    assert "begins with http" in ran.err
