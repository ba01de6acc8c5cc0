"""pjsua2 (PJSIP) as a program: a phone that does what lines of JSON on its input say, and tells what happens likewise.
A process of its own, for the library has one endpoint in a process, threads, and may take it down with it.

Commands: `dial` (uri; `direct`: by an account without a registrar and a proxy), `hangup`, `hold`, `resume`, `update`,
`transfer` (uri), `attend` (`first` is told to replace `second`), `press` (digits), `quit`; those about a call
may name it (`call`), else the newest is meant.
Events: `registered` (status), `state` (call, state, status), `media` (call, srtp, codec), `held` (call), `referred`
(call, to), `transfer` (call, status, last).
"""

import itertools
import json
import os
import select
import sys
from pathlib import Path
from typing import Any

import pjsua2 as pj

POLL_MS = 10
MAX_CALLS = 4
TRANSPORTS = {"UDP": pj.PJSIP_TRANSPORT_UDP, "TCP": pj.PJSIP_TRANSPORT_TCP, "TLS": pj.PJSIP_TRANSPORT_TLS}
TOP_PRIORITY = 255


def tell(event: str, **more: Any) -> None:
    """One line."""
    print(json.dumps({"event": event, **more}), flush=True)


class Phone(pj.Account):
    """An account of the options that the process was given."""

    def __init__(self, options: dict[str, Any]) -> None:
        super().__init__()
        self.options = options
        self.calls: dict[int, Call] = {}
        config = pj.AccountConfig()
        config.idUri = f"sip:{options['user']}@{options['domain']}"
        config.regConfig.registrarUri = f"sip:{options['domain']}"
        proxies = pj.StringVector()
        proxies.append(f"{options['proxy']};lr")
        config.sipConfig.proxies = proxies
        config.sipConfig.authCreds.append(pj.AuthCredInfo("digest", "*", options["user"], 0, options["password"]))
        config.mediaConfig.transportConfig.boundAddress = options["host"]
        config.mediaConfig.transportConfig.port = options["rtp_port"]
        config.mediaConfig.srtpUse = pj.PJMEDIA_SRTP_MANDATORY if options["srtp"] else pj.PJMEDIA_SRTP_DISABLED
        config.mediaConfig.srtpSecureSignaling = 0
        if options["certificate"]:  # where it takes connections, not whence its own come
            config.natConfig.contactUseSrcPort = 0
            config.natConfig.contactRewriteUse = 0
        config.callConfig.prackUse = pj.PJSUA_100REL_OPTIONAL
        self.create(config)
        self.direct = pj.Account()
        config.idUri = "sip:direct@direct.invalid"
        config.regConfig.registrarUri = ""
        config.sipConfig = pj.AccountSipConfig()
        self.direct.create(config)
        self.setDefault()

    def onRegState(self, prm: Any) -> None:
        tell("registered", status=prm.code, expires=prm.expiration)

    def onIncomingCall(self, prm: Any) -> None:
        call = Call(self, prm.callId)
        parameters = pj.CallOpParam(True)
        parameters.statusCode = 200
        call.answer(parameters)

    def does(self, command: dict[str, Any]) -> None:
        """Raises pj.Error, KeyError, IndexError."""
        what = command["do"]
        if what == "dial":
            account = self.direct if command.get("direct") else self
            Call(self, account=account).makeCall(command["uri"], pj.CallOpParam(True))
            return
        call = self.calls[command["call"]] if "call" in command else list(self.calls.values())[-1]
        parameters = pj.CallOpParam(True)
        if what == "hangup":
            call.hangup(parameters)
        elif what == "hold":
            call.setHold(parameters)
        elif what == "resume":
            parameters.opt.flag = pj.PJSUA_CALL_UNHOLD
            call.reinvite(parameters)
        elif what == "update":
            call.update(parameters)
        elif what == "transfer":
            call.xfer(command["uri"], parameters)
        elif what == "attend":
            self.calls[command["first"]].xferReplaces(self.calls[command["second"]], parameters)
        elif what == "press":
            call.dialDtmf(command["digits"])


