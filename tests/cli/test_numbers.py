"""The inventory and the routing table by the command line."""

from pathlib import Path

import pytest

from trunkline.cli import numbers

from .conftest import Command


def test_add_assign_release(trunkline: Command, account: str) -> None:
    sid = trunkline("numbers", "add", "+1 (202) 555-0142", "--sms-url", "http://example.com/sms").out.split()[0]
    assert trunkline("numbers", "list").rows == [["+12025550142", "US", "local", "available", "", sid]]
    assert trunkline("numbers", "assign", "+12025550142", account).code == 0
    assert trunkline("numbers", "list", "--account", account).rows[0][3] == account
    ran = trunkline("numbers", "assign", "+12025550142", account)
    assert (ran.code, ran.err) == (1, f"trunkline: +12025550142 belongs to {account}: release it first\n")
    assert trunkline("numbers", "list", "--available").rows == []
    assert trunkline("numbers", "release", "+12025550142").code == 0
    assert trunkline("numbers", "list", "--available").rows == [["+12025550142", "US", "local", "available", "", sid]]
    assert trunkline("numbers", "release", "+12025550142").code == 1


def test_webhooks_of_a_new_number(trunkline: Command) -> None:
    assert trunkline("numbers", "add", "+12025550142", "--voice-url", "https://example.com/voice").code == 0
    ran = trunkline("numbers", "add", "+12025550143", "--voice-url", "nowhere")
    assert (ran.code, ran.err.count("voice_url 'nowhere' is no URL")) == (1, 1)


def test_type_follows_from_the_number(trunkline: Command) -> None:
    for number in ("+18005550199", "+491701234567", "+442079460018"):
        assert trunkline("numbers", "add", number).code == 0
    rows = trunkline("numbers", "list").rows
    assert [row[:3] for row in rows] == [
        ["+18005550199", "US", "tollfree"],
        ["+491701234567", "DE", "mobile"],
        ["+442079460018", "GB", "local"],
    ]


def test_the_same_number_is_added_once(trunkline: Command) -> None:
    assert trunkline("numbers", "add", "+12025550142").code == 0
    ran = trunkline("numbers", "add", "+12025550142")
    assert (ran.code, ran.err) == (1, "trunkline: +12025550142 is in the inventory already\n")


@pytest.mark.parametrize("number", ["12", "+1", "hello", "+1202555014212345678"])
def test_what_is_no_number_is_refused(trunkline: Command, number: str) -> None:
    ran = trunkline("numbers", "add", number)
    assert (ran.code, ran.err) == (1, f"trunkline: {number} is no E.164 number, like +15551234567\n")


def test_import(trunkline: Command, account: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numbers, "BATCH", 2)
    trunkline("numbers", "add", "+12025550142")
    (tmp_path / "n.csv").write_text(
        "\ufeffphone_number,account_sid,type,messages_per_second,voice_enabled,friendly_name\n"
        f"+12025550141,{account},voip,2.5,false,\n+12025550142,,,,,\n"
        '+12025550143,,,,,"Main, office"\n+12025550143,,,,,twice\n+12025550144,,,,,\n'
    )
    ran = trunkline("numbers", "import", "n.csv")
    assert (ran.code, ran.out) == (0, "3 added, 2 there already\n"), ran.err
    rows = trunkline("numbers", "list").rows
    assert sorted(row[0] for row in rows) == [f"+1202555014{last}" for last in (1, 2, 3, 4)]
    assert next(row for row in rows if row[0] == "+12025550141")[2:4] == ["voip", account]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("number\n+12025550142\n", "no column may be called 'number'"),
        ("type\nlocal\n", "phone_number among them"),
        ("", "phone_number among them"),
        ("phone_number\n+12025550142\n12\n", "line 3: 12 is no E.164 number"),
        ("phone_number,voice_enabled\n+12025550142,perhaps\n", "line 2: voice_enabled cannot be 'perhaps'"),
        ("phone_number,sms_url\n+12025550142,sms\n", "line 2: sms_url 'sms' is no URL, like https://example.com/sms"),
        ("phone_number,type\n+12025550142\n", "line 2: it has not as many cells as the first line"),
        ("phone_number\n+12025550142,x\n", "line 2: it has not as many cells as the first line"),
        ("phone_number,account_sid\n+12025550142,AC1\n", "there is no account AC1"),
        ("phone_number,connector\n+12025550142,acme\n", "no connector is called acme; there is loopback"),
        ("phone_number\n" + "x" * 20_000, "a line is longer than 10000 characters"),
        ("phone_number\n+12025550141\n+12025550142\n+12025550143\n", "more than limits.numbers (2) allows"),
    ],
)
def test_a_bad_file_changes_nothing(trunkline: Command, account: str, tmp_path: Path, text: str, error: str) -> None:
    (tmp_path / "trunkline.toml").write_text("[limits]\nnumbers = 2\n")
    (tmp_path / "n.csv").write_text(text)
    ran = trunkline("numbers", "import", "n.csv")
    assert ran.code == 1
    assert error in ran.err
    assert ran.err.count("\n") == 1
    assert trunkline("numbers", "list").rows == []


def test_a_missing_or_binary_file_is_one_line(trunkline: Command, tmp_path: Path) -> None:
    assert trunkline("numbers", "import", "absent.csv").err.count("\n") == 1
    (tmp_path / "n.csv").write_bytes(b"phone_number\n\xff\xfe\n")
    assert "not a CSV file in UTF-8" in trunkline("numbers", "import", "n.csv").err


ROUTES = """
[[connectors]]
kind = "loopback"
name = "one"
[[connectors]]
kind = "loopback"
name = "two"
[[routes]]
name = "world"
connector = "one"
[[routes]]
name = "germany"
connector = "two"
prefixes = ["+49"]
cost = "0.05"
[[rates]]
prefix = "+49"
price = "0.0800"
"""


def test_routes(trunkline: Command, tmp_path: Path) -> None:
    (tmp_path / "trunkline.toml").write_text(ROUTES)
    assert [row[:3] for row in trunkline("routes", "show").rows] == [["world", "one", "*"], ["germany", "two", "+49"]]
    assert trunkline("routes", "test", "+49 170 1234567").rows == [
        ["1", "germany", "two", "0.05", "0.0800 USD"],
        ["2", "world", "one", "0", "0.0800 USD"],
    ]
    assert [row[1] for row in trunkline("routes", "test", "+12025550142").rows] == ["world"]


def test_a_number_without_a_route(trunkline: Command, tmp_path: Path) -> None:
    (tmp_path / "trunkline.toml").write_text('[[routes]]\nname = "de"\nconnector = "loopback"\nprefixes = ["49"]\n')
    ran = trunkline("routes", "test", "+12025550142")
    assert (ran.code, ran.err) == (1, "trunkline: no route leads to +12025550142: add one to [[routes]]\n")
