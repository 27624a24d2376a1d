"""What a client is made with."""

from __future__ import annotations

import copy
import io
import math
import pickle
import traceback
from collections.abc import Callable
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from veo3_async._arguments import positive
from veo3_async._errors import AuthenticationError
from veo3_async._transport import endpoint
from veo3_async._transport.endpoint import DEFAULT_BASE_URL, ApiKey, check_proxy, find_base_url

CANARY: Final = "sk-canary-0123456789"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AI302_API_KEY", "AI302_KEY", "AI302_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


# --- the key --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_key", "environment", "key"),
    [
        ("mine", {}, "mine"),
        ("mine", {"AI302_API_KEY": "sdk", "AI302_KEY": "cli"}, "mine"),
        (None, {"AI302_API_KEY": "sdk", "AI302_KEY": "cli"}, "sdk"),
        (None, {"AI302_KEY": "cli"}, "cli"),
    ],
)
def test_the_key_that_is_found(
    monkeypatch: pytest.MonkeyPatch,
    given_key: str | None,
    environment: dict[str, str],
    key: str,
) -> None:
    """What was given, else ``AI302_API_KEY``, else ``AI302_KEY``."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert ApiKey.find(given_key).reveal() == key


def test_no_key_at_all_says_where_to_put_one() -> None:
    """The message names the variable, the argument and the option of the command line."""
    with pytest.raises(AuthenticationError, match="set AI302_API_KEY, or pass api_key=") as caught:
        ApiKey.find(None)
    assert "--key-file" in str(caught.value)


FAULTY: Final[dict[str, tuple[Any, str]]] = {
    "newline": (f"{CANARY}\n", "has white space, control or non-ASCII"),
    "newline inside": (f"{CANARY}\r\nHost: x", "has white space, control or non-ASCII"),
    "NUL": (f"{CANARY}\0", "has white space, control or non-ASCII"),
    "space before": (f" {CANARY}", "has white space, control or non-ASCII"),
    "space inside": (f"Bearer {CANARY}", "has white space, control or non-ASCII"),
    "tab": (f"{CANARY}\t", "has white space, control or non-ASCII"),
    "no-break space": (f"{CANARY}\u00a0", "has white space, control or non-ASCII"),
    "non-ASCII": (f"{CANARY}é", "has white space, control or non-ASCII"),
    "DEL": (f"{CANARY}\x7f", "has white space, control or non-ASCII"),
    "lone surrogate": (f"{CANARY}\udc80", "has white space, control or non-ASCII"),
    "empty": ("", "is empty"),
    "bytes": (CANARY.encode(), "is a str, not bytes"),
    "number": (302, "is a str, not int"),
    "list": ([CANARY], "is a str, not list"),
    "its own": (ApiKey(CANARY), "is a str, not ApiKey"),
}


def refusal(make: Callable[[], object]) -> AuthenticationError:
    with pytest.raises(AuthenticationError) as caught:
        make()
    return caught.value


def everything_in(error: BaseException) -> str:
    """Return all that a crash reporter would send, but for the frame of the test itself."""
    report = traceback.TracebackException.from_exception(error, capture_locals=True)
    frames = [frame for frame in report.stack if frame.filename == endpoint.__file__]
    assert frames
    shown = [str(frame.locals) for frame in frames]
    return "".join([*shown, str(error), repr(error), str(vars(error)), str(pickle.dumps(error))])


@pytest.mark.parametrize("fault", FAULTY)
def test_fault_29_a_key_that_cannot_be_one_is_refused_unprinted(fault: str) -> None:
    """The message says what is wrong, and neither it nor the traceback's locals have the key."""
    key, said = FAULTY[fault]
    error = refusal(lambda: ApiKey.find(key))
    assert str(error).startswith(f"the API key {said}")
    assert CANARY not in everything_in(error)
    assert error.__context__ is None


@pytest.mark.parametrize("name", ["AI302_API_KEY", "AI302_KEY"])
@pytest.mark.parametrize(("value", "said"), [(f"{CANARY} ", "has white space"), ("", "is empty")])
def test_fault_29_the_variable_that_has_a_faulty_key_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    """A variable that is set and wrong is refused by name, and not passed over."""
    monkeypatch.setenv(name, value)
    error = refusal(lambda: ApiKey.find(None))
    assert str(error).startswith(f"{name} {said}")
    assert CANARY not in everything_in(error)


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1))
def test_any_visible_ascii_is_a_key(key: str) -> None:
    """It goes into the header as it is."""
    assert ApiKey.find(key).reveal() == key


@pytest.mark.parametrize("show", [repr, str, format, ascii, lambda key: f"{key!s:>20} {[key]}"])
def test_fault_32_a_key_shows_itself_to_nobody(show: Callable[[ApiKey], str]) -> None:
    """However it is printed, it says that it is a key, and not which."""
    shown = show(ApiKey(CANARY))
    assert "<ApiKey>" in shown
    assert CANARY not in shown


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_fault_32_a_key_is_not_pickled(protocol: int) -> None:
    """Not alone, not inside of something, and nothing of it is in the stream or the error."""
    stream = io.BytesIO()
    with pytest.raises(TypeError, match="not pickled") as caught:
        pickle.Pickler(stream, protocol).dump({"key": ApiKey(CANARY)})
    assert CANARY.encode() not in stream.getvalue()
    assert CANARY not in everything_in(caught.value)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_fault_32_a_key_is_not_copied(copied: Callable[[ApiKey], ApiKey]) -> None:
    """A copy would go the way of a pickle."""
    with pytest.raises(TypeError, match="not pickled"):
        copied(ApiKey(CANARY))


