"""Work in another process: what it returns and raises comes back, and Ctrl-C is not its affair."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import resource_tracker, util

import pytest

from edge_assistant.engine.child import ChildError, in_a_child

WAITING = """
import signal, sys, time
from edge_assistant.engine.child import in_a_child
signal.signal(signal.SIGINT, signal.default_int_handler)
print("begun", flush=True)
in_a_child(time.sleep, 60)
"""


def test_what_is_returned_comes_back_from_another_process():
    assert in_a_child(divmod, 7, 3) == (2, 1)
    assert in_a_child(os.getpid) != os.getpid()


def test_what_is_raised_is_told_in_words():
    with pytest.raises(ChildError) as caught:
        in_a_child(int, "one")
    assert caught.value.problem == "ValueError: invalid literal for int() with base 10: 'one'"


def test_one_that_ends_without_a_word_is_told_apart():
    with pytest.raises(ChildError) as caught:
        in_a_child(os._exit, 3)
    assert caught.value.problem is None


@pytest.mark.parametrize("first", [False, True])
def test_ctrl_c_does_not_reach_it(first):
    """Nor the first of all, with which multiprocessing starts a process of its own that plays with signals."""
    if first:
        resource_tracker._resource_tracker._stop()
    assert signal.SIGINT in in_a_child(signal.pthread_sigmask, signal.SIG_BLOCK, ())
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_ctrl_c_while_it_starts_is_heard_when_it_has(monkeypatch):
    started = []

    def pressed(*args):
        started.append(True)
        signal.raise_signal(signal.SIGINT)
        return start(*args)

    start = util.spawnv_passfds
    monkeypatch.setattr(util, "spawnv_passfds", pressed)
    with pytest.raises(KeyboardInterrupt):
        in_a_child(time.sleep, 60)
    assert started
    assert not multiprocessing.active_children()


def test_it_starts_in_any_thread():
    found = []
    asking = threading.Thread(target=lambda: found.append(in_a_child(abs, -3)))
    asking.start()
    asking.join(60)
    assert found == [3]


@pytest.mark.parametrize("after_s", [0.0, 0.1, 0.5])
def test_ctrl_c_at_a_terminal_ends_both_without_a_word(after_s):
    """Whenever it comes: as the other process starts, imports, or works."""
    waiting = subprocess.Popen(
        [sys.executable, "-c", WAITING], stdout=subprocess.PIPE, stderr=subprocess.PIPE, process_group=0
    )
    assert waiting.stdout is not None
    assert waiting.stdout.readline() == b"begun\n"
    time.sleep(after_s)
    os.killpg(waiting.pid, signal.SIGINT)
    _, said = waiting.communicate(timeout=60)
    assert said.count(b"Traceback") == 1  # our own
    assert said.strip().endswith(b"KeyboardInterrupt")
