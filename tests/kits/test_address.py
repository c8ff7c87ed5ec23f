"""host:port in all its forms."""

import pytest

from fedloom.errors import KitError
from fedloom.kits.address import Address, parse_address


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("fedloom.example.org:8000", "fedloom.example.org", 8000),
        ("superlink:1", "superlink", 1),
        ("192.0.2.7:65535", "192.0.2.7", 65535),
        ("[2001:DB8::0:7]:8000", "2001:db8::7", 8000),
    ],
)
def test_addresses(text, host, port):
    address = parse_address(text)
    assert address == Address(host, port)
    assert parse_address(str(address)) == address
    assert (address.ip is None) == (host[0] not in "12")


@pytest.mark.parametrize(
    "text",
    [
        "", "host", "host:", ":8000", "host:0", "host:65536", "host:-1", "host:8000:1", "2001:db8::7:8000",
        "[host]:8000", "[192.0.2.7]:8000", "192.0.2:8000", "300.1.2.3:8000", "a b:8000", "-a.org:8000", "a..org:8000", "https://a:8000",
        "a;rm:8000", "a:٣", f"{'a' * 64}:8000",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused(text):
    with pytest.raises(KitError, match=r"no address of a server.*HOST:PORT"):
        parse_address(text)


@pytest.mark.parametrize("text", ["0.0.0.0:8000", "[::]:8000"])
def test_nobody_can_connect_to_every_address(text):
    with pytest.raises(KitError, match="no site can connect"):
        parse_address(text)
