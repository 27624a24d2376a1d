"""The agenda: who is due."""

from __future__ import annotations

import gc
import math
import random
import weakref
from typing import Any, Final

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from veo3_async._polling.agenda import Agenda, Entry


class Load:
    """What is freed with its entry."""


class Id(Entry, kw_only=True):
    """An entry with a name."""

    name: int
    load: Load | None = None


def taken(agenda: Agenda[Id]) -> list[int]:
    """Take out everything, and return the names in that order."""
    return [agenda.take()[1].name for _ in range(len(agenda))]


def test_an_empty_agenda() -> None:
    """Nothing is due, nothing can be taken, and it says so."""
    agenda = Agenda[Id]()
    assert (len(agenda), agenda.next_due(), repr(agenda)) == (0, None, "<Agenda: 0 entries>")
    with pytest.raises(IndexError):
        agenda.take()


def test_fault_41_the_longest_overdue_goes_first() -> None:
    """Whatever the order they came in."""
    agenda = Agenda[Id]()
    for name in random.Random(0).sample(range(1000), 1000):
        agenda.put(Id(name=name), float(name))
    assert agenda.next_due() == 0
    assert taken(agenda) == list(range(1000))


def test_fault_41_equal_moments_go_in_the_order_they_came() -> None:
    """A crowd that is due at once is a queue."""
    agenda = Agenda[Id]()
    for name in range(1000):
        agenda.put(Id(name=name), 0.0)
    assert taken(agenda) == list(range(1000))


def test_fault_41_no_id_starves_while_thousands_are_due() -> None:
    """Each of a crowd that is always overdue gets its turn once before any gets its second."""
    agenda, now = Agenda[Id](), 0.0
    for name in range(5000):
        agenda.put(Id(name=name), now)
    for _ in range(3):
        turns = []
        for _ in range(5000):
            now += 1.0
            _, entry = agenda.take()
            turns.append(entry.name)
            agenda.put(entry, now + 10)
        assert sorted(turns) == list(range(5000))


def test_an_entry_that_is_put_again_is_in_once() -> None:
    """The new moment counts, earlier or later."""
    agenda, first, second = Agenda[Id](), Id(name=1), Id(name=2)
    agenda.put(first, 1.0)
    agenda.put(second, 2.0)
    agenda.put(first, 3.0)
    assert (len(agenda), agenda.next_due()) == (2, 2.0)
    agenda.put(first, 0.5)
    assert taken(agenda) == [1, 2]


def test_dropping_what_is_not_in_does_nothing() -> None:
    """Never put, taken, or dropped before."""
    agenda, entry = Agenda[Id](), Id(name=1)
    agenda.drop(entry)
    agenda.put(entry, 1.0)
    agenda.take()
    agenda.drop(entry)
    agenda.put(entry, 1.0)
    agenda.drop(entry)
    agenda.drop(entry)
    assert (len(agenda), entry.due) == (0, None)
    with pytest.raises(IndexError):
        agenda.take()


def test_clearing_lets_every_entry_go() -> None:
    """They have no place any more, and can be put anew."""
    agenda = Agenda[Id]()
    entries = [Id(name=name) for name in range(100)]
    for entry in entries:
        agenda.put(entry, 1.0)
    agenda.drop(entries[3])
    agenda.clear()
    assert (len(agenda), agenda.next_due(), {e.due for e in entries}) == (0, None, {None})
    agenda.put(entries[0], 1.0)
    assert taken(agenda) == [0]


@pytest.mark.parametrize("kept", [0, 10, 1000])
def test_the_memory_of_dropped_entries_is_freed(kept: int) -> None:
    """At most as many are held that have left as are there, and a few, of the same moment too."""
    agenda = Agenda[Id]()
    live = [Id(name=name) for name in range(kept)]
    for entry in live:
        agenda.put(entry, 1.0)
    dropped = weakref.WeakSet[Load]()
    for name in range(5000):
        entry = Id(name=name, load=Load())
        dropped.add(entry.load or Load())
        agenda.put(entry, 1.0)
        agenda.drop(entry)
    del entry
    gc.collect()
    assert len(dropped) <= kept + 65
    assert len(agenda) == kept


