"""What docs/howto/sip-edge.md has an operator write is what Kamailio takes, beside the configuration that we ship; what
doctor says of it; and one call through it. Everything else is in test_edge, which takes longer."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import msgspec
import pytest

from tests.interop.conftest import program
from tests.interop.edge import EDGE, SHIPPED, Behind, Edge, has_tls
from tests.interop.outsider import Outsider
from tests.interop.switch import BEHIND, NUMBER, Switch
from trunkline.settings import Sip, Trunk
from trunkline.voice.takeover_ways import takeover_of, takeover_of_phones

PAGE = (Path(__file__).parents[2] / "docs/howto/sip-edge.md").read_text()
TLS_LINE = re.compile(r"^.*(?:TLS|tls).*\n", re.MULTILINE)


def block(name: str) -> str:
    """The lines that the page gives a file."""
    after = PAGE.partition(f"`/etc/kamailio/{name}`")[2]
    lines = re.search(r"\n\n((?: {4}.*\n)+)", after)
    assert lines is not None
    return re.sub(r"^ {4}", "", lines[1], flags=re.MULTILINE)


@pytest.mark.parametrize("tls", [True, False])
def test_kamailio_takes_its_files(tmp_path: Path, tls: bool) -> None:
    if tls and not has_tls():
        pytest.skip("Kamailio's TLS is missing: the Debian package kamailio-tls-modules")
    shutil.copy(SHIPPED, tmp_path / "kamailio.cfg")
    own = block("edge.cfg").replace("192.0.2.10", "127.0.0.4")
    (tmp_path / "edge.cfg").write_text(own if tls else TLS_LINE.sub("", own))
    checked = subprocess.run(
        [program("kamailio", "kamailio"), "-c", "-f", str(tmp_path / "kamailio.cfg")],  # type: ignore[no-untyped-call]
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stderr[-2000:]


def test_its_list_has_the_sets_that_the_configuration_knows() -> None:
    sets = {line.split()[0] for line in block("dispatcher.list").splitlines()}
    assert sets == set(re.findall(r'^#!substdef "!(?:NODES_TLS|CARRIERS|NODES)!(\d)!g"', SHIPPED.read_text(), re.M))


def test_doctor_says_what_the_page_shows() -> None:
    settings = tomllib.loads(PAGE.partition("```toml\n")[2].partition("```")[0])
    sip = msgspec.convert(settings["sip"], Sip)
    trunk = msgspec.convert(settings["trunks"][0], Trunk)
    shown = " ".join(PAGE.split())
    for text in (takeover_of(trunk, sip), takeover_of_phones(sip)):
        assert text in shown


def test_a_call_passes_it_and_a_stranger_is_not_relayed(switch: Switch, tmp_path: Path) -> None:
    edge = Edge(tmp_path / "edge", [Behind(switch.host, switch.sip_port)])
    callers = [Outsider(BEHIND, edge) for _ in range(2)]
    caller, stranger = callers
    switch.answers("<Say>You are welcome.</Say>", "<Pause length='60'/>")
    try:
        edge.start()
        caller.target = f"sip:{NUMBER}@{EDGE}:{edge.port}"
        caller.to = f"<{caller.target}>"
        caller.calls()
        assert caller.routes
        assert caller.hang_up() == 200
        assert caller.sources == {(EDGE, edge.port)}
        assert switch.ends() == ["completed"]
        stranger.target, stranger.to = f"sip:x@{caller.contact}", "<sip:x@x>;tag=x"
        stranger.routes = [f"Route: <sip:{EDGE}:{edge.port};lr>"]
        assert stranger.invite().status == 403
    finally:
        for one in callers:
            one.close()
        edge.close()
