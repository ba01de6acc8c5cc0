"""The command as a whole: exit codes, one-line errors, help."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import apsw
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from trunkline import __version__
from trunkline.cli import app, main
from trunkline.cli.doctor import LOOKS

from .conftest import Command


def test_version(trunkline: Command) -> None:
    assert trunkline("version") == (0, f"{__version__}\n", "")


def test_module_is_the_command() -> None:
    ran = subprocess.run([sys.executable, "-m", "trunkline", "version"], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, f"{__version__}\n")


@pytest.mark.parametrize("words", [["bogus"], ["numbers", "bogus"], ["numbers", "add"], ["version", "--bogus"]])
def test_wrong_use_is_one_line_and_exit_code_2(trunkline: Command, words: list[str]) -> None:
    ran = trunkline(*words)
    assert ran.code == 2
    assert ran.err.startswith("trunkline: ")
    assert ran.err.count("\n") == 1
    known = [word for word in words if word in ("numbers", "add", "version")]
    assert ran.err.endswith(f"(see {' '.join(['trunkline', *known])} --help)\n")


def test_a_bare_group_prints_its_help(trunkline: Command) -> None:
    ran = trunkline("numbers")
    assert ran.code == 2
    assert "import" in ran.out
    assert not ran.err


def test_settings_errors_are_one_line_and_exit_code_1(trunkline: Command, tmp_path: Path) -> None:
    (tmp_path / "trunkline.toml").write_text("[server]\nprot = 1\n")
    ran = trunkline("routes", "show")
    assert (ran.code, ran.err) == (1, "trunkline: trunkline.toml: server.prot: no such setting; did you mean port?\n")


def test_a_command_without_data_says_so(trunkline: Command) -> None:
    ran = trunkline("accounts", "list")
    assert ran.code == 1
    assert "there is no data in" in ran.err


def test_defects_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ZeroDivisionError

    app.command("broken")(broken)
    try:
        with pytest.raises(ZeroDivisionError):
            main(["broken"])
    finally:
        app.registered_commands.pop()


def test_doctor_runs_every_check(trunkline: Command, account: str) -> None:
    ran = trunkline("doctor")
    assert ran.code == 0, ran
    table, findings = ran.out.split("\n\n")
    assert "accepted messages, callbacks owed\tQueue\tSQLite (WAL, synchronous=FULL)\tprocess, power\t" in table
    checks = {line.split("\t")[1] for line in findings.splitlines()[1:]}
    assert {"settings", "master key", "disk", "sync", "database.db", "limits", "clock", "loopback"} <= checks
    assert len(LOOKS) == 12


def test_doctor_fails_where_a_carrier_cannot_be_reached(trunkline: Command, tmp_path: Path, free_port: int) -> None:
    (tmp_path / "trunkline.toml").write_text(
        f'[[connectors]]\nkind = "smpp"\nname = "acme"\nhost = "127.0.0.1"\nport = {free_port}\nsystem_id = "me"\n'
        '[[connectors]]\nkind = "loopback"\nname = "spare"\n'
        '[[routes]]\nname = "all"\nconnector = "acme"\n'
    )
    ran = trunkline("doctor")
    assert ran.code == 1
    assert f"bad\tacme\t127.0.0.1:{free_port} cannot be reached: Connection refused" in ran.out
    assert "warn\troutes\tno route leads to the connector spare" in ran.out


def test_doctor_sees_a_bad_master_key(trunkline: Command, account: str, data: Path) -> None:
    (data / "master.key").write_text("short")
    ran = trunkline("doctor")
    assert ran.code == 1
    assert "bad\tmaster key\t" in ran.out


def test_doctor_sees_a_database_that_would_lose_writes(trunkline: Command, account: str, data: Path) -> None:
    database = apsw.Connection(str(data / "database.db"))
    database.execute("pragma journal_mode=delete")
    database.close()
    (data / "queue.db").write_bytes(b"no database at all" * 100)
    ran = trunkline("doctor")
    assert ran.code == 1
    assert "bad\tdatabase.db\tjournal_mode is delete, not wal" in ran.out
    assert "bad\tqueue.db\tcannot be read" in ran.out


@pytest.mark.parametrize(("days", "verdict"), [(100, "ok"), (3, "warn"), (-3, "bad")])
def test_doctor_reads_certificates(trunkline: Command, tmp_path: Path, days: int, verdict: str) -> None:
    ends = datetime.now(UTC) + timedelta(days=days, hours=1)
    cert, key = certificate(ends)
    (tmp_path / "cert.pem").write_bytes(cert)
    (tmp_path / "key.pem").write_bytes(key)
    (tmp_path / "trunkline.toml").write_text('[server]\ntls_cert = "cert.pem"\ntls_key = "key.pem"\n')
    ran = trunkline("doctor")
    assert f"{verdict}\tserver\tthe certificate ends on {ends:%Y-%m-%d}" in ran.out
    assert ran.code == (1 if verdict == "bad" else 0)


def test_a_certificate_needs_its_own_key(trunkline: Command, tmp_path: Path) -> None:
    ends = datetime.now(UTC) + timedelta(days=100)
    (tmp_path / "cert.pem").write_bytes(certificate(ends)[0])
    (tmp_path / "trunkline.toml").write_text('[server]\ntls_cert = "cert.pem"\ntls_key = "key.pem"\n')
    for key in (certificate(ends)[1], b"junk"):
        (tmp_path / "key.pem").write_bytes(key)
        ran = trunkline("doctor")
        assert ran.code == 1
        assert "server.tls_key: " in ran.err
        assert "are no pair of certificate and unencrypted key" in ran.err
        assert ran.err.count("\n") == 1


def certificate(ends: datetime) -> tuple[bytes, bytes]:
    """A self-signed certificate and its key, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(ends - timedelta(days=365))
        .not_valid_after(ends)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return built.public_bytes(Encoding.PEM), pem
