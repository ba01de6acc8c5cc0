"""Drives Twilio's Python SDK as told: one JSON command a line on standard input, one JSON answer a line on standard
output. `python_sdk.py sync` or `python_sdk.py async`; the commands are described in tests/conformance/sdk.py."""

import asyncio
import datetime as dt
import inspect
import json
import sys

from twilio.base.exceptions import TwilioException, TwilioRestException
from twilio.http.async_http_client import AsyncTwilioHttpClient
from twilio.http.http_client import TwilioHttpClient
from twilio.http.response import Response
from twilio.rest import Client


class HeaderHttpClient(TwilioHttpClient):
    """The SDK's own client, with headers of the program's."""

    def __init__(self, extra):
        super().__init__()
        self.extra = extra

    def request(self, method, url, params=None, data=None, headers=None, *args, **kwargs):
        return super().request(method, url, params, data, {**(headers or {}), **self.extra}, *args, **kwargs)


class AsyncHeaderHttpClient(AsyncTwilioHttpClient):
    """The same, for asyncio."""

    def __init__(self, extra):
        super().__init__()
        self.extra = extra

    async def request(self, method, url, params=None, data=None, headers=None, *args, **kwargs):
        return await super().request(method, url, params, data, {**(headers or {}), **self.extra}, *args, **kwargs)


HTTP_CLIENTS = {
    "sync": (TwilioHttpClient, HeaderHttpClient),
    "async": (AsyncTwilioHttpClient, AsyncHeaderHttpClient),
}
clients = {}


def client_for(mode, login, headers):
    """One client for each login and set of headers."""
    key = json.dumps([login, headers])
    if key not in clients:
        plain, with_headers = HTTP_CLIENTS[mode]
        http_client = with_headers(headers) if headers else plain()
        clients[key] = Client(login["username"], login["password"], login.get("account_sid"), http_client=http_client)
    return clients[key]


def revive(value):
    """Dates come as {"$date": ...} and {"$datetime": ...}."""
    if isinstance(value, list):
        return [revive(item) for item in value]
    if isinstance(value, dict):
        if "$datetime" in value:
            return dt.datetime.fromisoformat(value["$datetime"])
        if "$date" in value:
            return dt.date.fromisoformat(value["$date"])
        return {key: revive(item) for key, item in value.items()}
    return value


def show(value):
    """An instance's public fields, dates in ISO 8601."""
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if isinstance(value, dt.date):
        return value.isoformat()
    if isinstance(value, Response):
        return {
            "status": value.status_code,
            "body": value.text,
            "headers": {k.lower(): v for k, v in value.headers.items()},
        }
    if isinstance(value, list):
        return [show(item) for item in value]
    if hasattr(value, "__dict__"):
        shown = {name: item for name, item in vars(value).items() if not name.startswith("_") or name == "_from"}
        return {name.strip("_"): show(item) for name, item in shown.items()}
    return value


async def maybe(value):
    return await value if inspect.isawaitable(value) else value


async def run(mode, command):
    """The SDK's answer to one command."""
    target = client_for(mode, command["login"], command["headers"])
    suffix = "_async" if mode == "async" else ""
    for name, args in command["path"]:
        target = getattr(target, name)
        target = target if args is None else target(*args)
    verb, args, kwargs = command["verb"], revive(command["args"]), revive(command["kwargs"])
    if verb == "stream":
        return [show(item) async for item in stream(target, suffix, kwargs)]
    if verb == "pages":
        pages, page = [], await maybe(getattr(target, "page" + suffix)(**kwargs))
        while page is not None:
            pages.append([show(item) for item in page])
            page = await maybe(getattr(page, "next_page" + suffix)())
        return pages
    return show(await maybe(getattr(target, verb + suffix)(*args, **kwargs)))


async def stream(target, suffix, kwargs):
    items = await maybe(getattr(target, "stream" + suffix)(**kwargs))
    if hasattr(items, "__aiter__"):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item


def failure(error):
    if isinstance(error, TwilioRestException):
        message = error.msg.partition(" record: ")[2] or error.msg
        return {"status": error.status, "code": error.code, "message": message, "details": error.details}
    if isinstance(error, TwilioException) and error.args and isinstance(error.args[-1], Response):
        return {"status": error.args[-1].status_code, **json.loads(error.args[-1].text)}
    raise error


async def main():
    mode = sys.argv[1]
    while line := await asyncio.to_thread(sys.stdin.readline):
        try:
            answer = {"result": await run(mode, json.loads(line))}
        except TwilioException as error:
            answer = {"error": failure(error)}
        except Exception as error:
            answer = {"broken": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer, default=str), flush=True)


asyncio.run(main())
