"""What is known of an id that a worker gets, and how what is new of it is written."""

from __future__ import annotations

import logging

import msgspec

from veo3_async._errors import Veo3Error
from veo3_async._lifecycle.contact import Contact
from veo3_async._lifecycle.judge import Track
from veo3_async._metadata import Origin
from veo3_async._protocol.ids import check_request_id
from veo3_async.cluster._memory import Memory
from veo3_async.cluster._names import Names, request_id_of
from veo3_async.cluster._nats.jetstream import Engine
from veo3_async.cluster._nats.pull import Message
from veo3_async.cluster._origin import decode_origin
from veo3_async.cluster._record import Record, decode, encode
from veo3_async.cluster._step import begun, has_changed, track_of

__all__ = ["Known", "Records", "payload_of"]

_log = logging.getLogger("veo3_async")


class Known(msgspec.Struct, frozen=True):
    """What is known of an id before it is polled."""

    record: Record
    track: Track
    seq: int | None
    """Of the last message of its subject, 0 where there is none; None: it was not asked for."""


class Records:
    """The last record of each id, as it lies in NATS or is remembered.

    :param contact: Learns from a record that the API has answered some worker before.
    """

    def __init__(self, engine: Engine, names: Names, contact: Contact) -> None:
        self._engine = engine
        self._names = names
        self._contact = contact
        self._memory = Memory()

    async def of(self, message: Message) -> Known | None:
        """Return what is known of an id, or None where the message is of none.

        :raises ServiceUnavailable: NATS does not answer.
        """
        kept = self._memory.recall(message.subject, message.sequence, message.attempts)
        if kept is not None:
            return Known(kept.record, kept.track, None)
        try:
            request_id = check_request_id(request_id_of(message.subject))
        except (ValueError, Veo3Error) as error:
            _log.error("what is no request id is taken out of the stream: %s", error)
            return None
        return await self.read(message, request_id)

    async def read(self, message: Message, request_id: str, *, fresh: bool = False) -> Known:
        """Return what NATS has of an id.

        :param fresh: Whether it must be what was written last.
        :raises ServiceUnavailable: NATS does not answer.
        """
        subject = self._names.change_of(request_id)
        found = await self._engine.last(self._names.change, subject, fresh=fresh)
        origin = _origin_in(message)
        if found is None:
            return _known(begun(None, request_id, message.sequence, origin), 0)
        seq, payload = found
        try:
            record = decode(payload, request_id)
        except ValueError as error:
            _log.error(
                "the last record of %s cannot be read, and is passed over: %s", subject, error
            )
            # No serial is higher than a sequence, so listeners see what comes as new.
            record = Record(
                request_id=request_id, watch=message.sequence, serial=seq, origin=origin
            )
            return _known(record, seq)
        self._contact.had_reply = self._contact.had_reply or record.change is not None
        return _known(begun(record, request_id, message.sequence, origin), seq)

    async def write(self, known: Known, written: bytes | None) -> bool:
        """Write a record that has changed; return whether nothing stands in the way of it.

        :param written: What `payload_of` returned.
        :raises ServiceUnavailable: NATS does not answer.
        """
        if written is None:
            return True
        if known.seq is None:
            return False  # what is remembered lacks the texts: the record itself is read first
        subject = self._names.change_of(known.record.request_id)
        return await self._engine.publish(subject, written, expect=known.seq) is not None

    def keep(self, message: Message, record: Record, track: Track) -> None:
        """Remember what is known of an id after a delivery of its message."""
        self._memory.keep(message.subject, message.attempts, record, track)


def payload_of(known: Known, after: Record) -> bytes | None:
    """Return what is to be written of an id, or None where nothing has changed."""
    if not has_changed(known.record, after):
        return None
    if after.serial == known.record.serial and after.change is not None:
        brought_by = known.record.brought_by or known.seq or 0
        after = msgspec.structs.replace(after, brought_by=brought_by)
    return encode(after)


def _known(record: Record, seq: int) -> Known:
    return Known(record, track_of(record), seq)


def _origin_in(message: Message) -> Origin:
    try:
        return decode_origin(message.data)
    except ValueError as error:
        _log.error(
            "what is said of %s cannot be read, and is passed over: %s", message.subject, error
        )
        return Origin()