def test_fault_32_a_key_has_no_dict_to_be_dumped() -> None:
    """``vars`` finds nothing, as crash reporters would try it."""
    with pytest.raises(TypeError):
        vars(ApiKey(CANARY))


# --- the base URL ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_url", "variable", "url"),
    [
        (None, None, DEFAULT_BASE_URL),
        (None, "https://api.302.cn/", "https://api.302.cn"),
        ("http://127.0.0.1:8080", "https://api.302.cn", "http://127.0.0.1:8080"),
        ("https://gateway.example/302ai//", None, "https://gateway.example/302ai"),
        ("HTTPS://API.302.AI", None, "HTTPS://API.302.AI"),
        ("http://[::1]:80", None, "http://[::1]:80"),
    ],
)
def test_the_base_url_that_is_found(
    monkeypatch: pytest.MonkeyPatch, given_url: str | None, variable: str | None, url: str
) -> None:
    """What was given, else ``AI302_BASE_URL``, else the public service; no slash at the end."""
    if variable is not None:
        monkeypatch.setenv("AI302_BASE_URL", variable)
    assert find_base_url(given_url) == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.302.ai",
        "//api.302.ai",
        "ftp://api.302.ai",
        "https://",
        "https://:443",
        "https:///302",
        "https://api.302.ai:0",
        "https://api.302.ai:70000",
        "https://api.302.ai:x",
        "https://[::1",
        "https://api.302.ai/a b",
        "https://api.302.ai\n",
        "https://api.302.ai/é",
        b"https://api.302.ai",
        302,
        ["https://api.302.ai"],
    ],
)
def test_a_base_url_that_is_none_is_refused(url: Any) -> None:
    """The message shows a right one and the wrong one."""
    with pytest.raises(ValueError, match=r"base_url is a URL such as 'https://api.302.ai', not"):
        find_base_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://me@api.302.ai",
        "https://me:secret@api.302.ai",
        "https://api.302.ai?a=b",
        "https://api.302.ai/?",
        "https://api.302.ai#a",
        "https://api.302.ai/#",
    ],
)
def test_a_base_url_has_a_path_at_most(url: str) -> None:
    """A user would be a second key, and a path cannot follow a query; nothing is printed."""
    with pytest.raises(ValueError, match="base_url has no user, query or fragment in it") as caught:
        find_base_url(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1.2.3:8302",
        "localhost",
        "LOCALHOST.",
        "api.localhost",
        "[::1]",
        "[fd00::1]",
        "[fe80::1]:80",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.1.1",
        "100.64.0.1",
        "gateway",
        "gateway:8080",
        "gateway.internal",
        "nas.local",
        "[::ffff:10.0.0.1]",
    ],
)
def test_http_is_for_this_machine_and_private_networks(host: str) -> None:
    """There a gateway of one's own has no certificate, as a rule."""
    assert find_base_url(f"http://{host}/302") == f"http://{host}/302"


@pytest.mark.parametrize(
    "host",
    [
        "api.302.ai",
        "API.302.AI.",
        "8.8.8.8",
        "134744072",
        "0x8080808",
        "[2001:4860:4860::8888]",
        "[::ffff:8.8.8.8]",
        "local.example",
        "notlocalhost.com",
        "172.32.0.1",
    ],
)
@pytest.mark.parametrize("scheme", ["http", "HTTP"])
def test_fault_32_the_key_goes_to_no_public_host_in_clear_text(scheme: str, host: str) -> None:
    """A typo in the scheme is an error when the client is made, and nothing is sent."""
    with pytest.raises(ValueError, match="clear text to a public host; use https"):
        find_base_url(f"{scheme}://{host}/302")
    assert find_base_url(f"https://{host}")


@given(st.one_of(st.text(), st.binary(), st.integers(), st.none()))
def test_any_base_url_gives_a_usable_one_or_a_value_error(url: Any) -> None:
    """Nothing else comes out."""
    try:
        found = find_base_url(url)
    except ValueError:
        return
    assert found.lower().startswith(("http://", "https://"))


# --- hosts and numbers ----------------------------------------------------------------------


@pytest.mark.parametrize("proxy", [None, "http://proxy.example:3128", "https://u:p@10.0.0.1"])
def test_a_proxy_is_a_url_with_a_host(proxy: str | None) -> None:
    """What can be a proxy is taken as it came."""
    assert check_proxy(proxy) == proxy


@pytest.mark.parametrize(
    "proxy", ["nonsense", "", "socks5://u:secret@h:1", "http://", "http://h:0", 5]
)
def test_what_cannot_be_a_proxy_is_refused_without_repeating_it(proxy: Any) -> None:
    """A typo is an error when the client is made, without its password."""
    with pytest.raises(ValueError, match="URL of an HTTP proxy") as caught:
        check_proxy(proxy)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("value", [1, 0.001, 1e300, 5e-324])
def test_a_positive_number_comes_back(value: float) -> None:
    """Unchanged."""
    assert positive("request_timeout", value) == value


@pytest.mark.parametrize("value", [0, -1, -0.0, math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_positive_is_refused(value: float) -> None:
    """The message names the option and the value."""
    with pytest.raises(ValueError, match=f"request_timeout is a finite.* not {value!r}"):
        positive("request_timeout", value)


@pytest.mark.parametrize("value", ["1", None, True, [1], 1j])
def test_what_is_no_number_is_refused(value: Any) -> None:
    """True is not 1 here."""
    with pytest.raises(TypeError, match="request_timeout is a number, not"):
        positive("request_timeout", value)
