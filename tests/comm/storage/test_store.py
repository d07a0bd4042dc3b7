"""The shared memory's authority, its replica and its locks, with values and a clock that the test moves."""

from __future__ import annotations

import math

import msgspec
import pytest

from liteyuki_host.comm.protocol.messages import Change
from liteyuki_host.comm.storage.lock_table import LockTable
from liteyuki_host.comm.storage.mirror import Mirror
from liteyuki_host.comm.storage.outcome import Outcome, Refusal
from liteyuki_host.comm.storage.store import ENTRY_CHARGE, Store
from liteyuki_host.comm.storage.values import Expiring, Packed, pack

enc = msgspec.msgpack.encode
dec = msgspec.msgpack.decode
NIL, TRUE, FALSE = enc(None), enc(True), enc(False)


def shown(view: dict[str, object]) -> dict[str, object]:
    """A view as plain values, Expiring as (value, deadline)."""

    def plain(value: object) -> object:
        if isinstance(value, Expiring):
            return (plain(value.value), value.deadline)
        return dec(value) if isinstance(value, Packed) else value

    return {key: plain(value) for key, value in view.items()}


# --- values in the view ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        False,
        0,
        127,
        128,
        -1,
        -32,
        -33,
        2**63,
        -(2**63),
        2**64 - 1,
        0.5,
        -0.0,
        math.inf,
        "",
        "a" * 31,
        "ü" * 40,
        "x" * 300,
        "x" * 70000,
    ],
    ids=lambda value: f"{value!r:.12}",
)
def test_scalars_are_kept_as_they_are(value: object) -> None:
    kept = pack(enc(value))
    assert kept == value
    assert type(kept) is type(value)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"x" * 300,
        [],
        [1],
        list(range(20)),
        {},
        {"a": 1},
        {str(n): n for n in range(20)},
        msgspec.msgpack.Ext(1, b"x"),
    ],
    ids=lambda value: f"{value!r:.20}",
)
def test_containers_are_kept_encoded(value: object) -> None:
    kept = pack(enc(value))
    assert type(kept) is Packed
    assert kept == enc(value)


@pytest.mark.parametrize("payload", [b"", b"\xc1", b"\xa5ab", b"\x01\x02", b"\xa2\xff\xfe", b"\xcb\x00"], ids=repr)
def test_what_cannot_be_decoded_stays_encoded(payload: bytes) -> None:
    """It used to end the writer's link, or that of whoever asked for it first."""
    store, mirror = Store(), Mirror()
    outcome, changes = store.put("a", payload, 0.0)
    assert outcome == Outcome(None, None, 1)
    assert all(mirror.apply(change, 0.0) for change in changes)
    mirror.own_put(1, "own", payload, None)
    fresh = Mirror()
    fresh.load(store.snapshot(0.0), 1, 0.0)
    for view in (store.view, mirror.view, fresh.view):
        assert (type(view["a"]), view["a"]) == (Packed, payload)
    assert type(mirror.view["own"]) is Packed


NOBODY_READS = [b"", b"\xc1", b"\xa5ab", b"\x81\x81\x01\x02\x03", b"\x91" * 100_000 + b"\x01", b"\x92\xa2\xff\xfe\x01"]


@pytest.mark.parametrize("payload", NOBODY_READS, ids=lambda payload: repr(payload)[:30])
def test_questions_about_what_cannot_be_decoded_are_answered(payload: bytes) -> None:
    """A dict as a key of a dict ended the link of whoever compared or counted with it."""
    store = Store()
    store.put("a", payload, 0.0)
    assert store.increment("a", 1, 0.0) == (Outcome(Refusal.NOT_A_NUMBER, None, 1), [])
    changed = Outcome(Refusal.CHANGED, payload, 1)
    assert store.compare("a", enc({"other": 1}), enc(1), None, 0.0) == (changed, [])
    store.put("b", enc([1]), 0.0)
    assert store.compare("b", payload, enc(1), None, 0.0)[0].error == Refusal.CHANGED
    assert store.compare("a", payload, enc(1), None, 0.0)[0] == Outcome(None, None, 3)
    assert store.view["a"] == 1


