"""Voice TwiML with every verb, noun and attribute that the SDKs' builders can write, as a plan for both of them.

The plan is made from the Python SDK's own signatures: what a later SDK adds appears by itself, and a value that this
page does not know fails the test. A node of the plan: {"verb", "text", "attributes" (camelCase), "children"}.
"""

import inspect
import json
import subprocess
import textwrap
from pathlib import Path
from typing import Any

from twilio.twiml import TwiML, voice_response

NODE = Path(__file__).parent / "node"
URL = "https://example.com/next"
TEXTS = {
    "message": "Hello", "words": "Hello", "url": URL, "number": None, "phone_number": "+14155550123",
    "identity": "ada", "client_identity": "ada", "sip_url": "sip:ada@example.com", "sim_sid": "DE" + "1" * 32,
    "application_sid": "AP" + "1" * 32, "sid": "AP" + "1" * 32, "body": "{}", "name": "Room",
}  # fmt: skip
"""Arguments that become an element's text; None: nouns stand there instead."""
BY_ELEMENT = {
    "Play": "url", "Redirect": "url", "Say": "message", "Sms": "message", "Queue": "name", "Conference": "name",
    "Enqueue": "name", "Number": "phone_number", "Client": None, "Sip": None, "Sim": "sim_sid", "Application": None,
    "WhatsApp": "phone_number", "Dial": "number", "Identity": "client_identity", "ApplicationSid": "sid",
    "Uri": "sip_url", "Task": "body",
}  # fmt: skip
"""Elements with text -> the builder's argument for it."""
VALUES: dict[str, Any] = {
    "action": URL, "method": "POST", "timeout": 5, "time_limit": 600, "hangup_on_star": True,
    "caller_id": "+12025550142", "answer_on_bridge": True, "ring_tone": "us", "sequential": True, "refer_url": URL,
    "refer_method": "POST", "events": "call-progress-event", "passports": "x", "recording_track": "both",
    "recording_status_callback": URL, "recording_status_callback_method": "POST",
    "recording_status_callback_event": "in-progress completed absent", "recording_configuration_id": "x",
    "status_callback": URL, "status_callback_method": "POST",
    "status_callback_event": "initiated ringing answered completed",
    "input": "dtmf", "speech_timeout": "auto", "max_speech_time": 60, "profanity_filter": True, "finish_on_key": "#",
    "num_digits": 4, "partial_result_callback": URL, "partial_result_callback_method": "POST", "language": "en-US",
    "hints": "yes, no", "barge_in": True, "debug": True, "action_on_empty_result": True, "speech_model": "default",
    "enhanced": True, "length": 1, "loop": 1, "digits": "12w#", "max_length": 60, "play_beep": True, "transcribe": True,
    "transcribe_callback": URL, "reason": "busy", "voice": "alice", "to": "+14155550123", "from_": "+12025550142",
    "send_digits": "12w#", "url": URL, "byoc": "BY" + "1" * 32, "machine_detection": "Enable",
    "amd_status_callback": URL, "amd_status_callback_method": "POST", "machine_detection_timeout": 30,
    "machine_detection_speech_threshold": 2400, "machine_detection_speech_end_threshold": 1200,
    "machine_detection_silence_timeout": 5000, "username": "me", "password": "pw", "name": "key", "value": "value",
    "priority": 1, "weight": 1, "trim": "trim-silence", "strength": "weak", "time": "1s", "level": "strong",
    "xml_lang": "en-GB", "alphabet": "ipa", "ph": "pɪˈkɑːn", "volume": "loud", "rate": "slow", "pitch": "low",
    "interpret_as": "digits", "format": "mdy", "alias": "Also", "role": "amazon:VB", "customer_id": "c1",
    "copy_parent_to": True, "reservation_sid": "WR" + "1" * 32, "post_work_activity_sid": "WA" + "1" * 32,
    "muted": True, "beep": "true", "start_conference_on_enter": True, "end_conference_on_exit": True, "wait_url": URL,
    "wait_method": "POST", "max_participants": 10, "region": "us1", "coach": "CA" + "1" * 32, "event_callback_url": URL,
    "jitter_buffer_size": "small", "participant_label": "me", "max_queue_size": 10, "wait_url_method": "POST",
    "workflow_sid": "WW" + "1" * 32, "record": "record-from-answer",
}  # fmt: skip
"""Attribute -> a value that Twilio takes."""
SPECIAL: dict[tuple[str, str], Any] = {("Conference", "record"): "record-from-start"}
"""Where an element takes other values than the rest."""
LATER = {"Connect", "Echo", "Leave", "Pay", "Prompt", "Queue", "Start", "Stop"}
"""Verbs that stand here without attributes: what they hold is not looked at yet."""