def test_putting_one_entry_again_and_again_takes_no_memory() -> None:
    """Each new plan leaves a moment that is over, and they are swept out."""
    agenda, entry = Agenda[Id](), Id(name=1)
    for moment in range(10_000):
        agenda.put(entry, float(moment))
    (heap,) = [held for held in gc.get_referents(agenda) if isinstance(held, list)]
    assert len(heap) <= 2 * 65
    assert agenda.take() == (9999.0, entry)


def test_many_that_are_due_together_take_a_few_bytes_each_and_nothing_to_walk() -> None:
    """They share their moment, and the garbage collector has no object for each."""
    agenda, entries = Agenda[Id](), [Id(name=name) for name in range(10_000)]
    before = len(gc.get_objects())
    for entry in entries:
        agenda.put(entry, float(entry.name % 100))
    assert len(gc.get_objects()) - before < 200
    assert len({id(entry.due) for entry in entries}) == 100


class Counted(float):
    """A moment that counts how often moments are compared."""

    compared: int = 0

    def __lt__(self, other: object) -> bool:
        Counted.compared += 1
        return float(self) < float(other)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [1000, 30_000])
def test_no_operation_looks_at_all_entries(size: int) -> None:
    """Adding, taking, planning anew and dropping are O(log n), sweeping included."""
    agenda, rng = Agenda[Id](), random.Random(0)
    entries = [Id(name=name) for name in range(size)]
    Counted.compared = 0
    for entry in entries:
        agenda.put(entry, Counted(rng.random()))
    for entry in rng.sample(entries, size):
        agenda.put(entry, Counted(rng.random()))
    for entry in rng.sample(entries, size // 2):
        agenda.drop(entry)
    operations = size * 2 + size // 2 + len(agenda)
    taken(agenda)
    assert Counted.compared <= 2 * operations * math.log2(size)


class Model(RuleBasedStateMachine):
    """An agenda beside a plain list that is sorted whenever it is looked at."""

    entries: Any = Bundle("entries")

    def __init__(self) -> None:
        super().__init__()
        self.agenda = Agenda[Id]()
        self.plan: list[tuple[float, int, Id]] = []
        self.count = 0

    def forget(self, entry: Id) -> None:
        self.plan = [planned for planned in self.plan if planned[2] is not entry]

    @rule(target=entries)
    def make(self) -> Id:
        self.count += 1
        return Id(name=self.count)

    @rule(entry=entries, due=st.integers(0, 5).map(float) | st.floats(-1e9, 1e9))
    def put(self, entry: Id, due: float) -> None:
        self.count += 1
        self.forget(entry)
        self.plan.append((due, self.count, entry))
        self.agenda.put(entry, due)

    @rule(due=st.integers(0, 3).map(float), count=st.integers(1, 100))
    def put_and_drop_a_crowd(self, due: float, count: int) -> None:
        crowd = [Id(name=-1) for _ in range(count)]
        for entry in crowd:
            self.agenda.put(entry, due)
        for entry in crowd:
            self.agenda.drop(entry)

    @rule(entry=entries)
    def drop(self, entry: Id) -> None:
        self.forget(entry)
        self.agenda.drop(entry)

    @rule()
    def take(self) -> None:
        if not self.plan:
            with pytest.raises(IndexError):
                self.agenda.take()
            return
        due, _, entry = first = min(self.plan, key=lambda planned: planned[:2])
        self.plan.remove(first)
        found = self.agenda.take()
        assert found[0] == due
        assert found[1] is entry

    @rule()
    def clear(self) -> None:
        self.plan.clear()
        self.agenda.clear()

    @rule()
    def look(self) -> None:
        assert self.agenda.next_due() == min((due for due, _, _ in self.plan), default=None)

    @invariant()
    def as_many(self) -> None:
        assert len(self.agenda) == len(self.plan)
        assert all(entry.due == due for due, _, entry in self.plan)


Model.TestCase.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
TestModel: Final = Model.TestCase