# --- the store ------------------------------------------------------------------------------------------------


def test_every_write_is_the_next_step() -> None:
    store = Store()
    assert store.put("a", enc(1), 0.0) == (Outcome(None, None, 1), [Change(1, "a", enc(1), None)])
    assert store.put("b", enc([2]), 0.0) == (Outcome(None, None, 2), [Change(2, "b", enc([2]), None)])
    assert store.put("a", NIL, 0.0) == (Outcome(None, None, 3), [Change(3, "a", NIL, None)])
    assert store.remove("b") == (Outcome(None, TRUE, 4), [Change(4, "b", None)])
    assert store.remove("b") == (Outcome(None, None, 4), [])
    assert (store.revision, store.view) == (4, {"a": None})
    assert (store.revision_of("a"), store.revision_of("b")) == (3, 0)


def test_the_limit_counts_keys_values_and_a_charge_for_each() -> None:
    room = 2 * (ENTRY_CHARGE + 1 + 10)
    store = Store(limit=room)
    value, shorter = enc("x" * 9), enc("x" * 8)
    assert len(value) == 10
    store.put("a", value, 0.0)
    store.put("b", value, 0.0)
    assert store.size == room
    for attempt in (lambda: store.put("c", NIL, 0.0), lambda: store.put("a", enc("x" * 10), 0.0)):
        outcome, changes = attempt()
        assert (outcome.error, changes, store.revision) == (Refusal.FULL, [], 2)
    assert store.increment("n", 1, 0.0) == (Outcome(Refusal.FULL, None, 2), [])
    assert store.compare("n", None, NIL, None, 0.0) == (Outcome(Refusal.FULL, None, 2), [])
    assert store.put("a", shorter, 0.0)[0].error is None
    assert store.size == room - 1
    store.remove("b")
    assert store.put("b", value, 0.0)[0].error is None
    store.remove("a")
    store.remove("b")
    assert store.size == 0


def test_a_store_over_its_limit_can_still_shrink() -> None:
    store = Store(limit=1000)
    store.put("a", enc("x" * 700), 0.0)
    store.limit = 100
    assert store.put("a", enc("x" * 701), 0.0)[0].error == Refusal.FULL
    assert store.put("a", enc("x" * 600), 0.0)[0].error is None
    assert store.put("a", enc("y" * 600), 0.0)[0].error is None


@pytest.mark.parametrize(
    ("old", "by", "new"),
    [
        (None, 1, 1),
        (None, 0.5, 0.5),
        (5, -7, -2),
        (5, 0.25, 5.25),
        (0.5, 1, 1.5),
        (2**63 - 1, 1, 2**63),
        (2**64 - 2, 1, 2**64 - 1),
        (-(2**63) + 1, -1, -(2**63)),
        (2**64 - 1, 1.0, 2.0**64),
    ],
)
def test_increment_adds(old: float | None, by: float, new: float) -> None:
    store = Store()
    if old is not None:
        store.put("n", enc(old), 0.0)
    revision = store.revision + 1
    outcome, changes = store.increment("n", by, 0.0)
    assert outcome == Outcome(None, enc(new), revision)
    assert changes == [Change(revision, "n", enc(new), None)]
    assert store.view["n"] == new
    assert type(store.view["n"]) is type(new)


@pytest.mark.parametrize("old", [True, False, None, "5", b"5", [5], {"a": 5}, 2**64 - 1], ids=repr)
def test_increment_of_what_is_no_number_or_of_more_than_64_bits_is_refused(old: object) -> None:
    store = Store()
    store.put("n", enc(old), 0.0)
    assert store.increment("n", 1, 0.0) == (Outcome(Refusal.NOT_A_NUMBER, None, 1), [])
    assert shown(store.view) == {"n": old}


def test_decrement_below_64_bits_is_refused() -> None:
    store = Store()
    store.put("n", enc(-(2**63)), 0.0)
    assert store.increment("n", -1, 0.0)[0].error == Refusal.NOT_A_NUMBER


