"""Asks a server's simulator where the server is: one JSON line {"method", "path", "body", "login"} in, one JSON line
out with "status", "type" and "text" or "base64". The server's port stands first on the command line."""

import base64
import http.client
import json
import ssl
import sys

context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # it is a machine's own, on loopback
connection = http.client.HTTPSConnection("127.0.0.1", int(sys.argv[1]), context=context, timeout=60)
for line in sys.stdin:
    asked = json.loads(line)
    body = None if asked["body"] is None else json.dumps(asked["body"])
    headers = {"Content-Type": "application/json"}
    if asked["login"]:
        headers["Authorization"] = "Basic " + base64.b64encode(":".join(asked["login"]).encode()).decode()
    connection.request(asked["method"], asked["path"], body, headers)
    answer = connection.getresponse()
    read = answer.read()
    text = answer.headers.get_content_type() == "application/json"
    shown = {"text": read.decode()} if text else {"base64": base64.b64encode(read).decode()}
    kind = answer.headers.get("Content-Type", "")
    print(json.dumps({"status": answer.status, "type": kind, **shown}), flush=True)
