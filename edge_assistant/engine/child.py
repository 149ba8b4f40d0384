"""Work in a process of its own: what crashes there, or takes memory, leaves this one as it was.

Ctrl-C at a terminal reaches both. It is this process that ends of it, and takes the other with it: that one is deaf to
it from its first instruction on, or it would say in a traceback where it was.
"""

from __future__ import annotations

import multiprocessing
import signal
import threading
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Any, Final, TypeVar

from edge_assistant.errors import EdgeAssistantError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from multiprocessing.connection import Connection

T = TypeVar("T")

_INTERRUPT: Final = {signal.SIGINT}


class ChildError(Exception):
    """There is no answer; `problem` says why in words, None where the process ended without one."""

    def __init__(self, problem: str | None) -> None:
        super().__init__(problem)
        self.problem = problem


def in_a_child(work: Callable[..., T], *args: object) -> T:
    """Return what `work` returns in a fresh process, to which it and its arguments are pickled.

    Raises:
        ChildError: It raised something there, or the process has crashed or was ended.
    """
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe(duplex=False)
    child = spawn.Process(target=_answer, args=(theirs, work, *args), daemon=True)
    try:
        resource_tracker.ensure_running()  # here: where it starts, it lets signals through again
        with _interrupts_held():
            child.start()
        theirs.close()  # so that ours ends when the process does
        answer, problem = ours.recv()
    except EOFError as error:
        raise ChildError(None) from error
    finally:
        if child.pid is not None:
            child.kill()
            child.join()
        ours.close()
    if problem is not None:
        raise ChildError(problem)
    found: T = answer
    return found


def _answer(theirs: Connection, work: Callable[..., Any], *args: object) -> None:
    """Send what work returns and None, or None and what it raises in words: not every error can be pickled."""
    answer = problem = None
    try:
        answer = work(*args)
    except EdgeAssistantError as error:
        problem = str(error)
    except Exception as error:  # noqa: BLE001 - it is told where it can be
        problem = f"{type(error).__name__}: {error}"
    with suppress(BrokenPipeError):  # nobody waits for it any more
        theirs.send((answer, problem))


@contextmanager
def _interrupts_held() -> Generator[None]:
    """Let Ctrl-C wait, in what is started meanwhile for ever."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread hears of it
        yield
        return
    pressed: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: pressed.append(number))
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPT)  # which is inherited
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        signal.signal(signal.SIGINT, before)
    if pressed:
        signal.raise_signal(signal.SIGINT)  # to whoever takes it else, or nobody
