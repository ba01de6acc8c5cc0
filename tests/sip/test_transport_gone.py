"""A TLS server that is gone as soon as it is there: it is connected to again."""

import asyncio
import ssl
from pathlib import Path

from tests.certificates import Authority
from tests.sip.test_transport import PATIENT, Node, until
from trunkline.sip.core import StackConfig
from trunkline.sip.flow import Flow
from trunkline.sip.tls import TlsConfig
from trunkline.sip.transport import SipTransport

HOST = "127.0.0.1"


class Hasty:
    """Says its last word of the handshake and goodbye in one breath, to the first who comes; others are listened to."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self.came = 0
        self.heard: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.came += 1
        leaves = self.came == 1
        read, written = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = self._context.wrap_bio(read, written, server_side=True)
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                writer.write(written.read())
                read.write(await reader.read(65_536))
        if leaves:
            try:
                tls.unwrap()
            except ssl.SSLError:
                pass  # the peer's goodbye is not waited for
        writer.write(written.read())
        while data := await reader.read(65_536):
            read.write(data)
            try:
                self.heard.append(tls.read(65_536))
            except ssl.SSLError:
                continue
        writer.close()


async def test_what_closes_with_its_handshake_is_connected_to_again(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    files = authority.issue("server", addresses=(HOST,))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # there the server has the last word
    context.load_cert_chain(files.chain, files.key)
    hasty = Hasty(context)
    server = await asyncio.start_server(hasty.serve, HOST, 0)
    transport = SipTransport(StackConfig(timing=PATIENT), Node(), tls=TlsConfig(ca=str(authority.path)))
    await transport.start(HOST)
    transport.tls.load()
    try:
        port = server.sockets[0].getsockname()[1]
        flow = Flow("TLS", (HOST, port), (HOST, 5061), 0, HOST)
        assert transport._send(b"first", flow)
        await until(lambda: hasty.came == 1 and not transport._waiting)
        await until(lambda: not transport._connections)
        assert transport._send(b"second", flow)
        await until(lambda: hasty.heard == [b"second"])
    finally:
        await transport.close()
        server.close()
