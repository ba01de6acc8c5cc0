"""The SMPP server: binds of accounts' own clients, and their questions."""

import asyncio

import pytest

from tests.listeners.conftest import PASSWORD, SYSTEM_ID
from tests.listeners.helpers import carrier, delivered, message_of
from tests.messaging.connectors.smpp_rig import certificate
from tests.messaging.world import AC, eventually
from trunkline.listeners import smpp
from trunkline.model.account import Account
from trunkline.smpp import codec, receipt
from trunkline.smpp import constants as c
from trunkline.smpp import pdu as p
from trunkline.smpp.errors import ConnectError

# -- binds --------------------------------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(smpp, "FAILED_BIND_DELAY_S", 0.01)


@pytest.mark.parametrize("kind", [p.BindTransceiver, p.BindTransmitter, p.BindReceiver])
async def test_bind(node, kind):
    esme = await node.bind(kind)
    assert esme.connection.bound
    assert node.server.bound_clients == 1
    esme.connection.close()
    assert await esme.connection.closed == "unbound"
    await eventually(lambda: node.server.bound_clients == 0)


@pytest.mark.parametrize(
    ("account", "system_id", "password", "status"),
    [
        ({}, SYSTEM_ID, "wrong", c.ESME_RINVPASWD),
        ({}, "nobody", PASSWORD, c.ESME_RINVPASWD),
        ({}, "", "", c.ESME_RINVPASWD),
        ({"smpp_password": ""}, SYSTEM_ID, "", c.ESME_RINVPASWD),
        ({"status": "suspended"}, SYSTEM_ID, PASSWORD, c.ESME_RBINDFAIL),
        ({"status": "closed"}, SYSTEM_ID, PASSWORD, c.ESME_RBINDFAIL),
    ],
)
async def test_bind_refused(make_node, quick, account, system_id, password, status):
    node = await make_node(account)
    with pytest.raises(ConnectError) as refused:
        await node.bind(system_id=system_id, password=password)
    assert refused.value.status == status
    assert node.server.bound_clients == 0


async def test_wrong_passwords_are_answered_late_and_few(make_node, monkeypatch):
    monkeypatch.setattr(smpp, "FAILED_BIND_DELAY_S", 0.05)
    monkeypatch.setattr(smpp, "MAX_FAILED_BINDS", 2)
    node = await make_node()
    began = asyncio.get_running_loop().time()
    for _ in range(2):
        with pytest.raises(ConnectError) as refused:
            await node.bind(password="guess")
        assert refused.value.status == c.ESME_RINVPASWD
    assert asyncio.get_running_loop().time() - began >= 0.1
    with pytest.raises(ConnectError) as cut:
        await node.bind()
    assert cut.value.status is None, "not even the right one is heard now"
    node.world.clock.offset_ms += 61_000
    assert (await node.bind()).connection.bound


async def test_connections_opened_beforehand_guess_no_longer_than_others(make_node, quick, monkeypatch):
    monkeypatch.setattr(smpp, "MAX_FAILED_BINDS", 2)
    node = await make_node()
    waiting = [await asyncio.open_connection("127.0.0.1", node.server.port) for _ in range(4)]
    answers = []
    for (reader, writer), password in zip(waiting, ("guess", "guess", "guess", PASSWORD), strict=True):
        writer.write(codec.encode(p.BindTransceiver(system_id=SYSTEM_ID, password=password), 1))
        answers.append((await asyncio.wait_for(reader.read(16), 60))[8:12])
        writer.close()
    assert answers == [c.ESME_RINVPASWD.to_bytes(4, "big")] * 2 + [b""] * 2
    assert node.server.bound_clients == 0


async def test_as_many_binds_as_the_account_may_have(make_node):
    node = await make_node({"smpp_max_binds": 2})
    first = await node.bind()
    await node.bind(p.BindReceiver)
    with pytest.raises(ConnectError) as refused:
        await node.bind()
    assert refused.value.status == c.ESME_RALYBND
    first.connection.close()
    await first.connection.closed
    await eventually(lambda: node.server.bound_clients == 1)
    await node.bind()