def test_nan_spreads_like_anywhere_else() -> None:
    store = Store()
    store.put("n", enc(math.nan), 0.0)
    outcome, _ = store.increment("n", 1, 0.0)
    assert outcome.error is None
    assert outcome.value is not None
    assert math.isnan(dec(outcome.value))


@pytest.mark.parametrize(
    ("held", "expected", "same"),
    [
        (enc(1), enc(1), True),
        (enc(1), enc(2), False),
        (enc(1), enc(1.0), True),
        (enc([1, {"a": 2, "b": 3}]), enc([1, {"b": 3, "a": 2}]), True),
        (enc("1"), enc(1), False),
        (enc(math.nan), enc(math.nan), True),  # the same bytes
        (NIL, None, False),  # None asks for a missing key, and this one holds None
        (None, None, True),
        (None, enc(1), False),
    ],
)
def test_compare_writes_only_over_what_was_expected(held: bytes | None, expected: bytes | None, same: bool) -> None:
    store = Store()
    if held is not None:
        store.put("k", held, 0.0)
    before = store.revision
    outcome, changes = store.compare("k", expected, enc("new"), None, 0.0)
    if same:
        assert outcome == Outcome(None, None, before + 1)
        assert changes == [Change(before + 1, "k", enc("new"), None)]
    else:
        assert outcome == Outcome(Refusal.CHANGED, held, before)
        assert changes == []


def test_compare_by_revision() -> None:
    store = Store()
    assert store.compare("k", None, enc(1), 0, 0.0)[0] == Outcome(None, None, 1)
    store.put("other", NIL, 0.0)
    assert store.compare("k", None, enc(2), 2, 0.0)[0] == Outcome(Refusal.CHANGED, enc(1), 1)
    assert store.compare("k", None, enc(2), -1, 0.0)[0] == Outcome(Refusal.CHANGED, enc(1), 1)
    assert store.compare("k", None, enc(2), 1, 0.0)[0] == Outcome(None, None, 3)
    assert store.compare("k", None, None, 3, 0.0) == (Outcome(None, TRUE, 4), [Change(4, "k", None)])
    assert store.compare("k", None, enc(2), 3, 0.0)[0] == Outcome(Refusal.CHANGED, None, 0)
    assert store.compare("k", None, None, 0, 0.0) == (Outcome(None, None, 4), [])


def test_a_ttl_ends_and_until_then_is_told_as_what_is_left() -> None:
    store = Store()
    store.put("a", enc(1), 100.0, ttl=10.0)
    store.put("b", enc(2), 100.0, ttl=20.0)
    store.put("c", enc(3), 100.0)
    assert shown(store.view) == {"a": (1, 110.0), "b": (2, 120.0), "c": 3}
    assert store.next_deadline() == 110.0
    assert store.expire(109.9) == []
    assert list(store.snapshot(104.0)) == [("a", enc(1), 1, 6.0), ("b", enc(2), 2, 16.0), ("c", enc(3), 3, None)]
    assert store.expire(110.0) == [Change(4, "a", None)]
    assert store.next_deadline() == 120.0
    assert store.put("b", enc(4), 115.0)[1] == [Change(5, "b", enc(4), None)]
    assert store.next_deadline() is None
    assert store.expire(1000.0) == []
    assert shown(store.view) == {"b": 4, "c": 3}


def test_what_has_outlived_its_ttl_counts_as_missing_before_it_is_deleted() -> None:
    store = Store()
    store.put("n", enc(5), 0.0, ttl=1.0)
    assert store.increment("n", 1, 0.5)[0].value == enc(6)
    assert store.next_deadline() == 1.0
    assert store.compare("n", enc(6), enc(7), None, 1.0)[0] == Outcome(Refusal.CHANGED, None, 0)
    assert store.increment("n", 1, 1.0)[0].value == enc(1)
    assert store.next_deadline() is None


