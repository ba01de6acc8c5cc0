"""The demo: `make demo`, or `python -m trunkline.testing.demo [--once]`.

A Trunkline with a simulated carrier, a phone on it and a small web application, all on this machine. A message goes
out through Twilio's own library, its statuses come back as signed callbacks, the phone answers, the application
replies in TwiML. Then the phone calls, hears a menu, presses a key and leaves a message, and the application calls
back and plays it. Then everything stays up for your own program. Data is kept in ./var/demo: next time account, token
and (if it is free) port are the same.

Exit status: 0, or 1 as soon as a step does not happen within its bound.
"""

import argparse
import os
import queue
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from trunkline.testing.demo_server import HANDSET, NUMBER, POLL_S, DemoFailed, DemoHandset, DemoServer

if TYPE_CHECKING:
    from trunkline.testing.demo_app import DemoApp
    from trunkline.testing.demo_calls import DemoCalls

STEP_TIMEOUT_S: Final = 20.0
WATCH_S: Final = 1.0
"""Seconds of one long poll while the demo just serves; the server ends only after one that is under way."""
OFFER: Final = "Hi Ada, your table for two is booked for 7 pm. Does that suit you?"
ANSWER: Final = "7 pm is perfect, see you then 👍"
DIRECTIONS: Final = ("outbound-api", "inbound", "outbound-reply")
"""Of the three messages of the conversation."""

SNIPPET: Final = """\
from twilio.rest import Client

client = Client("{sid}", "{token}")
client.api.base_url = "{url}"

message = client.messages.create(to="{to}", from_="{from_}", body="Hello from my own program")
print(message.sid, message.status)
"""


