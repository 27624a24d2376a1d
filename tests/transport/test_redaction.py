"""What is taken out of requests and replies before they are written down: pure."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from veo3_async._transport.redaction import REMOVED, Redaction

KEY = "sk-canary/7f3a9c51+d2e84b06"
PLAIN = Redaction(KEY)
WITH_PROMPTS = Redaction(KEY, prompts=True)
REPLIES = sorted((Path(__file__).parents[1] / "replies").glob("*.json"))

SIGNED = "https://user:pw@file.302.ai/a.mp4?X-Amz-Signature=abc123%2Fdef&Expires=99#part"
UNSIGNED = f"https://{REMOVED}@file.302.ai/a.mp4?X-Amz-Signature={REMOVED}&Expires={REMOVED}"


@pytest.mark.parametrize("sample", REPLIES, ids=lambda path: path.stem)
def test_a_reply_without_secrets_stays_as_it_is_where_prompts_are_kept(sample: Path) -> None:
    """A reply in which nothing is hidden comes out byte for byte."""
    body = sample.read_bytes()
    if b"webhook" not in body:
        assert WITH_PROMPTS.body(body) == body


@pytest.mark.parametrize("sample", REPLIES, ids=lambda path: path.stem)
def test_what_is_no_prompt_stays_in_a_reply(sample: Path) -> None:
    """Without its prompts a reply has the same fields, of the same values otherwise."""
    before, after = (json.loads(text) for text in (sample.read_bytes(), clean_sample(sample)))
    assert without_hidden(before) == without_hidden(after)


def clean_sample(sample: Path) -> bytes:
    return PLAIN.body(sample.read_bytes())


def without_hidden(value: object) -> object:
    if isinstance(value, dict):
        return {
            name: without_hidden(item)
            for name, item in value.items()
            if "prompt" not in name and name != "webhook"
        }
    if isinstance(value, list):
        return [without_hidden(item) for item in value]
    if isinstance(value, str) and value[:1] == "{":
        return without_hidden(json.loads(value))
    return value


@given(prompt=st.text(min_size=1).filter(lambda text: text not in REMOVED), nested=st.booleans())
def test_no_prompt_stays_however_it_is_spelled(prompt: str, *, nested: bool) -> None:
    """A prompt is found beside names and within texts, in any spelling of JSON."""
    for ascii_only in (True, False):
        inner = {"req": {"prompt": prompt}, "enhanced_prompt": [prompt], "status": "pending"}
        content = {"raw_response": json.dumps(inner, ensure_ascii=ascii_only)} if nested else inner
        body = json.dumps(content, ensure_ascii=ascii_only).replace("/", r"\/")
        clean = json.loads(PLAIN.body(body.encode(errors="replace")))
        said = json.loads(clean["raw_response"]) if nested else clean
        assert said["req"]["prompt"] == REMOVED
        assert said["enhanced_prompt"] == [REMOVED]
        assert said["status"] == "pending"


def test_a_prompt_in_an_errors_text_goes_too() -> None:
    """What the request hides is taken out of the words of its reply."""
    sent = b'{"text_prompt": "a secret \\u00e9tude"}'
    body = '{"error": {"message": "refused: a secret étude", "err_code": -10011}}'.encode()
    clean = PLAIN.body(body, beside=PLAIN.hidden_in(sent))
    assert clean == b'{"error": {"message": "refused: removed", "err_code": -10011}}'


def test_a_prompt_in_what_is_no_json_goes_too() -> None:
    """A body that breaks off, and one in another encoding, hide their prompts as well."""
    assert PLAIN.body(b'{"req": {"prompt": "a \\"secret\\" tow') == b'{"req": {"prompt": "removed'
    body = json.dumps({"prompt": "étude", "id": "é"}, ensure_ascii=False).encode("latin-1")
    assert "tude" not in PLAIN.body(body).decode("latin-1")
    assert b"s\0e\0c\0r\0e\0t" not in PLAIN.body('{"prompt": "secret"}'.encode("utf-16-le"))


@pytest.mark.parametrize(
    "spelled",
    [
        KEY,
        KEY.replace("/", r"\/"),
        KEY.replace("/", "%2F").replace("+", "%2B"),
        base64.b64encode(KEY.encode()).decode(),
        f"Bearer {KEY}",
    ],
)
def test_fault_32_no_spelling_of_the_key_stays(spelled: str) -> None:
    """The key is taken out of bodies, headers and paths, as JSON, URLs and base64 spell it."""
    body = WITH_PROMPTS.body(f'{{"error": "{spelled}", "prompt": "{spelled}"}}'.encode()).decode()
    headers = WITH_PROMPTS.headers({"Location": f"/a/{spelled}"})
    shown = body + str(headers) + WITH_PROMPTS.target(f"/a/{spelled}?request_id={spelled}")
    assert "7f3a9c51" not in shown
    assert base64.b64encode(KEY.encode()).decode()[:16] not in shown


@pytest.mark.parametrize("slash", ["/", r"\/"])
@pytest.mark.parametrize("ampersand", ["&", r"\u0026", "&amp;"])
def test_fault_32_the_signature_of_a_url_goes(slash: str, ampersand: str) -> None:
    """A URL keeps its host and path, and the names of what it asks for."""
    url = SIGNED.replace("/", slash).replace("&", ampersand)
    expected = UNSIGNED.replace("/", slash).replace("&", ampersand)
    clean = PLAIN.body(f'{{"video_url":"{url}"}}'.encode()).decode()
    assert clean.startswith(f'{{"video_url":"{expected}')
    assert not {"abc123", "def", "99", "user", "pw"} & set(clean.replace(slash, " ").split())
    assert "abc123" not in clean
    assert "pw@" not in clean


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ('{"url":"/a.mp4?sign=abc"}', '{"url":"/a.mp4?sign=removed"}'),
        ('{"url":"https://h/a.mp4?abcdef"}', '{"url":"https://h/a.mp4?removed"}'),
        ('{"access_token":"abc"}', '{"access_token":"removed"}'),
        ('{"input_token":12}', '{"input_token":12}'),
        (
            '{"image":"data:image/png;base64,iVBOR/w0=="}',
            '{"image":"data:image/png;base64,removed"}',
        ),
        ('{"name":"sk-0123456789abcdef"}', '{"name":"removed"}'),
        ('{"url":"https://h/a.mp4"}', '{"url":"https://h/a.mp4"}'),
        ("why? a=b", "why? a=b"),
    ],
)
def test_other_secrets_go(said: str, left: str) -> None:
    """Tokens, other keys, embedded files; what is none stays."""
    assert PLAIN.body(said.encode()).decode() == left


def test_of_the_headers_those_stay_that_matter() -> None:
    """Cookies and whatever is not known to be harmless are not among them."""
    headers = {"Set-Cookie": "a=b", "X-Debug": "x", "Date": "now", "X-RateLimit-Limit": "20"}
    assert PLAIN.headers(headers) == {"Date": "now", "X-RateLimit-Limit": "20"}


@pytest.mark.parametrize(
    "piece",
    ["http://", "https:\\/\\/a@", '"', "?a=", "&", "\\", '{"prompt":', "Bearer ", "[", "sk-"],
)
def test_no_reply_takes_long(piece: str) -> None:
    """Whatever is repeated in it, the work grows with its length and no faster."""
    body = (piece * (65_536 // len(piece))).encode()
    assert len(PLAIN.body(body)) <= 3 * len(body)


def test_a_prompt_within_a_text_that_breaks_off_goes() -> None:
    """Of JSON in a text of which the end is missing, more is taken out rather than less."""
    body = json.dumps({"raw": json.dumps({"id": 1, "prompt": 'a "secret" tower', "x": 2})})[:-9]
    assert "secret" not in PLAIN.body(body.encode()).decode()


def test_a_path_keeps_the_id_and_no_webhook() -> None:
    """Of our own requests' queries the id stays."""
    assert PLAIN.target("/a?webhook=https%3A%2F%2Fh%2Ftoken") == "/a?webhook=removed"
    assert PLAIN.target("/a?request_id=veo3-pro:1") == "/a?request_id=veo3-pro:1"
    assert PLAIN.target("/a") == "/a"
