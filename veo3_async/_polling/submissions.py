"""The way of a submission: checked, written down, sent once, written down again.

It costs money. So everything is checked before anything is sent; with a journal the intent is on
the disk before; and it is sent again only where it certainly did not arrive.
"""

from __future__ import annotations

import functools
import logging
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import anyio
import anyio.to_thread
import msgspec

from veo3_async._errors import InvalidRequest, JournalError, SubmitUncertain, Veo3Error
from veo3_async._metadata import Origin, metadata_from_json, metadata_json
from veo3_async._polling.account import Account
from veo3_async._polling.calls import Calls
from veo3_async._polling.origins import Origins
from veo3_async._polling.webhooks import Webhooks, webhook_url
from veo3_async._protocol import families
from veo3_async._protocol.account import check_against, request_id_of_http
from veo3_async._protocol.errors import Problem
from veo3_async._protocol.families import Route
from veo3_async._protocol.http import Call, Form, Reply
from veo3_async._protocol.submission import SubmitVerdict, submit_error, submit_verdict
from veo3_async._text import one_line

if TYPE_CHECKING:
    from veo3_async._journal.journal import Journal

__all__ = ["Draft", "ImageSource", "Submissions"]

_log = logging.getLogger("veo3_async")

_TRIES: Final = 5
_LOOK_UP_SECONDS: Final = 20.0
_LOOKED_UP_CHARS: Final = 300
_ANY_URL: Final = "https://example.com/image"
"""Stands for an image that is not uploaded yet, while everything else is checked."""

