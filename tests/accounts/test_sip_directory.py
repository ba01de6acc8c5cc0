"""SIP domains on the node: names below either suffix, logins and networks by owner and purpose."""

from ipaddress import ip_network

import pytest

from trunkline.accounts.directory import Directory
from trunkline.model.sid import new_sid
from trunkline.model.sip_domain import (
    Ha1,
    SipCredential,
    SipDomain,
    SipIpAddress,
    SipMapping,
    domain_name_of,
    mapping_sid,
)
from trunkline.storage.database import Duplicate

AC = "AC" + "a" * 32
SD, OTHER = "SD" + "1" * 32, "SD" + "2" * 32
CL, AL = "CL" + "1" * 32, "AL" + "1" * 32


@pytest.fixture
async def directory(database):
    directory = Directory(database, "sip.example.com")
    await directory.start()
    return directory


def domain(name="acme", **changes):
    values = {"sid": SD, "account_sid": AC, "name": name, "domain_name": f"{name}.sip.example.com"}
    return SipDomain(**(values | changes))


def credential(username, **changes):
    values = {"sid": new_sid("CR"), "account_sid": AC, "credential_list_sid": CL, "username": username}
    digests = {"realm": "trunkline", "ha1_md5": f"md5 of {username}", "ha1_sha256": f"sha256 of {username}"}
    return SipCredential(**(values | digests | changes))


def address(written, prefix=32, **changes):
    values = {"sid": new_sid("IP"), "account_sid": AC, "ip_access_control_list_sid": AL, "ip_address": written}
    return SipIpAddress(**(values | {"cidr_prefix_length": prefix} | changes))


def mapping(owner, list_sid, purpose="calls"):
    sid = mapping_sid(owner, purpose, list_sid)
    return SipMapping(sid=sid, account_sid=AC, owner_sid=owner, list_sid=list_sid, purpose=purpose)


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("acme.sip.example.com", "acme"),
        ("eu.acme.sip.example.com", "eu.acme"),
        ("acme.sip.twilio.com", "acme"),
        ("acme.sip.us1.twilio.com", "acme"),
        ("acme.sip.dublin.us1.twilio.com", "acme"),
        ("sip.example.com", None),
        (".sip.example.com", None),
        ("sip.twilio.com", None),
        ("acme.example.com", None),
        ("acme.pstn.twilio.com", None),
        ("10.0.0.1", None),
        ("", None),
    ],
)
def test_which_domain_a_host_means(host, name):
    assert domain_name_of(host, "sip.example.com") == name


async def test_a_domain_is_found_by_any_of_its_hosts(database, directory):
    assert directory.sip_domain("acme.sip.example.com") is None
    acme = domain()
    await database.insert(acme)
    for host in ("acme.sip.example.com", "ACME.SIP.Example.com", "acme.sip.twilio.com"):
        assert directory.sip_domain(host).sid == SD
    assert directory.sip.domain_of_sid(SD).domain_name == "acme.sip.example.com"
    acme.name, acme.domain_name = "other", "other.sip.twilio.com"
    await database.update(acme)
    assert directory.sip_domain("acme.sip.example.com") is None
    assert directory.sip_domain("other.sip.example.com").sid == SD
    await database.delete(acme)
    assert directory.sip_domain("other.sip.example.com") is directory.sip.domain_of_sid(SD) is None


async def test_a_name_belongs_to_one_domain(database):
    await database.insert(domain())
    with pytest.raises(Duplicate):
        await database.insert(domain(sid=OTHER, domain_name="acme.sip.twilio.com"))


async def test_logins_are_by_purpose_and_owner(database, directory):
    alice = credential("alice")
    await database.insert(domain(), alice, mapping(SD, CL))
    assert directory.sip_login(SD, "alice", "calls") == (Ha1("md5 of alice", "sha256 of alice", "trunkline"),)
    assert directory.sip_login(SD, "Alice", "calls") == ()
    assert directory.sip_login(SD, "alice", "registrations") == ()
    assert directory.sip_login(OTHER, "alice", "calls") == ()
    registering = mapping(SD, CL, "registrations")
    await database.insert(registering)
    assert [ha1.md5 for ha1 in directory.sip_login(SD, "alice", "registrations")] == ["md5 of alice"]
    alice.ha1_md5 = "new"
    await database.update(alice)
    assert directory.sip_login(SD, "alice", "calls")[0].by_algorithm == {"MD5": "new", "SHA-256": "sha256 of alice"}
    await database.delete(registering)
    assert directory.sip_login(SD, "alice", "registrations") == ()
    await database.delete(alice)
    assert directory.sip_login(SD, "alice", "calls") == ()


async def test_two_lists_may_know_the_same_user(database, directory):
    second = "CL" + "2" * 32
    await database.insert(credential("alice"), credential("alice", credential_list_sid=second, ha1_md5="another"))
    await database.insert(mapping(SD, CL), mapping(SD, second))
    assert [ha1.md5 for ha1 in directory.sip_login(SD, "alice", "calls")] == ["md5 of alice", "another"]


async def test_a_user_name_is_once_in_a_list(database):
    await database.insert(credential("alice"))
    with pytest.raises(Duplicate):
        await database.insert(credential("alice"))


async def test_addresses_follow(database, directory):
    one, net = address("10.1.2.3"), address("192.0.2.77", 24)
    await database.insert(one, net, address("2001:db8::1", 128), mapping(SD, AL))
    expected = {ip_network("10.1.2.3/32"), ip_network("192.0.2.0/24"), ip_network("2001:db8::1/128")}
    assert set(directory.sip_addresses(SD, "calls")) == expected
    assert directory.sip_addresses(SD, "registrations") == directory.sip_addresses(OTHER, "calls") == ()
    one.ip_address = "10.9.9.9"
    await database.update(one)
    assert ip_network("10.9.9.9/32") in directory.sip_addresses(SD, "calls")
    assert ip_network("10.1.2.3/32") not in directory.sip_addresses(SD, "calls")
    await database.delete(one, net)
    assert directory.sip_addresses(SD, "calls") == (ip_network("2001:db8::1/128"),)


async def test_auth_types_name_what_a_caller_must_pass(database, directory):
    assert directory.sip_auth_types(SD, "calls") == ()
    acl = mapping(SD, AL)
    await database.insert(mapping(SD, CL), acl)
    assert directory.sip_auth_types(SD, "calls") == ("IP_ACL", "CREDENTIAL_LIST")
    await database.delete(acl)
    assert directory.sip_auth_types(SD, "calls") == ("CREDENTIAL_LIST",)


async def test_what_was_there_before_is_loaded(database):
    await database.insert(domain(), credential("alice"), address("10.0.0.0", 8), mapping(SD, CL), mapping(SD, AL))
    directory = Directory(database, "sip.example.com")
    await directory.start()
    assert directory.sip_domain("acme.sip.example.com").sid == SD
    assert directory.sip_login(SD, "alice", "calls")
    assert directory.sip_addresses(SD, "calls") == (ip_network("10.0.0.0/8"),)


async def test_digests_are_sealed_at_rest(database, tmp_path):
    await database.insert(credential("alice", ha1_md5="0123456789abcdef0123456789abcdef"))
    for file in tmp_path.iterdir():
        assert b"0123456789abcdef0123456789abcdef" not in file.read_bytes()
