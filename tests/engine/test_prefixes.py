"""Kept prefixes: what is restored is what was computed, budgets hold, and nothing stale or damaged is found."""

from __future__ import annotations

import logging
import os
import sys
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_assistant.config import EngineSettings
from edge_assistant.engine import Engine, Keep, SamplingParams
from edge_assistant.engine.cut import find_cut
from edge_assistant.engine.kv_cache import KvCache
from edge_assistant.engine.prefix_files import PrefixFiles
from edge_assistant.engine.prefixes import SHORTEST, RadixTree

SETTINGS = EngineSettings(threads=1, prefill_chunk=16, sequences=1)
GREEDY = SamplingParams(max_tokens=20)
RNG = np.random.default_rng(4)
SYSTEM = RNG.integers(14, 270, 50).tolist()
QUESTIONS = [RNG.integers(14, 270, 20).tolist() for _ in range(4)]
SHAPE = (2, 2, 1, 4)
"""Layers, keys and values, heads, and the size of a head in rows that are made up."""

TOKEN_BYTES = 4 * int(np.prod(SHAPE))

prefixes = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), min_size=1, max_size=20)


def rows_of(tokens, start=0, end=None):
    """Return rows that say which tokens came before: two prefixes that differ have other rows."""
    rows = np.zeros((*SHAPE[:3], len(tokens), SHAPE[3]), np.float32)
    for at in range(len(tokens)):
        rows[..., at, :] = hash(tuple(map(int, tokens[: at + 1]))) % 10_007
    return rows[..., start:end, :].copy()