def test_an_increment_keeps_the_end_that_was_set() -> None:
    store = Store()
    store.put("n", enc(5), 10.0, ttl=10.0)
    assert store.increment("n", 1, 14.0)[1] == [Change(2, "n", enc(6), 6.0)]
    assert store.expire(20.0) == [Change(3, "n", None)]


def test_ephemeral_keys_go_with_their_owner_unless_somebody_else_wrote_them_since() -> None:
    store = Store()
    for key in "abcd":
        store.put(key, enc(1), 0.0, owner="bot#1")
    store.put("e", enc(1), 0.0, owner="bot#2")
    store.put("b", enc(2), 0.0)
    store.increment("c", 1, 0.0)
    store.compare("d", enc(1), enc(3), None, 0.0)
    revision = store.revision
    assert store.owner_died("bot#1") == [Change(revision + n, key, None) for n, key in enumerate("acd", 1)]
    assert shown(store.view) == {"b": 2, "e": 1}
    assert store.owner_died("bot#1") == []


# --- the mirror -----------------------------------------------------------------------------------------------


def test_a_gap_is_reported_and_changes_nothing() -> None:
    mirror = Mirror()
    assert mirror.apply(Change(1, "a", enc(1)), 0.0)
    assert not mirror.apply(Change(3, "a", enc(3)), 0.0)
    assert (mirror.revision, mirror.view, mirror.revision_of("a")) == (1, {"a": 1}, 1)


def test_a_change_seen_twice_is_harmless() -> None:
    mirror = Mirror()
    mirror.apply(Change(1, "a", enc(1)), 0.0)
    mirror.apply(Change(2, "a", enc(2)), 0.0)
    assert mirror.apply(Change(1, "a", enc(1)), 0.0)
    assert (mirror.revision, mirror.view) == (2, {"a": 2})


def test_an_own_write_is_shown_at_once_and_stays_until_it_is_ordered() -> None:
    mirror = Mirror()
    mirror.apply(Change(1, "a", enc("old")), 0.0)
    mirror.own_put(7, "a", enc("mine"), None)
    assert mirror.view == {"a": "mine"}
    assert mirror.is_pending("a")
    mirror.apply(Change(2, "a", enc("theirs")), 0.0)  # ordered before mine
    assert mirror.view == {"a": "mine"}
    mirror.apply(Change(3, "a", enc("mine")), 0.0)
    mirror.apply(Change(4, "a", enc("theirs again")), 0.0)  # ordered after mine
    assert mirror.view == {"a": "mine"}
    mirror.done(7, "a")
    assert mirror.view == {"a": "theirs again"}
    assert not mirror.is_pending("a")
    assert mirror.revision_of("a") == 4


def test_an_own_write_that_is_a_step_of_the_order_comes_without_its_value() -> None:
    mirror = Mirror()
    mirror.own_put(1, "a", enc("first"), None)
    mirror.own_put(2, "a", enc("second"), None)
    mirror.own_remove(3, "b")
    assert not mirror.own_ordered(2, [("a", enc("second"), None, None)], 2, 0.0), "the first one is missing"
    assert mirror.revision == 0
    assert mirror.own_ordered(1, [("a", enc("first"), None, None)], 1, 0.0)
    assert (mirror.view, mirror.revision, mirror.is_pending("a")) == ({"a": "second"}, 1, True)
    mirror.apply(Change(2, "a", enc("theirs")), 0.0)  # between the two
    assert mirror.own_ordered(2, [("a", enc("second"), None, None), ("b", None, None, None)], 3, 0.0)
    assert (mirror.view, mirror.revision_of("a"), mirror.is_pending("a")) == ({"a": "second"}, 3, False)
    assert (mirror.revision, mirror.revision_of("b"), mirror.is_pending("b")) == (4, 0, False)