class Demo:
    """One run. Steps raise DemoFailed, MissingEvent or the library's own errors."""

    def __init__(self, server: DemoServer, console: Console) -> None:
        self.server = server
        self.console = console
        self.handset = DemoHandset(server)
        self._calls: DemoCalls | None = None
        self.sid = self.token = ""
        self._client: Any = None
        self._app: DemoApp | None = None
        self._began = time.monotonic()

    # -- steps ----------------------------------------------------------------------------------------------

    def set_up(self) -> None:
        """Account, application, number, server, client."""
        from trunkline.testing.demo_app import DemoApp

        self.sid, self.token = self.server.account()
        self._app = DemoApp(self.token)
        self._app.start()
        self.server.give_number(self.sid, f"{self._app.url}/sms")
        self.server.start()
        self._client = self._twilio()
        (number,) = self._client.incoming_phone_numbers.list(phone_number=NUMBER)
        number.update(sms_url=f"{self._app.url}/sms", voice_url=f"{self._app.url}/voice")
        self._say("Trunkline", f"serves {self.server.url}; the application listens on {self._app.url}")

    def _twilio(self) -> Any:
        """Twilio's client; only the address differs."""
        from twilio.rest import Client  # type: ignore[import-untyped]

        client = Client(self.sid, self.token)
        client.api.base_url = self.server.url
        return client

    def converse(self) -> None:
        """A message out, its statuses, the phone's answer, the application's reply."""
        app = self._app
        if app is None:
            raise DemoFailed("the application is not set up")
        self.handset.receives(0)
        sent = self._client.messages.create(to=HANDSET, from_=NUMBER, body=OFFER, status_callback=f"{app.url}/status")
        self._line("application", "→", OFFER)
        self._status(sent.sid, sent.status)
        status = sent.status
        while status != "delivered":
            status = app.wait("status", STEP_TIMEOUT_S, MessageSid=sent.sid).fields["MessageStatus"]
            self._status(sent.sid, status)
            if status in ("failed", "undelivered"):
                raise DemoFailed(f"the message is {status}")
        self._line("phone shows", "✉", self.handset.expects(OFFER, STEP_TIMEOUT_S)["body"])
        self.handset.sends(ANSWER)
        self._line("phone sends", "→", ANSWER)
        inbound = app.wait("inbound", STEP_TIMEOUT_S, From=HANDSET, Body=ANSWER).fields
        self._line("application", "✉", f"{inbound['Body']}  ({inbound['MessageSid']}, signature verified)")
        reply = self.handset.expects(ANSWER, STEP_TIMEOUT_S)["body"]
        self._line("phone shows", "✉", reply)
        self._check(sent.sid)

    def call(self) -> None:
        """A call in with a recording, and a call out that plays it."""
        from trunkline.testing.demo_calls import DIRECTIONS as WAYS
        from trunkline.testing.demo_calls import DemoCalls

        if self._app is None:
            raise DemoFailed("the application is not set up")
        calls = self._calls = DemoCalls(self.server, self._client, self._app, self._line, (self.sid, self.token))
        calls.leave_a_message()
        calls.play_it_back()
        listed = self._ended(len(WAYS))
        table = Table("direction", "from", "to", "status", "seconds", title="client.calls.list()", title_justify="left")
        for one in sorted(listed, key=lambda one: WAYS.index(one.direction)):
            table.add_row(one.direction, one._from, one.to, one.status, one.duration)
        self.console.print(table)

    def _ended(self, count: int) -> list[Any]:
        """The newest calls as the API lists them, once all have ended."""
        end = time.monotonic() + STEP_TIMEOUT_S
        listed: list[Any] = []
        while time.monotonic() < end:
            listed = self._client.calls.list(limit=count)
            if [one.status for one in listed] == ["completed"] * count:
                return listed
            time.sleep(POLL_S)
        raise DemoFailed(f"the calls are {[one.status for one in listed]} after {STEP_TIMEOUT_S:g} s")

    def _check(self, sid: str) -> None:
        """What the API says afterwards."""
        fetched = self._client.messages(sid).fetch()
        if fetched.status != "delivered" or fetched.body != OFFER:
            raise DemoFailed(f"the API says {fetched.status} of {sid}")
        table = Table("direction", "from", "to", "status", "body", title="client.messages.list()", title_justify="left")
        listed = self._landed()
        if sorted(one.direction for one in listed) != sorted(DIRECTIONS):
            raise DemoFailed(f"the list of messages shows {[one.direction for one in listed]}")
        for one in sorted(listed, key=lambda one: DIRECTIONS.index(one.direction)):
            table.add_row(one.direction, one.from_, one.to, one.status, Text(one.body))
        self.console.print(table)

    def _landed(self) -> list[Any]:
        """The conversation's messages as the API lists them, once all have ended."""
        end = time.monotonic() + STEP_TIMEOUT_S
        while time.monotonic() < end:
            listed: list[Any] = self._client.messages.list(limit=len(DIRECTIONS))
            if all(one.status in ("delivered", "received") for one in listed):
                return listed
            time.sleep(POLL_S)
        raise DemoFailed(f"the messages are {[one.status for one in listed]} after {STEP_TIMEOUT_S:g} s")

    def serve(self) -> None:
        """Show how to go on, then show what happens until Ctrl-C."""
        self.console.print(Rule("your turn"))
        self._plain(f"Base URL     {self.server.url}")
        self._plain(f"Account SID  {self.sid}")
        self._plain(f"Auth token   {self.token}")
        self._plain(f"Number       {NUMBER}\n")
        self._plain("# Python, after `pip install twilio`:")
        self._plain(snippet(self.server.url, self.sid, self.token))
        json = "curl -H 'Content-Type: application/json' "
        self._plain("# The phone sends a message:")
        self._plain(f'{json}{self.server.url}{self.handset.path} -d \'{{"to": "{NUMBER}", "body": "Hello"}}\'\n')
        if self._calls is not None:
            self._calls.phone.picks_up(after_s=1)
            phone = f"{self.server.url}/_simulator/phones/{HANDSET}"
            self._plain("# It dials; it answers calls by itself, and keeps what it hears:")
            self._plain(f'{json}{phone}/calls -d \'{{"to": "{NUMBER}"}}\'')
            self._plain(f"curl {phone}/calls; curl -o heard.wav {phone}/calls/3/heard.wav\n")
        self.console.print(Rule("what happens from now on (Ctrl-C ends)"))
        watcher = threading.Thread(target=self._watch_app, daemon=True)
        watcher.start()
        while True:
            for text in self.handset.receives(WATCH_S):
                self._line("phone shows", "✉", text["body"])

    def _watch_app(self) -> None:
        while self._app is not None:
            try:
                event = self._app.events.get(timeout=WATCH_S)
            except queue.Empty:
                continue
            if event.kind == "status":
                self._status(event.fields.get("MessageSid", ""), event.fields.get("MessageStatus", ""))
            elif "CallSid" in event.fields:
                shown = ("From", "Digits", "RecordingUrl", "CallStatus")
                told = (f"{name} {event.fields[name]}" for name in shown if event.fields.get(name))
                self._line("application", "☎", f"/{event.kind}: {', '.join(told)}")
            else:
                self._line("application", "✉" if event.kind == "inbound" else "✗", event.fields.get("Body", ""))

    def stop(self) -> None:
        """End the server and the application."""
        app, self._app = self._app, None
        if app is not None:
            app.stop()
        self.server.stop()

    # -- showing --------------------------------------------------------------------------------------------

    def _line(self, who: str, mark: str, text: str) -> None:
        self._say(who, f"{mark} {text}")

    def _status(self, sid: str, status: str) -> None:
        colour = {"delivered": "green", "failed": "red", "undelivered": "red"}.get(status, "yellow")
        line = self._head("").append(f"  {status}", style=colour).append(f"  {sid}", style="dim")
        self.console.print(line, soft_wrap=True)

    def _say(self, who: str, text: str) -> None:
        self.console.print(self._head(who).append(text), soft_wrap=True)

    def _head(self, who: str) -> Text:
        return Text(f"{time.monotonic() - self._began:7.2f} s  ", style="dim").append(f"{who:12} ", style="bold cyan")

    def _plain(self, text: str) -> None:
        """Without colours, wrapping or markup: to be copied."""
        self.console.print(text, soft_wrap=True, markup=False, highlight=False)


