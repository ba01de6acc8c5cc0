"""What the supervisor is told to run."""

import json
import sys
from pathlib import Path

import msgspec

from trunkline import bootstrap_processes as processes
from trunkline.media.process import Config
from trunkline.settings import MediaEngine, Server, Settings, Sip
from trunkline.settings.sections import Data
from trunkline.supervisor.plan import Plan


def settings(folder: Path) -> Settings:
    return Settings(
        data=Data(path=str(folder)),
        server=Server(host="127.0.0.2", port=81, shutdown_s=7),
        sip=Sip(enabled=True, host="127.0.0.3", port=5062),
        media=MediaEngine(legs=30, port_min=40_000, port_max=40_500),
    )


def test_the_plan_is_what_the_settings_say(tmp_path: Path) -> None:
    plan = processes.plan(settings(tmp_path), ["trunkline", "serve"])
    assert [(child.name, child.wants) for child in plan.children] == [
        ("recorder", ["record-ring"]),
        ("media", ["media-state", "record-ring"]),
        ("node", ["sip-udp", "sip-tcp", "http-"]),
    ]
    assert [child.name for child in plan.children if child.main] == ["node"]
    assert [child.name for child in plan.children if child.standby] == ["media"]
    assert plan.children[-1].argv == ["trunkline", "serve"]
    assert (plan.sip_host, plan.sip_port, plan.http_host, plan.http_port) == ("127.0.0.3", 5062, "127.0.0.2", 81)
    assert plan.ports is not None
    assert (plan.ports.host, plan.ports.port_min, plan.ports.port_max, plan.ports.pairs) == (
        "127.0.0.3", 40_000, 40_500, 120,
    )  # fmt: skip
    assert plan.stop_s > 4 * 7
    assert Plan.from_json(plan.to_json()) == plan


def test_the_socket_of_tls_is_kept_where_it_is_listened_for(tmp_path: Path) -> None:
    own = settings(tmp_path)
    assert processes.plan(own, []).sip_tls_port == 0
    secure = msgspec.structs.replace(own, sip=msgspec.structs.replace(own.sip, tls_port=5061))
    plan = processes.plan(secure, [])
    assert plan.sip_tls_port == 5061
    assert "sip-tls" in plan.children[-1].wants


def test_the_media_process_understands_what_it_is_told(tmp_path: Path) -> None:
    media = processes.plan(settings(tmp_path), []).children[1]
    assert media.argv[:3] == [sys.executable, "-m", "trunkline.media.process"]
    config = msgspec.json.decode(media.argv[-1], type=Config)
    assert set(json.loads(media.argv[-1])) <= set(Config.__struct_fields__)
    assert (config.legs, config.host, config.state_fd, config.ring_fd) == (
        30,
        "127.0.0.3",
        "media-state",
        "record-ring",
    )
    assert config.control == str(tmp_path / "media.sock")
    assert config.ports_path == str(tmp_path / "ports.sock")


def test_a_path_too_long_for_a_socket_is_replaced(tmp_path: Path) -> None:
    deep = settings(tmp_path / ("x" * 120))
    paths = {processes.socket_path(deep, name) for name in ("media.sock", "ports.sock")}
    assert len(paths) == 2
    assert all(len(path) < processes.MAX_SOCKET_PATH for path in paths)