def test_own_writes_of_which_a_snapshot_has_brought_the_first() -> None:
    mirror = Mirror()
    for number, value in enumerate((1, 2, 3), 1):
        mirror.own_put(number, "ab"[number > 1], enc(value), None)
    mirror.load([("a", enc(1), 1, None), ("b", enc(2), 2, None)], 2, 0.0)
    writes = [("a", enc(1), None, None), ("b", enc(2), None, None), ("b", enc(3), None, None)]
    assert mirror.own_ordered(1, writes, 1, 0.0)
    assert (mirror.view, mirror.revision, mirror.revision_of("b")) == ({"a": 1, "b": 3}, 3, 3)
    assert [mirror.is_pending(key) for key in "ab"] == [False, False]


def test_own_writes_that_a_snapshot_has_brought_change_nothing() -> None:
    mirror = Mirror()
    mirror.own_put(1, "a", enc(1), None)
    mirror.own_put(2, "a", enc(2), None)
    mirror.load([("a", enc("theirs, after mine"), 3, None)], 3, 0.0)
    assert mirror.view == {"a": 2}
    assert mirror.own_ordered(1, [("a", enc(1), None, None), ("a", enc(2), None, None)], 1, 0.0)
    assert (mirror.view, mirror.revision, mirror.revision_of("a")) == ({"a": "theirs, after mine"}, 3, 3)


def test_a_refused_own_write_gives_back_the_own_one_before_it() -> None:
    mirror = Mirror()
    mirror.own_put(1, "a", enc("taken"), None)
    mirror.own_put(2, "a", enc("refused"), None)
    assert mirror.own_ordered(1, [("a", enc("taken"), None, None)], 1, 0.0)
    mirror.done(2, "a")
    assert mirror.view == {"a": "taken"}


def test_the_end_of_an_own_write_counts_from_its_place_in_the_order() -> None:
    mirror = Mirror()
    mirror.own_put(1, "a", enc(1), 10.0)
    mirror.own_put(2, "b", enc(2), 11.0)
    mirror.own_put(3, "b", enc(3), None)
    assert mirror.own_ordered(1, [("a", enc(1), 10.0, None), ("b", enc(2), 10.0, None)], 1, 2.0)
    assert mirror.view["a"].deadline == 12.0  # type: ignore[attr-defined]
    assert mirror.view["b"] == 3
    mirror.done(3, "b")  # it was refused
    assert mirror.view["b"].deadline == 12.0  # type: ignore[attr-defined]


def test_only_the_newest_own_write_decides_when_to_show_the_hosts_order() -> None:
    mirror = Mirror()
    mirror.own_put(1, "a", enc(1), None)
    mirror.own_put(2, "a", enc(2), None)
    mirror.apply(Change(1, "a", enc(1)), 0.0)
    mirror.done(1, "a")
    assert mirror.view == {"a": 2}
    mirror.apply(Change(2, "a", enc(2)), 0.0)
    mirror.done(2, "a")
    assert mirror.view == {"a": 2}


@pytest.mark.parametrize("value", [None, 5, [1, 2], {"a": 1}, "text", b"bytes"], ids=repr)
def test_a_refused_write_is_undone(value: object) -> None:
    mirror = Mirror()
    mirror.apply(Change(1, "a", enc(value)), 0.0)
    mirror.own_put(1, "a", enc("mine"), None)
    mirror.own_put(2, "new", enc("mine"), None)
    mirror.own_remove(3, "a")
    assert shown(mirror.view) == {"new": "mine"}
    mirror.done(2, "new")
    mirror.done(1, "a")
    mirror.done(3, "a")
    assert shown(mirror.view) == {"a": value}


def test_a_refused_write_over_an_expiring_value_gives_it_back_with_its_end() -> None:
    mirror = Mirror()
    mirror.apply(Change(1, "a", enc([1]), 5.0), 100.0)
    mirror.own_put(1, "a", enc("mine"), 300.0)
    assert shown(mirror.view) == {"a": ("mine", 300.0)}
    mirror.done(1, "a")
    assert shown(mirror.view) == {"a": ([1], 105.0)}


