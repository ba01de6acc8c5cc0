"""Settings of calls: trunks, ports, and what is refused in one line."""

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest

from trunkline import settings
from trunkline.settings.load import environment_names

Load = Callable[..., settings.Settings]
TRUNK = """
[[trunks]]
name = "acme"
gateways = ["sip:carrier.example.com", "sip:10.0.0.5:5070;transport=tcp", "sip:[2001:db8::1]"]
addresses = ["192.0.2.0/24", "2001:db8::1"]
username = "me"
password = "env:ACME_SIP"
prefixes = ["+1", "44"]
price = "0.013"
"""
REAL = """
profile = "production"
[[connectors]]
kind = "smpp"
name = "acme"
host = "smsc.example"
system_id = "me"
password = "x"
"""


@pytest.fixture
def file(tmp_path: Path) -> Load:
    def load(text: str, **environment: str) -> settings.Settings:
        path = tmp_path / "trunkline.toml"
        path.write_text(text or "# nothing\n")
        return settings.load(path, environment)

    return load


def test_a_trunk(file: Load) -> None:
    (trunk,) = file(TRUNK, ACME_SIP="secret").trunks
    assert trunk.gateways[1] == "sip:10.0.0.5:5070;transport=tcp"
    assert (trunk.password, trunk.price, trunk.prefixes) == ("secret", Decimal("0.013"), ("+1", "44"))
    assert "secret" not in repr(trunk)
    assert trunk.codecs == ("PCMU", "PCMA")


def test_calls_are_off_unless_asked_for(file: Load) -> None:
    assert not file("").sip.enabled
    assert file("", TRUNKLINE_SIP_ENABLED="true", TRUNKLINE_MEDIA_LEGS="50").media.legs == 50
    assert environment_names()["TRUNKLINE_VOICE_CALLS_PER_SECOND"] == ("voice", "calls_per_second")
    assert environment_names()["TRUNKLINE_SPEECH_ENGINE"] == ("speech", "engine")
    assert file("", TRUNKLINE_VOICE_CALLER_IDS="+15551230001, +15551230002").voice.caller_ids[1] == "+15551230002"