def shared(one, other):
    """Return how many tokens two prefixes have in common."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (first, second) in pairs if first != second), min(len(one), len(other)))


def insert(tree, tokens):
    array = np.array(tokens, np.int64)
    tree.insert(array, TOKEN_BYTES, lambda start, end: rows_of(array, start, end))


def found(tree, tokens):
    pieces = list(tree.find(np.array(tokens, np.int64)))
    return np.concatenate(pieces, axis=-2) if pieces else rows_of([])


@given(prefixes)
def test_a_tree_finds_the_longest_prefix_that_it_holds(texts):
    tree = RadixTree(1 << 20)
    for number, text in enumerate(texts, 1):
        insert(tree, text)
        for asked in texts:
            rows = found(tree, asked)
            assert rows.shape[-2] == max(shared(held, asked) for held in texts[:number])
            np.testing.assert_array_equal(rows, rows_of(asked, 0, rows.shape[-2]))


@given(prefixes, st.integers(0, 1500))
def test_a_tree_stays_in_its_budget_and_gives_what_is_true(texts, budget):
    tree = RadixTree(budget)
    for text in texts:
        insert(tree, text)
        assert tree.bytes <= budget
        rows = found(tree, text)
        np.testing.assert_array_equal(rows, rows_of(text, 0, rows.shape[-2]))


def test_what_was_not_used_for_longest_goes_first():
    one = rows_of([0] * 10).nbytes
    tree = RadixTree(3 * one)
    for first in (1, 2, 3):
        insert(tree, [first] * 10)
    found(tree, [1] * 10)
    insert(tree, [4] * 10)
    assert [found(tree, [first] * 10).shape[-2] for first in (1, 2, 3, 4)] == [10, 0, 10, 10]


def test_owners_share_a_budget_and_nothing_else():
    one = rows_of([0] * 10).nbytes
    tree, tokens = RadixTree(2 * one), np.full(10, 7, np.int64)
    for number, owner in enumerate(("", "first", "second")):
        assert not list(tree.find(tokens, owner))
        tree.insert(tokens, TOKEN_BYTES, lambda start, end, number=number: rows_of([number] * 10, start, end), owner)
        assert tree.bytes <= 2 * one
    assert not list(tree.find(tokens))
    for number, owner in ((1, "first"), (2, "second")):
        np.testing.assert_array_equal(np.concatenate(list(tree.find(tokens, owner))), rows_of([number] * 10))


words = st.lists(st.integers(0, 9), max_size=8)
marked = st.lists(st.tuples(words, st.booleans()), min_size=1, max_size=12)


@given(marked, words)
def test_a_tree_finds_the_best_cut_of_what_comes_again(texts, asked):
    """Words are eight tokens: fewer are no match."""
    tree, wanted, best = RadixTree(1 << 20), spelt(asked), 0
    for text, comes_again in texts:
        tokens = spelt(text)
        rows = partial(rows_of, tokens)
        tree.insert(tokens, TOKEN_BYTES, rows, comes_again=comes_again)
        cut = find_cut(tokens, wanted) if comes_again else None
        best = max(best, cut.start + cut.kept if cut else 0)
        found = tree.find_cut(wanted)
        assert (found[1].start + found[1].kept if found else 0) == best
        if found:
            held, cut = found
            left = np.delete(held[: cut.end + cut.kept], np.s_[cut.start : cut.end])
            np.testing.assert_array_equal(left, wanted[: len(left)])
            assert sum(rows.shape[-2] for rows in tree.find(held)) == len(held)


def spelt(text):
    return np.array([8 * word + letter for word in text for letter in range(8)], np.int64)


@pytest.mark.parametrize(
    "recipe", [{"bits": 32}, {"bits": 4}, {"bits": 32, "cache": "int8"}, {"shape": {"sliding_window": 100}}]
)
def test_a_prefix_that_another_prompt_left_answers_as_a_prefill(tiny_bundle, recipe):
    bundle = tiny_bundle(**recipe)
    with Engine.load(bundle, EngineSettings(threads=1, prefix_bytes=0)) as engine:
        expected = [list(engine.generate([*SYSTEM, *question], GREEDY)) for question in QUESTIONS]
    with Engine.load(bundle, SETTINGS) as engine:
        cached = []
        for question, answer in zip(QUESTIONS, expected, strict=True):
            list(engine.generate(QUESTIONS[0] * 2, GREEDY))  # nothing of the prefix stays in the cache
            generation = engine.generate([*SYSTEM, *question], GREEDY, keep=Keep(len(SYSTEM)))
            assert list(generation) == answer
            cached.append(generation.usage.cached_tokens)
    assert cached == [0, *[len(SYSTEM)] * 3]


def test_turns_of_two_conversations_do_not_drive_each_other_out(tiny_bundle):
    with Engine.load(tiny_bundle(), SETTINGS) as engine:
        turns = {name: [*SYSTEM, *QUESTIONS[name]] for name in (0, 1)}
        for _ in range(3):
            for name, prompt in turns.items():
                generation = engine.generate([*prompt, 77], GREEDY, keep=Keep(len(prompt)))
                answer = list(generation)
                turns[name] = [*prompt, *answer]
        generation = engine.generate([*turns[0], 77], GREEDY)
        list(generation)
    assert generation.usage.cached_tokens >= len(SYSTEM) + len(QUESTIONS[0]) + 40


def test_a_short_beginning_is_not_worth_a_copy(tiny_bundle):
    with Engine.load(tiny_bundle(), SETTINGS) as engine:
        for _ in range(2):
            list(engine.generate(QUESTIONS[0], GREEDY))
            generation = engine.generate([*SYSTEM, 5], GREEDY, keep=Keep(SHORTEST - 1))
            list(generation)
        assert generation.usage.cached_tokens == 0


def asked_after_a_restart(bundle, folder, settings=SETTINGS, prompt=(*SYSTEM, *QUESTIONS[0])):
    with Engine.load(bundle, settings, folder) as engine:
        generation = engine.generate(prompt, GREEDY, keep=Keep(len(SYSTEM), lasting=True))
        return list(generation), generation.usage.cached_tokens


def test_the_first_answer_after_a_restart_reads_no_prefix_anew(tiny_bundle, tmp_path):
    first, again = (asked_after_a_restart(tiny_bundle(bits=4), tmp_path) for _ in range(2))
    assert (first[1], again[1]) == (0, len(SYSTEM))
    assert first[0] == again[0]
    other, _ = asked_after_a_restart(tiny_bundle(bits=4), tmp_path, prompt=(*SYSTEM, *QUESTIONS[1]))
    assert other == asked_after_a_restart(tiny_bundle(bits=4), None, prompt=(*SYSTEM, *QUESTIONS[1]))[0]


def test_what_was_used_last_is_in_the_cache_before_the_first_prompt(tiny_bundle, tmp_path, monkeypatch):
    """The first answer after a restart then waits for no copy, unless it begins otherwise."""
    bundle, systems = tiny_bundle(), (SYSTEM, SYSTEM[::-1])
    for system in systems:
        with Engine.load(bundle, SETTINGS, tmp_path) as engine:
            list(engine.generate([*system, *QUESTIONS[0]], GREEDY, keep=Keep(len(system), lasting=True)))
    puts, put = [], KvCache.put
    monkeypatch.setattr(KvCache, "put", lambda self, ids, rows: puts.append(len(ids)) or put(self, ids, rows))
    for asked, copies in ((0, 2), (1, 2), (1, 1), (0, 2), (0, 1)):
        puts.clear()
        with Engine.load(bundle, SETTINGS, tmp_path) as engine:
            assert puts == [len(SYSTEM)]
            generation = engine.generate([*systems[asked], *QUESTIONS[1]], GREEDY)
            list(generation)
        assert (len(puts), generation.usage.cached_tokens) == (copies, len(SYSTEM))


def test_another_bundle_finds_nothing(tiny_bundle, tmp_path):
    for recipe in ({"bits": 32}, {"bits": 8}, {"bits": 32, "cache": "int8"}, {"shape": {"rope_theta": 20000.0}}):
        assert asked_after_a_restart(tiny_bundle(**recipe), tmp_path)[1] == 0
    assert len(list(tmp_path.glob("*/*.prefix"))) == 4


def test_a_file_of_another_bundle_is_none_of_this_one_s(tiny_bundle, tmp_path, caplog):
    """Somebody moved it: rows of one type and shape may be of other weights."""
    one, other = tiny_bundle(), tiny_bundle({"rope_theta": 20000.0})
    asked_after_a_restart(one, tmp_path)
    (path,) = tmp_path.glob("*/*.prefix")
    expected, _ = asked_after_a_restart(other, tmp_path)
    (folder,) = {file.parent for file in tmp_path.glob("*/*.prefix")} - {path.parent}
    path.replace(folder / path.name)
    caplog.clear()
    assert asked_after_a_restart(other, tmp_path) == (expected, 0)
    assert "its hash is not the one in its header" in caplog.text


@pytest.mark.parametrize(
    ("said", "instead"),
    [(b'"float32"', b'"uint32"'), (b'"float32"', b'">f4"'), (b"[2, 2, 2, 50, 16]", b"[4, 2, 2, 50, 8]")],
    ids=str,
)
def test_a_header_that_describes_other_rows_of_the_same_size_is_a_damage(tiny_bundle, tmp_path, said, instead, caplog):
    """No number of such rows would be right, and the bytes are those that were written."""
    expected, _ = asked_after_a_restart(tiny_bundle(), tmp_path)
    (path,) = tmp_path.glob("*/*.prefix")
    whole = path.read_bytes()
    end = 16 + int.from_bytes(whole[8:16], "little")
    header = whole[16:end].replace(said, instead)
    assert header != whole[16:end]
    path.write_bytes(whole[:8] + len(header).to_bytes(8, "little") + header + whole[end:])
    assert asked_after_a_restart(tiny_bundle(), tmp_path) == (expected, 0)
    assert path.name in caplog.text


def test_what_does_not_last_is_not_on_disk(tiny_bundle, tmp_path):
    with Engine.load(tiny_bundle(), SETTINGS, tmp_path) as engine:
        list(engine.generate([*SYSTEM, 5], GREEDY, keep=Keep(len(SYSTEM))))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "header",
    [
        b"[" * 2000,
        b'{"version": 2, "type": "O", "shape": [1, 2, 1, 1, 1], "sha256": ""}',
        b'{"version": 2, "type": "float32", "shape": [], "sha256": ""}',
        b'{"version": 2, "type": "float32", "shape": [1, 2, 1, "one", 1], "sha256": ""}',
        b'{"version": 2, "type": "float32", "shape": [1, 2, 1, -1, 1], "sha256": ""}',
        b'{"version": 2, "type": "no type", "shape": [1, 2, 1, 1, 1], "sha256": ""}',
    ],
)
def test_a_header_that_describes_no_rows_is_a_damage(tmp_path, header, caplog):
    path = tmp_path / "fingerprint" / "x.prefix"
    path.parent.mkdir()
    path.write_bytes(b"EAPREFIX" + len(header).to_bytes(8, "little") + header + bytes(16))
    assert PrefixFiles(tmp_path, "fingerprint", 1000).latest() is None
    assert "it has no header" in caplog.text
    assert not path.exists()


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "header"])
def test_a_damaged_file_is_dropped_with_a_warning_and_computed_anew(tiny_bundle, tmp_path, damage, caplog):
    expected, _ = asked_after_a_restart(tiny_bundle(), tmp_path)
    (path,) = tmp_path.glob("*/*.prefix")
    whole = bytearray(path.read_bytes())
    whole[{"flipped": len(whole) // 2, "header": 20}.get(damage, 0)] ^= 0xFF
    path.write_bytes({"cut": whole[:-5], "empty": b""}.get(damage, whole))
    with caplog.at_level(logging.WARNING):
        assert asked_after_a_restart(tiny_bundle(), tmp_path) == (expected, 0)
    assert path.name in caplog.text
    assert asked_after_a_restart(tiny_bundle(), tmp_path) == (expected, len(SYSTEM))


def test_a_process_killed_in_the_middle_leaves_no_file_that_counts(tiny_bundle, tmp_path):
    asked_after_a_restart(tiny_bundle(), tmp_path)
    (path,) = tmp_path.glob("*/*.prefix")
    path.rename(path.with_suffix(".partial"))
    assert asked_after_a_restart(tiny_bundle(), tmp_path)[1] == 0
    assert [one.suffix for one in path.parent.iterdir()] == [".prefix"]


def test_a_disk_that_cannot_be_written_costs_a_warning(tiny_bundle, tmp_path, caplog):
    (tmp_path / "file").touch()
    with caplog.at_level(logging.WARNING):
        assert asked_after_a_restart(tiny_bundle(), tmp_path / "file")[0]
    assert "not kept on disk" in caplog.text


def test_the_folder_stays_in_its_budget(tmp_path):
    size = rows_of([0] * 10).nbytes
    files = PrefixFiles(tmp_path, "one", 3 * size)
    for first in range(6):
        tokens = np.full(10, first, np.int64)
        files.keep(tokens, TOKEN_BYTES, lambda tokens=tokens: rows_of(tokens))
        files.close()
    held = [first for first in range(6) if files.find(np.full(10, first), longer_than=0) is not None]
    assert held[-1] == 5
    assert sum(path.stat().st_size for path in tmp_path.glob("*/*.prefix")) <= 3 * size
    np.testing.assert_array_equal(files.find(np.full(10, 5), longer_than=0), rows_of([5] * 10))


def write(files, tokens, seed=0):
    """Let a prefix be kept, and wait for it."""
    files.keep(tokens, TOKEN_BYTES, lambda: rows_of([seed, *tokens[1:]]))
    files.close()


def taken_by(path):
    """Return the bytes of a folder's files, and which of those that were deleted this process still maps."""
    maps = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    gone = [line for line in maps if str(path) in line and line.endswith("(deleted)")]
    return sum(one.stat().st_size for one in path.rglob("*") if one.is_file()), gone