def test_an_own_removal_is_shown_at_once() -> None:
    mirror = Mirror()
    mirror.apply(Change(1, "a", enc(1)), 0.0)
    mirror.own_remove(1, "a")
    mirror.own_remove(2, "missing")
    assert mirror.view == {}
    mirror.apply(Change(2, "a", enc(2)), 0.0)
    assert mirror.view == {}
    mirror.apply(Change(3, "a", None), 0.0)
    mirror.done(1, "a")
    mirror.done(2, "missing")
    assert (mirror.view, mirror.revision_of("a")) == ({}, 0)


def test_a_snapshot_replaces_everything_but_own_writes_under_way() -> None:
    view: dict[str, object] = {}
    mirror = Mirror(view)
    for revision, key in enumerate("abc", 1):
        mirror.apply(Change(revision, key, enc(key)), 0.0)
    mirror.own_put(1, "b", enc("mine"), None)
    mirror.own_remove(2, "c")
    mirror.load([("b", enc("B"), 9, None), ("c", enc("C"), 8, None), ("d", enc("D"), 7, 2.0)], 10, 50.0)
    assert shown(view) == {"b": "mine", "d": ("D", 52.0)}
    assert (mirror.revision, mirror.revision_of("d"), mirror.revision_of("a")) == (10, 7, 0)
    assert mirror.view is view
    mirror.done(1, "b")
    mirror.done(2, "c")
    assert shown(view) == {"b": "B", "c": "C", "d": ("D", 52.0)}


def test_an_answer_to_something_else_changes_nothing() -> None:
    mirror = Mirror()
    mirror.own_put(1, "a", enc(1), None)
    mirror.done(2, "a")
    mirror.done(1, "b")
    assert mirror.is_pending("a")
    assert mirror.view == {"a": 1}


# --- locks ----------------------------------------------------------------------------------------------------


def test_a_lock_is_first_come_first_served() -> None:
    locks = LockTable()
    assert locks.acquire("k", "a", 1)
    assert not locks.acquire("k", "b", 1)
    assert not locks.acquire("k", "a", 2)
    assert locks.acquire("other", "b", 2)
    assert locks.held() == {"k": "a", "other": "b"}
    assert locks.release("k", "a", 1) == (True, ("b", 1))
    assert locks.release("k", "b", 1) == (True, ("a", 2))
    assert locks.release("k", "a", 2) == (True, None)
    assert locks.granted == 4
    assert locks.held() == {"other": "b"}


def test_who_stops_waiting_moves_nobody() -> None:
    locks = LockTable()
    locks.acquire("k", "a", 1)
    locks.acquire("k", "b", 1)
    locks.acquire("k", "c", 1)
    assert locks.release("k", "b", 1) == (True, None)
    assert locks.release("k", "a", 1) == (True, ("c", 1))


@pytest.mark.parametrize(("key", "owner", "request_id"), [("k", "b", 1), ("k", "a", 2), ("other", "a", 1)])
def test_what_is_not_held_is_not_released(key: str, owner: str, request_id: int) -> None:
    locks = LockTable()
    locks.acquire("k", "a", 1)
    assert locks.release(key, owner, request_id) == (False, None)
    assert locks.held() == {"k": "a"}


def test_the_dead_hold_and_wait_for_nothing() -> None:
    locks = LockTable()
    for key, owners in {"1": "ab", "2": "ba", "3": "aa", "4": "aab", "5": "b"}.items():
        for number, owner in enumerate(owners):
            locks.acquire(key, owner, number)
    before = locks.granted
    assert locks.owner_died("a") == [("1", ("b", 1)), ("4", ("b", 2))]
    assert locks.granted == before + 2
    assert locks.held() == {"1": "b", "2": "b", "4": "b", "5": "b"}
    assert locks.owner_died("a") == []


def test_writing_a_key_with_a_ttl_again_and_again_keeps_no_old_deadlines() -> None:
    store = Store()
    for number in range(10_000):
        store.put("key", b"\x01", float(number), ttl=100.0)
    assert len(store._deadlines) < 100
    assert store.next_deadline() == 10_099.0
    assert store.expire(10_098.0) == []
    assert [change.key for change in store.expire(10_099.0)] == ["key"]
    assert store.next_deadline() is None
