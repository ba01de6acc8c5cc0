"""SIPVicious against our own port on loopback: nothing is found, and extensions that exist look like those that do not.

Its tools run bounded in time, as any scanner on the Internet would, and once more under another name than their own."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.test_sip_phones import PASSWORD, Domain
from tests.e2e.voice_app import VoiceApp
from trunkline.testing.local import Local

TOOLS = Path(sys.executable).parent
TIMEOUT_S = 60
ELSEWHERE = "127.0.3."
NOTHING = "found nothing"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (TOOLS / "sipvicious_svwar").exists(), reason="sipvicious is not installed"),
]


@pytest.fixture
def app() -> Iterator[VoiceApp]:
    app = VoiceApp()
    yield app
    app.close()


@pytest.fixture
def domain(trunkline: Local, app: VoiceApp) -> Domain:
    made = Domain(trunkline, app)
    made.phone("ada")
    return made


@pytest.fixture
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    """A server that answers everybody."""
    with Local(tmp_path_factory.mktemp("open"), {"TRUNKLINE_SIP_ANSWER_STRANGERS": "true"}) as local:
        yield local


RUN = """
import _socket, socket, sys
at = sys.argv.pop(1)
socket.socket.bind = lambda self, address: _socket.socket.bind(self, (at, address[1]))
from sipvicious.{tool} import main
sys.exit(main())
"""
"""Has a tool send from an address (its first word): most of them ignore their own option for that."""


def scan(tool: str, at: str, *words: str, disguised: bool, folder: Path) -> str:
    """What a tool prints; `disguised`: without the name by which it is known."""
    home = folder / f"disguised-{disguised}"
    if not home.exists():
        home.mkdir()
        if disguised:
            _disguise(home)
    (home / f"run_{tool}.py").write_text(RUN.format(tool=tool))
    ran = subprocess.run(
        [sys.executable, str(home / f"run_{tool}.py"), at, *words], capture_output=True, text=True, timeout=TIMEOUT_S,
        check=False, env={"HOME": str(folder)},
    )  # fmt: skip
    assert "Traceback" not in ran.stderr, ran.stderr
    return ran.stdout + ran.stderr


def _disguise(home: Path) -> None:
    """A copy of the package that calls itself a phone."""
    import sipvicious

    shutil.copytree(Path(sipvicious.__file__).parent, home / "sipvicious")
    for path in home.rglob("*.py"):
        path.write_text(path.read_text("utf-8").replace("friendly-scanner", "Desk-Phone/1.0"), "utf-8")


def port_of(trunkline: Local) -> str:
    return str(trunkline.simulator("GET", "/_simulator/phones")["platform"][1])


def metric(trunkline: Local, name: str) -> float:
    lines = trunkline._ask("GET", "/metrics", None, {}).splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


@pytest.mark.parametrize("disguised", [False, True])
def test_no_extension_is_found(trunkline: Local, domain: Domain, tmp_path: Path, disguised: bool) -> None:
    """Not even the one that is registered. Who says that he scans is dropped at once, and asks no more."""
    names = tmp_path / "names.txt"
    names.write_text("ada\nbob\nnobody\n100\n")
    at, port = ELSEWHERE + ("2" if disguised else "1"), port_of(trunkline)
    words = [at, "-p", port, "-d", str(names), "--force", "--maximumtime", "6", "127.0.0.1"]
    if disguised:  # and knows the domain: else it gets no answer either
        words += ["--domain", domain.name]
    counter = f'trunkline_sip_total{{what="{"requests" if disguised else "dropped"}"}}'
    for method in ("REGISTER", "INVITE"):
        before = metric(trunkline, counter)
        assert NOTHING in scan("svwar", *words, "-m", method, disguised=disguised, folder=tmp_path)
        assert metric(trunkline, counter) > before, "it has not asked"


@pytest.mark.parametrize("method", ["OPTIONS", "REGISTER", "INVITE"])
@pytest.mark.parametrize("disguised", [False, True])
def test_the_server_is_not_found(trunkline: Local, tmp_path: Path, disguised: bool, method: str) -> None:
    """Not even by those who say not what they are."""
    at = f"{ELSEWHERE}{20 + len(method) + 10 * disguised}"
    words = (at, "-p", port_of(trunkline), "-m", method, "127.0.0.1")
    assert NOTHING in scan("svmap", *words, disguised=disguised, folder=tmp_path)


def test_the_scan_works(tmp_path: Path, open_server: Local) -> None:
    """It finds a server whose operator wants everybody to be answered."""
    words = (f"{ELSEWHERE}40", "-p", port_of(open_server), "127.0.0.1")
    assert "Trunkline" in scan("svmap", *words, disguised=True, folder=tmp_path)


@pytest.mark.parametrize(("wrong", "cracked"), [(2, True), (40, False)])
def test_passwords_are_not_cracked(trunkline: Local, domain: Domain, tmp_path: Path, wrong: int, cracked: bool) -> None:
    """Behind two wrong ones the right password is found, so the tool works; behind forty its source is banned."""
    guesses = tmp_path / "guesses.txt"
    guesses.write_text("".join(f"guess{number}\n" for number in range(wrong)) + f"{PASSWORD}\n")
    before = metric(trunkline, "trunkline_sip_bans_total")
    out = scan(
        "svcrack", f"{ELSEWHERE}{10 + wrong}", "-p", port_of(trunkline), "-u", "ada", "-d", str(guesses),
        "--domain", domain.name, "--requesturi", f"sip:{domain.name}", "--maximumtime", "10",
        "127.0.0.1", disguised=True, folder=tmp_path,
    )  # fmt: skip
    assert (PASSWORD in out) is cracked, out
    assert (metric(trunkline, "trunkline_sip_bans_total") > before) is not cracked
    assert domain.phone("bob").registers().status == 200  # the phones of others go on