ImageSource: TypeAlias = str | pathlib.PurePath | bytes
"""A public URL as it is; a path or the bytes of a file, to be uploaded."""


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be submitted, as the user said it."""

    prompt: str
    model: str
    route: Route
    image: ImageSource | Sequence[ImageSource] | None
    options: Mapping[str, Any]
    extra: Mapping[str, Any] | None
    metadata: Any
    webhook: str | None


class _Submitted(NamedTuple):
    request_id: str
    http_request_id: str | None


class Submissions:
    """Those of one client.

    :param journal: What they are written to, or None.
    """

    def __init__(
        self,
        calls: Calls,
        account: Account,
        origins: Origins,
        webhooks: Webhooks,
        journal: Journal | None,
    ) -> None:
        self._calls = calls
        self._account = account
        self._origins = origins
        self._webhooks = webhooks
        self._journal = journal
        self.accepted: int = 0
        """Tasks that were submitted so far."""

    async def submit(self, draft: Draft) -> str:
        """Submit a task and return its id.

        :raises InvalidRequest: Something of it cannot be sent; nothing was.
        :raises SubmitUncertain: The task may exist.
        :raises Veo3Error: It does not.
        """
        metadata = metadata_from_json(metadata_json(draft.metadata))
        webhook, token = (None, None) if draft.webhook is None else webhook_url(draft.webhook)
        compose = functools.partial(_call, draft, webhook=webhook)
        route, call = compose(image=_placeholders(draft.image))
        await self._check_model(draft)
        if _needs_upload(draft.image):
            route, call = compose(image=await self._uploaded(draft.image))
        origin = Origin(route.family, route.path, metadata)
        submitted = await self._kept(draft, call, route, origin, token)
        origin = origin._replace(http_request_id=submitted.http_request_id)
        self._origins.remember(submitted.request_id, origin, webhook=token is not None)
        if token is not None:
            self._webhooks.expect(token, submitted.request_id)
        self.accepted += 1
        _log.info(
            "%s submitted to %s",
            submitted.request_id,
            draft.model,
            extra={"request_id": submitted.request_id},
        )
        return submitted.request_id

    # --- before -----------------------------------------------------------------------------

    async def _check_model(self, draft: Draft) -> None:
        if not draft.route.model or draft.route.family != "unified":
            return
        if (model := await self._account.model(draft.route.model)) is not None:
            check_against(model, image=draft.image, options=draft.options)

    async def _uploaded(self, image: object) -> list[str]:
        """Return the URL of each image, uploaded where it has none."""
        urls = []
        for one in _each(image):
            if isinstance(one, str):
                urls.append(one)
            else:
                urls.append(await self._account.upload(await _form(one)))
        return urls

    # --- the submission ---------------------------------------------------------------------

    async def _kept(
        self, draft: Draft, call: Call, route: Route, origin: Origin, token: str | None
    ) -> _Submitted:
        """Send it, with its intent written down before and what became of it after."""
        if self._journal is None:
            return await self._send(call, route)
        intent = await self._journal.intend(
            draft.prompt,
            model=draft.model,
            image=_shown(draft.image),
            at=time.time(),
            family=origin.family,
            path=origin.path,
            metadata=origin.metadata,
            token=token,
        )
        try:
            submitted = await self._send(call, route)
        except SubmitUncertain:
            raise  # it stays in doubt
        except Veo3Error as error:
            await _note_refusal(self._journal, intent, error)
            raise
        await self._journal.submitted(
            intent,
            submitted.request_id,
            at=time.time(),
            http_request_id=submitted.http_request_id,
        )
        return submitted

    async def _send(self, call: Call, route: Route) -> _Submitted:
        began = time.time()

        def read(reply: Reply, *, wall_now: float) -> _Submitted | Problem:
            found = families.submitted(route, reply, wall_now=wall_now)
            if isinstance(found, Problem):
                return found
            return _Submitted(found, request_id_of_http(reply))

        outcome, attempts, elapsed = await self._calls.repeated(
            call, read, may_repeat=_may_submit_again, tries=_TRIES
        )
        if not isinstance(outcome, Problem):
            return outcome
        error = submit_error(outcome, attempts=attempts, elapsed=elapsed)
        if isinstance(error, SubmitUncertain):
            error.add_note(await self._looked_up(route, began))
        raise error

    async def _looked_up(self, route: Route, began: float) -> str:
        """Say what the account says of a submission in doubt: a person decides."""
        found = None
        with anyio.move_on_after(_LOOK_UP_SECONDS):
            try:
                found = await self._account.charged_since(began)
            except Veo3Error as error:
                return f"what was charged could not be looked up: {error.message}"
        if found is None:
            return "what was charged could not be looked up in time"
        if not found:
            return f"the account has no charge since it was sent to {route.path}; it may come later"
        text = msgspec.json.encode(found).decode()
        return (
            f"the account has {len(found)} charges since it was sent to {route.path}: "
            f"{one_line(text[:_LOOKED_UP_CHARS])}"
        )


def _call(draft: Draft, *, image: list[str] | None, webhook: str | None) -> tuple[Route, Call]:
    route = families.posted_to(draft.route, image=image)
    value = None if image is None else image[0] if len(image) == 1 else image
    return route, families.submit_call(
        route,
        draft.prompt,
        image=value,
        options=draft.options,
        extra=draft.extra,
        webhook=webhook,
    )


def _each(image: object) -> list[Any]:
    if image is None:
        return []
    if isinstance(image, str | bytes | pathlib.PurePath) or not isinstance(image, Sequence):
        return [image]
    return list(image)


def _needs_upload(image: object) -> bool:
    return any(not isinstance(one, str) for one in _each(image))


def _placeholders(image: object) -> list[str] | None:
    """Return URLs by which a submission is checked before its images are uploaded."""
    if image is None:
        return None
    return [one if isinstance(one, str) else _ANY_URL for one in _each(image)]


def _shown(image: object) -> str | None:
    """Return what the journal notes of an image."""
    if image is None:
        return None
    return ", ".join(
        f"{len(one)} bytes" if isinstance(one, bytes) else str(one) for one in _each(image)
    )


async def _form(image: object) -> Form:
    if isinstance(image, bytes):
        return Form("image", len(image), image)
    if not isinstance(image, pathlib.PurePath):
        message = f"an image is a URL, a path or bytes, not {type(image).__name__}"
        raise InvalidRequest(message)
    path = pathlib.Path(image)
    try:
        found = await anyio.to_thread.run_sync(path.stat)
    except OSError as error:
        message = f"the image {path} cannot be read: {error.strerror}"
        raise InvalidRequest(message) from None
    return Form(path.name, found.st_size, path)


async def _note_refusal(journal: Journal, intent: int, error: Veo3Error) -> None:
    """Write down that a submission made no task; what the service said must reach the caller."""
    try:
        await journal.refused(intent, error.message, at=time.time())
    except JournalError as trouble:
        error.add_note(f"in the journal it stays in doubt: {trouble}")
        _log.error("a submission that made no task stays in doubt: %s", trouble)


def _may_submit_again(problem: Problem) -> bool:
    return submit_verdict(problem) is SubmitVerdict.NOT_ARRIVED