async def test_a_connection_that_does_not_bind_is_dropped(make_node):
    node = await make_node(bind_timeout_s=0.05)
    reader, writer = await asyncio.open_connection("127.0.0.1", node.server.port)
    assert await asyncio.wait_for(reader.read(), 60) == b""
    writer.close()
    await writer.wait_closed()


async def test_a_suspended_account_is_unbound(node):
    esme = await node.bind()
    account = await node.world.database.get(Account, AC)
    account.status = "suspended"
    await node.world.database.update(account)
    assert (await esme.submit()).status == c.ESME_RSUBMITFAIL
    await asyncio.wait_for(esme.connection.closed, 60)


async def test_a_new_password_unbinds(node):
    esme = await node.bind()
    node.server.check()
    assert esme.connection.bound
    account = await node.world.database.get(Account, AC)
    account.smpp_password = "another"
    await node.world.database.update(account)
    node.server.check()
    await asyncio.wait_for(esme.connection.closed, 60)


async def test_tls(make_node, tmp_path):
    import ssl

    _, chain = certificate(tmp_path)
    node = await make_node(tls_cert=chain, tls_key=str(tmp_path / "key.pem"))
    trusting = ssl.create_default_context(cafile=chain)
    esme = await node.bind(ssl=trusting, server_hostname="localhost")
    assert (await esme.submit()).status == 0
    esme.connection.close()
    await esme.connection.closed


# -- questions ----------------------------------------------------------------------------------------------------


async def test_query(node):
    carrier(node).down = True
    esme = await node.bind()
    response = await esme.submit()
    answer = await esme.ask(p.QuerySm(message_id=response.message_id))
    assert (answer.status, answer.message_id, answer.message_state, answer.final_date) == (
        0,
        response.message_id,
        1,
        "",
    )
    carrier(node).down = False
    node.world.dispatcher.wake("carrier")
    await delivered(node, await message_of(node, response.message_id), "undeliverable", "1")
    answer = await esme.ask(p.QuerySm(message_id=response.message_id))
    assert (answer.message_state, answer.error_code) == (5, 5)
    assert len(answer.final_date) == 16
    for unknown in ("SM" + "0" * 32, "", "what?", response.message_id.upper()):
        assert (await esme.ask(p.QuerySm(message_id=unknown))).status == c.ESME_RINVMSGID


async def test_cancel(node):
    carrier(node).down = True
    esme = await node.bind()
    response = await esme.submit()
    assert (await esme.ask(p.CancelSm(message_id=response.message_id))).status == 0
    (pdu,) = await esme.until(1)
    assert receipt.parse(pdu).raw_state == "DELETED"
    assert (await esme.ask(p.CancelSm(message_id=response.message_id))).status == c.ESME_RCANCELFAIL
    assert (await esme.ask(p.CancelSm(message_id="SM" + "0" * 32))).status == c.ESME_RINVMSGID
    assert (await esme.ask(p.CancelSm(source="1", destination="2"))).status == c.ESME_RCANCELFAIL


async def test_another_accounts_message_is_not_shown(node):
    other = "AC" + "b" * 32
    await node.world.database.insert(
        Account(sid=other, account_sid=other, owner_account_sid=other, smpp_system_id="other", smpp_password="x")
    )
    carrier(node).down = True
    mine = await node.bind()
    response = await mine.submit()
    theirs = await node.bind(system_id="other", password="x")
    assert (await theirs.ask(p.QuerySm(message_id=response.message_id))).status == c.ESME_RINVMSGID
    assert (await theirs.ask(p.CancelSm(message_id=response.message_id))).status == c.ESME_RINVMSGID
    assert (await theirs.submit()).status == c.ESME_RINVSRCADR, "the number is another account's"


async def test_a_stop_answers_first_and_unbinds(node):
    esme = await node.bind()
    response = esme.connection.request(p.SubmitSm(source="Shop", source_ton=5, destination="14155550199", message=b"x"))
    await eventually(lambda: carrier(node).taken)
    await node.server.stop(5)
    assert (await response).pdu.status == 0
    assert await esme.connection.closed == "unbound"
