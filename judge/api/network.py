"""What the environment does to a connection: proxies that it names, and certificates. Says so by the variable's name.

Never by a proxy's address, which may hold a password. It opens no connection.
"""

import ipaddress
import os
import ssl
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass

from protocol.errors import UserError

PROXIED = ("http", "https", "all")  # the client opens a way to each proxy that is named, whichever it needs
SOCKS = ("socks5", "socks5h")


def _variable(scheme: str) -> str:
    names = (f"{scheme}_proxy", f"{scheme}_PROXY".upper())
    return next((name for name in names if name in os.environ), names[0])


def proxy_variable(url: str) -> str | None:
    """The name of the variable whose proxy a request to this address goes through; None: it goes straight."""
    parts, proxies = urlsplit(url), getproxies_environment()
    if proxy_bypass(parts.hostname or "", proxies):
        return None
    return next((_variable(scheme) for scheme in (parts.scheme, "all") if proxies.get(scheme)), None)


def is_local(host: str) -> bool:
    """Whether a host is of this machine or of a private network, where a proxy to the outside is no help."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "." not in host or host.endswith((".localhost", ".local", ".internal", ".svc"))
    return address.is_private or address.is_loopback or address.is_link_local


def check_environment() -> None:
    """Refuses what a client would raise a traceback for as soon as it is made.

    Raises:
        UserError: a variable names certificates that cannot be read, or a proxy that cannot be used.
    """
    file, folder = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    try:
        if file:
            ssl.create_default_context(cafile=file)
    except OSError as error:  # ssl.SSLError is one
        raise UserError(
            f"SSL_CERT_FILE: {file!r} cannot be read as certificates ({type(error).__name__}); correct the variable, or unset it"
        ) from None
    if folder and not file and not Path(folder).is_dir():
        raise UserError(f"SSL_CERT_DIR: {folder!r} is no folder; correct the variable, or unset it")
    proxies = getproxies_environment()
    for scheme in PROXIED:
        address = proxies.get(scheme)
        if not address:
            continue
        kind = address.partition("://")[0].lower() if "://" in address else "http"
        if kind not in ("http", "https", *SOCKS):
            raise UserError(
                f"{_variable(scheme)}: names a proxy that is neither http, https nor socks5; correct the variable, or unset it"
            )
        if kind in SOCKS and find_spec("socksio") is None:
            raise UserError(
                f"{_variable(scheme)}: names a socks5 proxy, for which the package socksio is not installed here; pip install "
                "socksio, or unset the variable"
            )
