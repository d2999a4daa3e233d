"""Which addresses and host spellings a connection may be opened to."""

import json
import socket
import subprocess
import sys

import pytest

from trimtab.connect.addresses import allowed
from trimtab.connect.http import Http
from trimtab.connect.reach import Reach
from trimtab.connect.transport import PinnedTransport
from trimtab.domain.errors import ToolError

REFUSED = [
    "0.0.0.0",
    "10.0.0.1",
    "100.64.0.1",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.8",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "64:ff9b::7f00:1",
    "64:ff9b::808:808",
    "64:ff9b:1::a00:1",
    "100::1",
    "2001::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:20::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "2606:4700::1111%eth0",
    "fec0::1",
    "ff02::1",
    "not an address",
    "",
]
PUBLIC = ["1.1.1.1", "8.8.8.8", "93.184.215.14", "192.0.1.1", "100.128.0.1", "172.32.0.1", "2606:4700:4700::1111"]
PUBLIC += ["2001:4860:4860::8888", "2a00:1450:4001:80b::200e", "2001:200::1", "2003::1"]

SPELLINGS = [
    "2130706433",
    "0x7f.1",
    "127.1",
    "0177.0.0.1",
    "\uff11\uff12\uff17.0.0.1",  # full-width digits
    "127.0.0.1",
    "0",
    "localhost",
    "[::ffff:7f00:1]",
    "[::127.0.0.1]",
    "0x7f000001",
    "127。0。0。1",
    "①②⑦.0.0.1",
    "LOCALHOST",
]


@pytest.mark.parametrize("address", REFUSED)
def test_a_private_local_or_reserved_address_is_refused(address: str) -> None:
    assert not allowed(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_allowed(address: str) -> None:
    assert allowed(address)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "10.1.2.3", "192.168.0.9", "fd12::1", "100.64.3.4"])
def test_leave_for_private_networks_covers_those(address: str) -> None:
    assert allowed(address, private=True)


@pytest.mark.parametrize(
    "address", ["169.254.169.254", "fe80::1", "0.0.0.0", "224.0.0.1", "::ffff:127.0.0.1", "2002:7f00:1::"]
)
def test_leave_for_private_networks_never_covers_metadata_or_disguises(address: str) -> None:
    assert not allowed(address, private=True)


CHILD = """
import asyncio, json, sys
from trimtab.connect.http import Http
from trimtab.connect.reach import Reach
from trimtab.connect.transport import PinnedTransport
from trimtab.domain.errors import ToolError

async def main(hosts, port):
    told = {}
    for host in hosts:
        for url in (f"http://{host}/", f"http://{host}:{port}/"):
            transport = PinnedTransport()
            # The port is declared: only the address can be the reason.
            http = Http(Reach(("*", f"*:{port}"), plain_http=True), transport=transport)
            try:
                told[url] = "answered " + str((await http.open(url)).status)
            except ToolError as error:
                told[url] = error.message
            await transport.aclose()
    print(json.dumps(told))

asyncio.run(main(json.loads(sys.argv[1]), int(sys.argv[2])))
"""


def test_no_spelling_of_loopback_is_opened() -> None:
    """Through this machine's real resolver, which knows them all; in a child, for tests must not look names up."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        port = listening.getsockname()[1]
        command = [sys.executable, "-c", CHILD, json.dumps(SPELLINGS), str(port)]
        told = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=120).stdout)
        with pytest.raises(BlockingIOError):
            listening.accept()
    assert len(told) == 2 * len(SPELLINGS)
    assert not [url for url, said in told.items() if said.startswith("answered")]
    # At least the spellings that C libraries accept were looked up, and refused for what they mean.
    meant = [url for url, said in told.items() if "private, local or reserved" in said]
    assert len(meant) >= 12, told


async def test_one_bad_address_among_good_ones_refuses_them_all() -> None:
    for answer in (["93.184.215.14", "127.0.0.1"], ["10.0.0.1", "93.184.215.14"], ["::1"], []):
        transport = PinnedTransport(resolver=lambda host, port, answer=answer: answer)  # type: ignore[misc]
        with pytest.raises(ToolError, match="private, local or reserved"):
            await Http(Reach(("*",)), transport=transport).open("https://mixed.example/")
        await transport.aclose()
