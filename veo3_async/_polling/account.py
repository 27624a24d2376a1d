"""What a client asks of the account: balance, costs, models, uploads, what was charged."""

from __future__ import annotations

import asyncio
import decimal
import time
from typing import Any, Final

from msgspec.structs import replace

from veo3_async._errors import InvalidRequest, Veo3Error
from veo3_async._polling.calls import Calls
from veo3_async._protocol import account
from veo3_async._protocol.errors import Kind, Problem
from veo3_async._protocol.http import Call, Form
from veo3_async._reports import VideoModel

__all__ = ["Account"]

_MODELS_SECONDS: Final = 3600.0
_UNSENT: Final = frozenset({Kind.CONNECT, Kind.DNS, Kind.LOCAL, Kind.CERTIFICATE})
_UPLOAD_TRIES: Final = 3


class Account:
    """Single calls beside those about tasks."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._models: tuple[VideoModel, ...] | None = None
        self._models_until = 0.0

    async def balance(self) -> decimal.Decimal | None:
        """Return the balance in PTC, or None where the account does not say it."""
        return await self._calls.ask(account.balance_call(), account.read_balance)

    async def cost(self, http_request_id: str) -> decimal.Decimal | None:
        """Return what one HTTP request cost, or None where the account does not say it."""
        call = account.cost_call(http_request_id)
        return (await self._calls.ask(call, account.read_cost)).cost

    async def models(self) -> tuple[VideoModel, ...]:
        """Return the models of the unified endpoint; asked for once an hour."""
        now = asyncio.get_running_loop().time()
        if self._models is None or now >= self._models_until:
            self._models = await self._calls.ask(account.models_call(), account.read_models)
            self._models_until = now + _MODELS_SECONDS
        return self._models

    async def model(self, name: str) -> VideoModel | None:
        """Return what the list says of a model, or None where it cannot be had or has it not."""
        try:
            models = await self.models()
        except Veo3Error:
            return None  # the list is a help, and no condition
        plain = _plain(name)
        return next((model for model in models if _plain(model.name) == plain), None)

    async def upload(self, form: Form) -> str:
        """Bring a file to the service, and return its URL. It costs 0.001 PTC.

        It is sent again only where it certainly did not arrive; it cannot be resumed.

        :raises InvalidRequest: It is larger than 50 MB.
        :raises Veo3Error: It did not arrive, or may have; no task was submitted.
        """
        if form.size > account.MAX_UPLOAD_BYTES:
            message = f"{form.filename} has {form.size} bytes; up to 50 MB can be uploaded"
            raise InvalidRequest(message)
        call = Call("POST", account.UPLOAD_PATH, form=form)
        outcome, attempts, elapsed = await self._calls.repeated(
            call, account.read_upload, may_repeat=_has_not_arrived, tries=_UPLOAD_TRIES
        )
        if not isinstance(outcome, Problem):
            return outcome
        message = f"the image was not uploaded, and no task was submitted: {outcome.message}"
        raise replace(outcome, message=message).error(attempts=attempts, elapsed=elapsed)

    async def charged_since(self, began: float) -> tuple[dict[str, Any], ...]:
        """Return what was charged since a moment, in the words of the account.

        :param began: Seconds since the epoch.
        :raises Veo3Error: The account does not say it.
        """
        call = account.records_call(began - 1, time.time() + 60)
        return await self._calls.ask(call, account.read_records)


def _has_not_arrived(problem: Problem) -> bool:
    return problem.kind in _UNSENT


def _plain(model: str) -> str:
    return model.lower().replace("_", "-")