class Call(pj.Call):
    """Plays a file to the other side, and keeps what comes in a file of its own."""

    def __init__(self, phone: Phone, call_id: int = pj.PJSUA_INVALID_ID, account: Any = None) -> None:
        super().__init__(account or phone, call_id)
        self.phone = phone
        self.number = next(_numbers)
        self.player: Any = None
        self.recorder: Any = None
        phone.calls[self.number] = self

    def onCallState(self, prm: Any) -> None:
        info = self.getInfo()
        if info.state == pj.PJSIP_INV_STATE_DISCONNECTED:
            self.phone.calls.pop(self.number, None)
            _over.append(self)
        tell("state", call=self.number, state=info.stateText, status=info.lastStatusCode)

    def onCallMediaState(self, prm: Any) -> None:
        info = self.getInfo()
        for index, media in enumerate(info.media):
            if media.type != pj.PJMEDIA_TYPE_AUDIO or media.status != pj.PJSUA_CALL_MEDIA_ACTIVE:
                continue
            if self.player is None:
                self.player, self.recorder = pj.AudioMediaPlayer(), pj.AudioMediaRecorder()
                self.player.createPlayer(self.phone.options["says"])
                self.recorder.createRecorder(str(Path(self.phone.options["folder"]) / f"heard{self.number}.wav"))
            audio = self.getAudioMedia(index)
            self.player.startTransmit(audio)
            audio.startTransmit(self.recorder)
            codec = self.getStreamInfo(index).codecName
            srtp = "SRTP" in self.dump(True, "") and "AES_CM_128_HMAC_SHA1_80" in self.dump(True, "")
            tell("media", call=self.number, codec=codec, srtp=srtp)
            return
        tell("held", call=self.number)

    def onCallTransferRequest(self, prm: Any) -> None:
        prm.newCall = Call(self.phone)
        prm.statusCode = 202
        tell("referred", call=self.number, to=prm.dstUri)

    def onCallTransferStatus(self, prm: Any) -> None:
        tell("transfer", call=self.number, status=prm.statusCode, last=prm.finalNotify)


_numbers = itertools.count()
_over: list[Call] = []
"""Calls that are over: none is taken down within its own callback."""


def endpoint(options: dict[str, Any]) -> Any:
    """The library, started."""
    found = pj.Endpoint()
    found.libCreate()
    config = pj.EpConfig()
    config.uaConfig.threadCnt = 0
    config.uaConfig.mainThreadOnly = True
    config.uaConfig.maxCalls = MAX_CALLS
    config.medConfig.noVad = True
    config.medConfig.ecTailLen = 0
    config.medConfig.clockRate = options["rate"]
    config.logConfig.consoleLevel = 0
    config.logConfig.level = 5
    config.logConfig.filename = str(Path(options["folder"]) / "log")
    found.libInit(config)
    transport = pj.TransportConfig()
    transport.boundAddress = options["host"]
    transport.port = options["port"]
    transport.tlsConfig.certFile = transport.tlsConfig.privKeyFile = options["certificate"]
    found.transportCreate(TRANSPORTS[options["transport"]], transport)
    found.audDevManager().setNullDev()
    found.libStart()
    for codec in found.codecEnum2():
        wanted = codec.codecId.startswith(f"{options['codec']}/")
        found.codecSetPriority(codec.codecId, TOP_PRIORITY if wanted else 0)
    return found


def main() -> None:
    """Until `quit` or the end of the input."""
    options = json.loads(sys.argv[1])
    library = endpoint(options)
    phone = Phone(options)
    waiting = b""
    while True:
        library.libHandleEvents(POLL_MS)
        _over.clear()
        if not select.select([0], [], [], 0)[0]:
            continue
        got = os.read(0, 65_536)
        *lines, waiting = (waiting + got).split(b"\n")
        for line in lines:
            command = json.loads(line)
            if command["do"] == "quit":
                library.libDestroy()
                os._exit(0)  # the bindings' own objects do not survive the interpreter's last steps
            try:
                phone.does(command)
            except (pj.Error, KeyError, IndexError) as error:
                tell("error", command=command, text=getattr(error, "reason", repr(error)))
        if not got:
            os._exit(1)


if __name__ == "__main__":
    main()