@pytest.mark.parametrize("owner", ["", "adapter"])
def test_what_had_to_make_room_gives_its_space_on_the_disk_back(tmp_path, owner):
    """A deleted file that is mapped takes its space as before: only what is held may be on the disk."""
    size = rows_of([0] * 10).nbytes
    files = PrefixFiles(tmp_path, "one", 4 * size)
    files = files.of(owner) if owner else files
    for first in range(30):
        write(files, np.full(10, first, np.int64))
        held, gone = taken_by(tmp_path)
        assert held <= 4 * size
        assert not gone
    assert files.find(np.full(10, 29), longer_than=0) is not None


@pytest.mark.parametrize("spare", [-1, 0])
def test_a_file_takes_no_byte_more_than_the_budget(tmp_path, spare):
    """Its header and its tokens count as well."""
    tokens = np.arange(100)
    write(PrefixFiles(tmp_path, "whole", 1 << 20), tokens)
    (path,) = tmp_path.glob("*/*.prefix")
    budget = path.stat().st_size + spare
    path.unlink()
    write(PrefixFiles(tmp_path, "bounded", budget), tokens)
    assert len(list(tmp_path.glob("*/*.prefix"))) == 1 + spare


def test_what_a_killed_process_left_half_written_goes_with_the_next_start(tmp_path):
    (tmp_path / "one").mkdir()
    for name in (f"{64 * 'a'}.partial", f"{64 * 'a'}.{32 * 'b'}.partial"):
        (tmp_path / "one" / name).write_bytes(bytes(1000))
    PrefixFiles(tmp_path, "one", 1 << 20)
    assert not list(tmp_path.glob("*/*"))


