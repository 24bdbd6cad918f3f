"""Addresses that hear how a job goes: healthchecks and its like. A failure is a sentence, never an error."""

import base64
import http.client
import urllib.error
import urllib.parse
import urllib.request

_AGENT = "ocimig"


def ping(address: str, timeout: float) -> str:
    """Ask for the address; why it did not work, without the address's secrets, or an empty text.

    `timeout` in seconds, for the connection and for the answer.
    """
    shown = _shown(address)
    try:
        request = _request(address)
        with urllib.request.urlopen(request, timeout=timeout):  # noqa: S310 - http(s): config.py saw to it
            return ""
    except urllib.error.HTTPError as error:
        error.close()
        return f"{shown} answered {error.code}"
    except urllib.error.URLError as error:
        return f"{shown}: {_word(error.reason)}"
    except (OSError, http.client.HTTPException, ValueError) as error:
        return f"{shown}: {_word(error)}"


def _request(address: str) -> urllib.request.Request:
    """User and password go into a header: urllib takes none in an address."""
    parts = urllib.parse.urlsplit(address)
    userinfo, login, host = parts.netloc.rpartition("@")
    address = urllib.parse.urlunsplit(parts._replace(netloc=host))
    request = urllib.request.Request(address, headers={"User-Agent": _AGENT})  # noqa: S310 - as above
    if login:
        pair = base64.b64encode(urllib.parse.unquote(userinfo).encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {pair}")  # for that machine only
    return request


def _shown(address: str) -> str:
    """The part of an address that is no secret: the machine."""
    parts = urllib.parse.urlsplit(address)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _word(error: object) -> str:
    """What happened; only errors of the system are quoted, others may hold the address."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError):
        return (error.strerror or type(error).__name__).lower()
    return type(error).__name__