def trunk(*lines: str) -> str:
    return "\n".join(["[[trunks]]", 'name = "a"', *lines, ""])


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (trunk() * 2, "trunks: two are named a; names must differ"),
        (trunk("gateway = 'x'"), "trunks[0].gateway: no such setting; did you mean gateways?"),
        (trunk("gateways = ['carrier.example']"), "trunks (a).gateways: 'carrier.example' is not like sip:carrier"),
        (trunk("gateways = ['sip:x;transport=ws']"), "trunks (a).gateways: "),
        (trunk("gateways = [{ uri = 'tel:+1' }]"), "trunks (a).gateways: 'tel:+1' is not like sip:carrier"),
        (trunk("gateways = [{ uri = 'sip:x', wait = 1 }]"), "unknown field"),
        (trunk("registrars = ['sip:x']"), "trunks (a).registrars: they are used with register = true only"),
        (trunk("register = true"), "trunks (a).username: register = true needs username and password"),
        (
            trunk("register = true\nusername = 'u'\npassword = 'p'"),
            "trunks (a).registrars: register = true needs one, or a gateway",
        ),
        (trunk("failover = ['486']"), "trunks (a).failover: 486 is a person's answer"),
        (trunk("failover = ['6xx']"), "trunks[0].failover[0]: "),
        (trunk("asserted_number = '030'"), "trunks (a).asserted_number: '030' is no E.164 number"),
        (trunk("called_format = 'national'"), "trunks (a).country_code: called_format national needs"),
        (trunk("session_timer_s = 30"), "trunks (a).session_timer_s: less than 90"),
        (trunk("from_user = 'username'"), "trunks (a).from_user: username needs one"),
        ("[sip]\nadvertised = '203.0.113.10:5060'", "sip.advertised: '203.0.113.10:5060' is no host name or address"),
        ("[sip]\nhost = '*'", "sip.host: '*' is no host name or address"),
        ("[sip]\nhost = '10.0.0.300'", "sip.host: '10.0.0.300' is no host name or address"),
        ("[media]\nhost = 'x y'", "media.host: 'x y' is no host name or address"),
        ("[sip]\ndomain_suffix = ''", "sip.domain_suffix: '' is no domain name, like sip.example.com"),
        ("[sip]\ntrunk_domain_suffix = '10.0.0.1'", "sip.trunk_domain_suffix: '10.0.0.1' is no domain name"),
        ("[sip]\nrealm = 'a\"b'", "sip.realm: quotes, backslashes and control characters"),
        ("[sip]\nrealm = ''", "sip.realm: phones are asked for a password of it"),
        ('[sip]\nuser_agent = "a\\r\\nX: y"', "sip.user_agent: quotes, backslashes and control characters"),
        ("[sip]\nscanner_agents = ['']", "sip.scanner_agents: an empty one would be found in every User-Agent"),
        ("[sip]\nsession_expires_s = 30", "sip.session_expires_s: less than min_se_s; raise it"),
        ("[media]\nadvertised = 'a.example'", "media.advertised: 'a.example' is no address, which SDP needs"),
        (trunk("advertised = 'a b'"), "trunks (a).advertised: 'a b' is no host name or address"),
        (trunk("tls_names = ['a b']"), "trunks (a).tls_names: 'a b' is no name of a certificate"),
        (trunk("gateways = ['sip:x:70000']"), "trunks (a).gateways: 'sip:x:70000'"),
        (trunk("gateways = ['sip:x:0']"), "trunks (a).gateways: 'sip:x:0'"),
        (trunk("addresses = ['carrier.example']"), "trunks (a).addresses: 'carrier.example' is no address or network"),
        (trunk("addresses = ['192.0.2.0/33']"), "trunks (a).addresses: '192.0.2.0/33' is no address"),
        (trunk("username = 'me'"), "trunks (a).password: username and password go together"),
        (trunk("password = 'me'"), "trunks (a).password: username and password go together"),
        (trunk("codecs = ['G729']"), "trunks[0].codecs[0]: must be PCMU or PCMA"),
        (trunk("codecs = []"), "trunks (a).codecs: a call needs one"),
        (trunk("price = '-1'"), "trunks (a).price: -1 is no amount; give zero or more"),
        (trunk("prefixes = ['abc']"), "trunks[0].prefixes[0]: expected str matching regex"),
        ("[voice]\ncaller_ids = ['5551234']", "voice.caller_ids: '5551234' is no E.164 number"),
        ("[media]\njitter_min_ms = 300", "media.jitter_max_ms: less than jitter_min_ms"),
        ("[media]\nopus_bitrate = 5000", "media.opus_bitrate, opus_complexity: Opus takes 6000 to 64000"),
        ("[media]\nopus_complexity = 11", "media.opus_bitrate, opus_complexity: Opus takes 6000 to 64000"),
        ("[voice]\ncodecs = []", "voice.codecs: a call needs one"),
        ("[media]\nlegs = 0", "media.legs: expected int >= 1"),
        ("[sip]\nenabled = true\n[media]\nport_min = 20001", "media.port_min: 20001 is no even port"),
        ("[sip]\nenabled = true\n[media]\nport_min = 100", "media.port_min: 100 is no even port from 1024"),
        (
            "[sip]\nenabled = true\n[media]\nport_min = 20000\nport_max = 20098\nlegs = 51",
            "media.port_max: 20000 to 20098 has 50 pairs of ports for 51 legs",
        ),
        ("[sip]\nenabled = true\n[media]\nport_max = 2000", "media.port_max: 20000 to 2000 has 0 pairs"),
        ("[sip]\nenabled = true\nport = 20500", "sip.port: 20500 lies among the RTP ports"),
        ("[sip]\nenabled = true\nport = 8080", "sip.port: 8080 is server.port too"),
        (
            "[sip]\nenabled = true\nport = 2775\n[smpp_server]\nenabled = true\nport = 2775",
            "sip.port: 2775 is smpp_server.port too",
        ),
        ("[sip]\nenabled = true\ntls_port = 5061", "sip.tls_certificate: tls_port needs one, and its tls_key"),
        ("[sip]\nenabled = true\ntls_key = 'x'", "sip.tls_certificate: tls_key is the key of one"),
        ("[sip]\nenabled = true\ntls_port = 5060\ntls_certificate = 'x'", "sip.tls_port: 5060 is sip.port too"),
        ("[sip]\nenabled = true\ntls_port = 20500\ntls_certificate = 'x'", "sip.tls_port: 20500 lies among the RTP"),
        ("[sip]\nenabled = true\ntls_port = 8080\ntls_certificate = 'x'", "sip.tls_port: 8080 is server.port too"),
        ("[sip]\nenabled = true\ndns_servers = ['ns.example']", "sip.dns_servers: 'ns.example' is not like 192.0.2.53"),
        ("[sip]\nenabled = true\ndns_servers = ['1.2.3']", "sip.dns_servers: '1.2.3' is not like 192.0.2.53"),
    ],
)
def test_mistakes_are_said_in_one_line(file: Load, text: str, error: str) -> None:
    with pytest.raises(settings.SettingsError) as caught:
        file(text)
    assert error in str(caught.value)
    assert "\n" not in str(caught.value)