def test_what_was_left_half_written_for_another_bundle_counts(tmp_path):
    (tmp_path / "another").mkdir()
    (tmp_path / "another" / f"{64 * 'a'}.partial").write_bytes(bytes(9000))
    files = PrefixFiles(tmp_path, "one", 10_000)
    for first in range(3):
        write(files, np.full(10, first))
        assert sum(path.stat().st_size for path in tmp_path.glob("*/*")) <= 10_000
    assert files.find(np.full(10, 2), longer_than=0) is not None


def test_a_file_that_is_gone_when_it_is_looked_at_keeps_no_other_from_its_place(tmp_path, caplog):
    """As one that another writer has renamed meanwhile; a link that leads nowhere is listed and not there either."""
    (tmp_path / "another").mkdir()
    (tmp_path / "another" / "gone.partial").symlink_to(tmp_path / "nowhere")
    files = PrefixFiles(tmp_path, "one", 1 << 20)
    write(files, np.arange(10))
    assert files.find(np.arange(10), longer_than=0) is not None
    assert not caplog.text


def test_two_processes_may_write_the_same_prefix_at_once(tmp_path, monkeypatch, caplog):
    """Rows that were read in other steps differ in their last bits: no file may be a mixture of both."""
    tokens, fsync = np.arange(100), os.fsync
    first, second = (PrefixFiles(tmp_path, "one", 1 << 20) for _ in range(2))

    def meanwhile(number):
        monkeypatch.setattr(os, "fsync", fsync)
        write(second, tokens, seed=1)
        fsync(number)

    monkeypatch.setattr(os, "fsync", meanwhile)
    write(first, tokens)
    assert not caplog.text
    for files, seed in ((first, 0), (second, 1), (PrefixFiles(tmp_path, "one", 1 << 20), 0)):
        np.testing.assert_array_equal(files.find(tokens, longer_than=0), rows_of([seed, *tokens[1:]]))
    assert [path.suffix for path in tmp_path.glob("*/*")] == [".prefix"]


