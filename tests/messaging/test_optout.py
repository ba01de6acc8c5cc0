"""STOP, START and HELP.

Twilio's default English keywords:

| family | keywords |
|---|---|
| STOP | STOP, STOPALL, UNSUBSCRIBE, CANCEL, END, QUIT, REVOKE, OPTOUT |
| START | START, YES, UNSTOP |
| HELP | HELP, INFO |
"""

import pytest

from trunkline.accounts.directory import Directory
from trunkline.messaging.optout import REPLIES, OptOuts, OptOutType, is_opted_out, keyword, scope_of
from trunkline.model.message import Direction, Message
from trunkline.model.numbers import MessagingService, OptOut, ServiceSender

AC, OTHER = "AC" + "a" * 32, "AC" + "b" * 32
OURS, SECOND, THEM = "+12025550100", "+12025550101", "+14155550199"


@pytest.fixture
async def directory(database):
    directory = Directory(database)
    await directory.start()
    return directory


@pytest.fixture
async def optouts(database, directory):
    optouts = OptOuts(database, directory)
    await optouts.start()
    return optouts


@pytest.mark.parametrize("word", ["STOP", "STOPALL", "UNSUBSCRIBE", "CANCEL", "END", "QUIT", "REVOKE", "OPTOUT"])
def test_stop_words(word):
    for body in (word, word.lower(), word.title(), f"  {word}\n", f"\t{word} "):
        assert keyword(body) is OptOutType.STOP


@pytest.mark.parametrize(
    ("word", "kind"),
    [("START", "START"), ("yes", "START"), ("Unstop", "START"), ("HELP", "HELP"), ("info", "HELP")],
)
def test_start_and_help_words(word, kind):
    assert keyword(word) is OptOutType(kind)


@pytest.mark.parametrize(
    "body",
    ["", "STOP it", "please stop", "STOP.", "STOP!", "S T O P", "STOPP", "STOP\nSTOP", "END" * 40, "stop" + 99 * " "],
)
def test_anything_else_is_no_keyword(body):
    assert keyword(body) is None


async def test_stop_holds_for_this_sender_and_recipient_only(optouts):
    result = await optouts.apply_inbound(AC, OURS, THEM, "Stop")
    assert result == (OptOutType.STOP, REPLIES[OptOutType.STOP])
    assert optouts.opted_out(AC, OURS, THEM)
    assert not optouts.opted_out(AC, SECOND, THEM)
    assert not optouts.opted_out(AC, OURS, "+14155550198")
    assert not optouts.opted_out(OTHER, OURS, THEM)
    message = Message(sid="SM1", account_sid=AC, direction=Direction.OUTBOUND_API, from_=OURS, to=THEM)
    assert optouts.message_opted_out(message)


async def test_in_a_service_it_holds_for_all_its_senders(optouts, database, directory):
    await database.insert(
        MessagingService(sid="MG1", account_sid=AC),
        ServiceSender(sid="PN1", account_sid=AC, service_sid="MG1", kind="phone_number", address=OURS),
        ServiceSender(sid="PN2", account_sid=AC, service_sid="MG1", kind="phone_number", address=SECOND),
    )
    assert scope_of(directory, AC, OURS) == "MG1"
    assert scope_of(directory, AC, "+12025550109") == f"{AC}/+12025550109"
    await optouts.apply_inbound(AC, OURS, THEM, "STOP")
    assert optouts.opted_out(AC, SECOND, THEM)
    assert await is_opted_out(database, "MG1", THEM)
    await optouts.apply_inbound(AC, SECOND, THEM, "START")
    assert not optouts.opted_out(AC, OURS, THEM)


async def test_start_opts_in_again_and_is_durable(optouts, database, directory):
    await optouts.apply_inbound(AC, OURS, THEM, "STOP")
    result = await optouts.apply_inbound(AC, OURS, THEM, "unstop")
    assert result == (OptOutType.START, REPLIES[OptOutType.START])
    assert not optouts.opted_out(AC, OURS, THEM)
    assert not await is_opted_out(database, f"{AC}/{OURS}", THEM)


async def test_only_a_change_is_confirmed(optouts):
    assert (await optouts.apply_inbound(AC, OURS, THEM, "YES")).reply == ""
    assert (await optouts.apply_inbound(AC, OURS, THEM, "STOP")).reply != ""
    assert (await optouts.apply_inbound(AC, OURS, THEM, "STOP")).reply == ""


async def test_help_changes_nothing(optouts, database):
    assert await optouts.apply_inbound(AC, OURS, THEM, "info") == (OptOutType.HELP, REPLIES[OptOutType.HELP])
    assert await database.count(OptOut) == 0


@pytest.mark.parametrize(("sender", "counts"), [("12345", True), ("+18005550100", True), ("ACME", False), ("", False)])
async def test_only_numbers_and_short_codes_can_be_answered(optouts, sender, counts):
    assert (await optouts.apply_inbound(AC, sender, THEM, "STOP") is not None) is counts
    assert optouts.opted_out(AC, sender, THEM) is counts


async def test_ordinary_words_are_left_alone(optouts):
    assert await optouts.apply_inbound(AC, OURS, THEM, "hello") is None


async def test_opt_outs_are_loaded_and_followed(optouts, database, directory):
    await optouts.apply_inbound(AC, OURS, THEM, "STOP")
    await optouts.set(AC, f"{AC}/{OURS}", "whatsapp:+14155550199", out=True)
    later = OptOuts(database, directory)
    await later.start()
    assert later.opted_out(AC, OURS, THEM)
    assert later.opted_out(AC, OURS, "whatsapp:+14155550199")
    await optouts.apply_inbound(AC, OURS, THEM, "START")
    assert not later.opted_out(AC, OURS, THEM)
    await optouts.apply_inbound(AC, OURS, THEM, "STOP")
    assert later.opted_out(AC, OURS, THEM)


async def test_an_opt_out_that_could_not_be_kept_is_in_force_all_the_same(optouts, database):
    await database.close()
    with pytest.raises(Exception, match="closed"):
        await optouts.apply_inbound(AC, OURS, THEM, "STOP")
    assert optouts.opted_out(AC, OURS, THEM)


async def test_an_opt_out_that_could_not_be_kept_is_kept_when_it_comes_again(optouts, database, monkeypatch):
    put = database.put

    async def refuse(record):
        raise OSError("disk full")

    monkeypatch.setattr(database, "put", refuse)
    with pytest.raises(OSError, match="disk full"):
        await optouts.apply_inbound(AC, OURS, THEM, "STOP")
    monkeypatch.setattr(database, "put", put)
    again = await optouts.apply_inbound(AC, OURS, THEM, "STOP")
    assert again is not None
    assert again.reply
    assert await database.find(OptOut, {"recipient": THEM})
