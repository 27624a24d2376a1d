"""Whether it is still the API that answers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from veo3_async._errors import (
    AuthenticationError,
    ServiceUnavailable,
    UnexpectedReply,
    Veo3Error,
)
from veo3_async._lifecycle.contact import Contact
from veo3_async._models import VideoTask
from veo3_async._protocol.errors import Kind, Problem

PAGE = Problem(
    kind=Kind.UNEXPECTED, message="not the API", http_status=200, body="<html>welcome</html>"
)
REFUSAL = Problem(kind=Kind.UNEXPECTED, message="not the API", http_status=403)
CERTIFICATE = Problem(kind=Kind.CERTIFICATE, message="the certificate of example has expired")
UNREACHABLE = Problem(kind=Kind.CONNECT, message="no connection")
OWN_WORD = Problem(
    kind=Kind.NOT_FOUND, message="no such task", http_status=404, err_code=-10010, from_api=True
)
STATE = VideoTask(status="pending")


def end_of(contact: Contact, answer: object, *, step: float = 1.0) -> tuple[float, Veo3Error]:
    """Let the same come again and again; return when the client ends, and with what."""
    now = 0.0
    while (error := contact.heard(answer, now)) is None:
        now += step
        assert now < 10_000, "it never ends"
    return now, error


@pytest.mark.parametrize(
    ("had_reply", "answer", "seconds", "error"),
    [
        (False, PAGE, 300, UnexpectedReply),
        (False, REFUSAL, 60, AuthenticationError),
        (True, REFUSAL, 600, AuthenticationError),
        (False, CERTIFICATE, 60, ServiceUnavailable),
        (True, CERTIFICATE, 60, ServiceUnavailable),
    ],
    ids=["page", "refusal", "refusal after contact", "certificate", "certificate after contact"],
)
def test_faults_11_15_18_a_client_that_hears_nothing_else_ends(
    answer: Problem, seconds: float, error: type[Veo3Error], *, had_reply: bool
) -> None:
    """After its time, with an error that shows what came."""
    when, raised = end_of(Contact(had_reply=had_reply), answer)
    assert (when, type(raised)) == (seconds, error)
    assert answer.message in raised.message
    assert (raised.http_status, raised.body) == (answer.http_status, answer.body)


def test_fault_11_a_client_that_had_a_reply_waits_pages_out() -> None:
    """A day of a maintenance page ends nothing."""
    contact = Contact()
    assert contact.heard(STATE, 0.0) is None
    assert [contact.heard(PAGE, float(second)) for second in range(0, 86_400, 30)] == [None] * 2880


@pytest.mark.parametrize("answer", [PAGE, REFUSAL, CERTIFICATE])
@pytest.mark.parametrize("other", [STATE, OWN_WORD, UNREACHABLE])
def test_faults_11_15_18_anything_else_makes_the_time_begin_anew(
    answer: Problem, other: object
) -> None:
    """Only nothing but the same ends a client."""
    contact = Contact()
    for second in range(0, 5000, 10):
        assert contact.heard(other if second % 50 == 0 else answer, float(second)) is None


def test_an_error_object_of_the_api_is_a_reply_of_the_api() -> None:
    """Its own "not found" proves that base_url is right."""
    contact = Contact()
    contact.heard(OWN_WORD, 0.0)
    assert contact.had_reply


@given(st.lists(st.sampled_from([PAGE, REFUSAL, UNREACHABLE, OWN_WORD, STATE]), max_size=60))
def test_fault_11_no_outage_under_a_minute_ends_anything(answers: list[object]) -> None:
    """Whatever comes in whatever order."""
    contact = Contact()
    assert not any(contact.heard(answer, float(place)) for place, answer in enumerate(answers))