def snippet(url: str, sid: str, token: str) -> str:
    """A program that sends a message, as it is."""
    return SNIPPET.format(url=url, sid=sid, token=token, to=HANDSET, from_=NUMBER)


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m trunkline.testing.demo", description="Try Trunkline on this machine.")
    parser.add_argument("--once", action="store_true", help="run through it once and end")
    parser.add_argument("--data", type=Path, default=Path("var/demo"), help="where its data is kept (./var/demo)")
    parser.add_argument("--port", type=int, help="TCP port of the server (as last time, 8080, or any)")
    parser.add_argument("--speech", choices=("auto", "tones"), default="auto", help="tones: no words, but quick")
    given = parser.parse_args(arguments)
    given.once = given.once or os.environ.get("ONCE", "") not in ("", "0")
    return given


def main(arguments: list[str] | None = None) -> int:
    """Run the demo; returns its exit status."""
    given = _arguments(arguments)
    console = Console()
    try:
        import twilio  # type: ignore[import-untyped]  # noqa: F401 - the application and the client need it
    except ImportError:
        console.print("the demo needs Twilio's library: pip install twilio")
        return 1
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends like Ctrl-C, the server with it
    os.environ["NO_PROXY"] = ",".join(filter(None, ("127.0.0.1", os.environ.get("NO_PROXY"))))
    server: DemoServer | None = None
    demo: Demo | None = None
    try:
        server = DemoServer(given.data, given.port, given.speech)
        demo = Demo(server, console)
        demo.set_up()
        demo.converse()
        demo.call()
        console.print("It works.", style="bold green")
        if not given.once:
            demo.serve()
    except KeyboardInterrupt:
        console.print("\nGoodbye.")
    except Exception as error:
        what = str(error) if isinstance(error, DemoFailed) else f"{type(error).__name__}: {error}"
        console.print(f"The demo failed: {what}", style="bold red", markup=False, soft_wrap=True)
        if server is not None and (tail := server.log_tail()):
            console.print(f"The server's log ends with:\n{tail}", markup=False, highlight=False)
        return 1
    finally:
        if demo is not None:
            demo.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