def test_a_start_reads_past_any_byte_that_is_another(tmp_path):
    write(PrefixFiles(tmp_path, "one", 1 << 20), np.arange(20))
    (path,) = tmp_path.glob("*/*.prefix")
    whole = path.read_bytes()
    for at in range(whole.index(b"EAPREFIX"), whole.index(b"}") + 1):
        for byte in b'\x00\xff,"[]{}(0e-':
            path.write_bytes(whole[:at] + bytes([byte]) + whole[at + 1 :])
            assert PrefixFiles(tmp_path, "one", 1 << 20).latest() is None or whole[at] == byte


def test_a_text_may_grow_by_any_number_of_pieces():
    """An answer that is interrupted again and again is kept each time, each piece below the one before."""
    pieces = sys.getrecursionlimit() + 100
    tree, text = RadixTree(pieces * TOKEN_BYTES), np.arange(pieces + 1)

    def zeros(start, end):
        return np.zeros((*SHAPE[:3], end - start, SHAPE[3]), np.float32)

    for end in range(1, pieces + 1):
        tree.insert(text[:end], TOKEN_BYTES, zeros)
    assert tree.bytes == pieces * TOKEN_BYTES
    assert tree.find_cut(text[20:40])[1].kept == 20
    tree.insert(text[::-1][:1], TOKEN_BYTES, zeros)
    assert tree.bytes == pieces * TOKEN_BYTES


def test_a_prefix_for_which_no_thread_could_start_is_not_kept_and_hurts_nobody(tmp_path, monkeypatch, caplog):
    files = PrefixFiles(tmp_path, "one", 1 << 20)
    with monkeypatch.context() as crowded:
        crowded.setattr(threading.Thread, "start", _no_more_threads)
        write(files, np.arange(10))
    assert "not kept on disk: can't start new thread" in caplog.text
    write(files, np.arange(10))
    assert files.find(np.arange(10), longer_than=0) is not None


def _no_more_threads(thread):
    raise RuntimeError("can't start new thread")