def test_as_many_ports_as_legs_are_enough(file: Load) -> None:
    found = file("[sip]\nenabled = true\n[media]\nport_min = 20000\nport_max = 20098\nlegs = 50")
    assert found.media.legs == 50
    assert file("[media]\nport_min = 20001").media.port_min == 20_001  # nobody opens it


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("", "trunks (a).addresses: production needs them, or username and password"),
        ("addresses = ['0.0.0.0/0']", "trunks (a).addresses: production refuses the whole internet"),
        ("addresses = ['::/0']", "trunks (a).addresses: production refuses the whole internet"),
        ("addresses = ['192.0.2.1']\nsimulated = true", "trunks (a).simulated: production has no simulated phones"),
    ],
)
def test_production_refuses_trunks_that_anybody_could_use(file: Load, line: str, error: str) -> None:
    with pytest.raises(settings.SettingsError) as caught:
        file(REAL + trunk(line), TRUNKLINE_MASTER_KEY="k")
    assert error in str(caught.value)
    with pytest.raises(settings.SettingsError, match="staging needs them"):
        file(REAL.replace("production", "staging") + trunk(), TRUNKLINE_MASTER_KEY="k")


def test_production_takes_a_trunk_with_addresses_or_a_login(file: Load) -> None:
    both = trunk("addresses = ['192.0.2.7']") + trunk("username = 'me'", "password = 'x'").replace('"a"', '"b"')
    assert len(file(REAL + both, TRUNKLINE_MASTER_KEY="k").trunks) == 2


def test_variables_that_processes_read_by_themselves_are_no_settings(file: Load) -> None:
    assert file("", TRUNKLINE_CACHE="/tmp/x", TRUNKLINE_MEDIA_HELPER="fallback").media.legs == 1000


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[voice]\nemergency_trunk = "acme"\n' + TRUNK, ""),
        ('[voice]\nemergency_trunk = "nobody"\n' + TRUNK, "'nobody' is no trunk (acme)"),
        ('[voice]\nemergency_trunk = "in"\n[[trunks]]\nname = "in"\n', "in has no gateways"),
    ],
)
def test_the_trunk_for_emergencies_is_one(file: Load, text: str, problem: str) -> None:
    if not problem:
        assert file(text, ACME_SIP="x").voice.emergency_trunk == "acme"
        return
    with pytest.raises(settings.SettingsError) as found:
        file(text, ACME_SIP="x")
    assert problem in str(found.value)


@pytest.mark.parametrize(
    ("text", "environment", "words"),
    [
        ('[[trunks]]\nname = "a"\nsrtp = "on"', {}, "trunks[0].srtp: must be off or optional or required, not 'on'"),
        (
            '[[trunks]]\nname = "a"\ncodecs = ["PCMX"]', {},
            "trunks[0].codecs[0]: must be PCMU or PCMA or G722 or opus, not 'PCMX'",
        ),
        ('[speech]\nengine = "eliza"', {}, "speech.engine: must be auto or hibari or espeak or tones, not 'eliza'"),
        ("", {"TRUNKLINE_SPEECH_ENGINE": "eliza"}, "must be auto or hibari or espeak or tones, not 'eliza'"),
        ("", {"TRUNKLINE_VOICE_CODECS": "PCMX"}, "must be PCMU or PCMA or G722 or opus, not 'PCMX'"),
    ],
)  # fmt: skip
def test_words_that_may_stand_there_are_told(file: Load, text: str, environment: dict[str, str], words: str) -> None:
    with pytest.raises(settings.SettingsError) as found:
        file(text, **environment)
    assert words in str(found.value)
