"""A closed account has no SIP domains, trunks or passwords."""

from trunkline.accounts import sip_removal
from trunkline.accounts.sip_removal import KINDS, remove_sip
from trunkline.model import sip_domain, sip_trunk
from trunkline.model.record import Record

from .test_sip_directory import AC, AL, CL, SD, address, credential, domain, mapping


async def test_everything_of_the_account_goes_and_nothing_of_others(database, monkeypatch):
    monkeypatch.setattr(sip_removal, "PAGE", 2)
    theirs = "AC" + "b" * 32
    await database.insert(*(credential(f"user{i}") for i in range(5)))
    await database.insert(domain(), address("10.0.0.1"), mapping(SD, CL), mapping(SD, AL))
    await database.insert(sip_trunk.SipTrunk(sid="TK1", account_sid=AC, name="acme"))
    await database.insert(sip_trunk.OriginationUrl(sid="OU1", account_sid=AC, trunk_sid="TK1", sip_url="sip:a"))
    kept = [domain("other", sid="SD" + "9" * 32, account_sid=theirs), credential("eve", account_sid=theirs)]
    await database.insert(*kept)
    await remove_sip(database, AC)
    for kind in KINDS:
        assert await database.count(kind, {"account_sid": AC}) == 0
    for one in kept:
        assert await database.get(type(one), one.sid) == one
    await database.insert(domain())  # the name is free


def test_no_kind_is_forgotten():
    declared = {
        value
        for module in (sip_domain, sip_trunk)
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Record) and value is not Record
    }
    assert set(KINDS) == declared
