"""<Sms> and <Message> in a call: to (the other party), from (our number), action, method (POST), statusCallback."""

import pytest

from trunkline.model.errors import ApiError
from trunkline.twiml import DocumentKind, parse
from trunkline.voice.verbs import SPECS

from ...messaging.world import AC, eventually
from ..lines import APP, OTHER, OURS, THEM


@pytest.fixture
async def sending(lines):
    lines.sent = []

    async def send(account, from_, to, body, *, media, status_callback):
        lines.sent.append((account, from_, to, body, tuple(media), status_callback))
        if body == "no":
            raise ApiError.of(21610)
        return "SM" + "1" * 32, "queued"

    lines.services.send_message = send
    lines.web.pages[APP + "after"] = "<Hangup/>"
    return lines


async def test_a_message_goes_to_the_caller_from_the_number_he_called(sending):
    sending.web.pages[APP + "in"] = f'<Sms statusCallback="status">hello</Sms><Redirect>{APP}after</Redirect>'
    sending.phone.dials(OURS)
    await eventually(lambda: sending.web.params(APP + "after"))
    assert sending.sent == [(AC, OURS, THEM, "hello", (), APP + "status")]


async def test_in_a_call_that_went_out_it_goes_to_the_callee(sending):
    await sending.create("<Sms>hello</Sms>")
    await eventually(lambda: sending.sent)
    assert sending.sent[0][1:4] == (OURS, THEM, "hello")


async def test_message_has_the_same_form(sending):
    sending.web.pages[APP + "in"] = (
        f'<Message to="{OTHER}" from="{OURS}" action="after"><Body>hello</Body><Media>pic.png</Media></Message>'
    )
    sending.phone.dials(OURS)
    (params,) = await eventually(lambda: sending.web.params(APP + "after"))
    assert sending.sent == [(AC, OURS, OTHER, "hello", (APP + "pic.png",), "")]
    assert (params["MessageSid"], params["MessageStatus"]) == ("SM" + "1" * 32, "queued")
    assert (params["SmsSid"], params["SmsStatus"]) == ("SM" + "1" * 32, "queued")


async def test_a_message_that_is_refused_is_told_and_the_call_goes_on(sending):
    sending.web.pages[APP + "in"] = '<Sms action="after">no</Sms>'
    sending.phone.dials(OURS)
    (params,) = await eventually(lambda: sending.web.params(APP + "after"))
    assert params["SmsStatus"] == "failed"
    assert 21610 in await sending.alert_codes()


@pytest.mark.parametrize(
    ("twiml", "code"),
    [
        ("<Sms/>", 14103),
        (f"<Sms>{'x' * 1601}</Sms>", 14103),
        ('<Sms to="?">a</Sms>', 14101),
        ('<Sms from="...">a</Sms>', 14102),
    ],
)
def test_what_cannot_be_sent_is_left_out(twiml, code):
    document = parse(f"<Response>{twiml}</Response>".encode(), "text/xml", kind=DocumentKind.VOICE, verbs=SPECS)
    assert (document.verbs, [warning.code for warning in document.warnings]) == ((), [code])