def camel(name: str) -> str:
    first, *rest = name.rstrip("_").split("_")
    return first + "".join(word.capitalize() for word in rest)


def methods(kind: type) -> dict[str, list[str]]:
    """The builder's methods of an element -> their parameters."""
    return {
        name: [parameter for parameter in inspect.signature(method).parameters if parameter not in ("self", "kwargs")]
        for name, method in vars(kind).items()
        if not name.startswith("_") and callable(method)
    }


def element_of(kind: type, method: str) -> type:
    """The class of what a method adds."""
    found = getattr(kind(), method)
    words = "".join(part.capitalize() for part in method.rstrip("_").split("_"))
    for name in (kind.__name__ + words, words, "Ssml" + words):
        made = getattr(voice_response, name, None)
        if inspect.isclass(made) and issubclass(made, TwiML):
            return made
    raise AssertionError(f"{kind.__name__}.{found}: no element {words}")


def plan_of(kind: type, method: str, parameters: list[str], depth: int = 0) -> dict[str, Any]:
    """What one call of the builder writes, with everything that may stand in it."""
    name = "".join(part.capitalize() for part in method.rstrip("_").split("_"))
    plan: dict[str, Any] = {"verb": method, "text": None, "attributes": {}, "children": []}
    if name in LATER and depth == 0:
        plan["text"] = TEXTS["name"] if "name" in parameters else None
        return plan
    texts = [one for one in parameters if one in ("words", BY_ELEMENT.get(name) or text_argument(name))]
    for parameter in parameters:
        if parameter in texts:
            plan["text"] = TEXTS[parameter]
        else:
            plan["attributes"][parameter] = SPECIAL.get((name, parameter), VALUES[parameter])
    if depth < 2:
        made = element_of(kind, method)
        for child, inner in methods(made).items():
            if made is not voice_response.Enqueue and (made is not voice_response.Say or child != "w"):
                plan["children"].append(plan_of(made, child, inner, depth + 1))
    return plan


def text_argument(name: str) -> str:
    return {"Client": "identity", "Sip": "sip_url", "Application": "application_sid"}.get(name, "")


def whole() -> list[dict[str, Any]]:
    """The document: every verb once, <Dial> with a number and with each noun."""
    response = voice_response.VoiceResponse
    verbs: list[dict[str, Any]] = []
    for name, parameters in methods(response).items():
        plan = plan_of(response, name, parameters)
        if name != "dial":
            verbs.append(plan)
            continue
        verbs.append(plan | {"text": "+14155550123", "children": []})
        verbs += [plan | {"children": [noun]} for noun in plan["children"]]
    return verbs


# -- the two builders --------------------------------------------------------------------------------------------


def build_python(plan: list[dict[str, Any]]) -> str:
    """The document that the Python SDK writes."""

    def add(parent: Any, node: dict[str, Any]) -> None:
        text = [node["text"]] if node["text"] is not None else []
        made = getattr(parent, node["verb"])(*text, **node["attributes"])
        for child in node["children"]:
            add(made, child)

    response = voice_response.VoiceResponse()
    for node in plan:
        add(response, node)
    return str(response)


PROGRAM = textwrap.dedent(
    """
    const twilio = require("twilio");
    const camel = (name) => name.replace(/_$/, "").replace(/_([a-z])/g, (_, letter) => letter.toUpperCase());
    function add(parent, node) {
      const attributes = {};
      for (const [name, value] of Object.entries(node.attributes)) {
        attributes[{ xml_lang: "xml:lang", interpret_as: "interpret-as" }[name] || camel(name)] = value;
      }
      const names = [node.verb.endsWith("_") ? camel(node.verb) + "_" : camel(node.verb), camel(node.verb),
        "ssml" + camel("x_" + node.verb).slice(1)];
      const name = names.find((one) => typeof parent[one] === "function");
      if (!name) throw new Error(`no method for ${node.verb} among ${names}`);
      const made = node.text === null ? parent[name](attributes) : parent[name](attributes, node.text);
      node.children.forEach((child) => add(made, child));
    }
    const response = new twilio.twiml.VoiceResponse();
    JSON.parse(require("fs").readFileSync(0, "utf8")).forEach((node) => add(response, node));
    process.stdout.write(response.toString());
    """
)


def build_node(plan: list[dict[str, Any]]) -> str:
    """The document that the Node SDK writes. Raises CalledProcessError."""
    ran = subprocess.run(
        ["node", "-e", PROGRAM], input=json.dumps(plan), capture_output=True, text=True, check=False, cwd=NODE
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout
