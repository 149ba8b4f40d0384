"""A runtime in a process of its own, which does tasks one at a time: so several take turns in one run.

The child is a script that ends with `serve(Runner)`. It loads a model with the keywords it is given, says so, and then
answers each JSON line on standard input with one on standard output; whatever else it prints goes to standard error.
With every reply comes what the task took: seconds, CPU seconds of all threads, and the memory that is held after it.

Between its tasks a child is stopped: threads that still spin would take the cores from whose turn it is.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

from edge_assistant.device.memory import resident


def serve(runner: Callable[..., Any]) -> None:
    """Load what the command line says, and do the tasks that come on standard input until it is closed."""
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    started, cpu = perf_counter(), process_time()
    loaded = runner(**json.loads(sys.argv[1]))
    about = {"runtime": loaded.runtime, "vocab_size": loaded.vocab_size}
    print(json.dumps({**about, **_took(started, cpu)}), file=replies)
    for line in sys.stdin:
        task = json.loads(line)
        started, cpu = perf_counter(), process_time()
        found = getattr(loaded, task.pop("do"))(**task)
        print(json.dumps({**found, **_took(started, cpu)}), file=replies)


def _took(started: float, cpu: float) -> dict[str, float]:
    held = resident()
    took = {"wall_s": perf_counter() - started, "cpu_s": process_time() - cpu}
    return {**took, "anonymous": held.anonymous, "file": held.file}


class Worker:
    """The process that holds one model."""

    def __init__(
        self,
        name: str,
        script: str,
        python: Path | str = sys.executable,
        environment: Mapping[str, str] | None = None,
        **keywords: Any,
    ) -> None:
        """Start the script beside this file with a Python that has its runtime; the keywords are its runner's."""
        self.name = name
        print(f"loading {name}", file=sys.stderr)
        self._process = subprocess.Popen(
            [str(python), str(Path(__file__).with_name(script)), json.dumps(keywords)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
        )
        self.loaded = self._reply()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def do(self, task: str, **keywords: Any) -> dict[str, Any]:
        """Let the runner do a task by its method's name, and return what that found and took."""
        assert self._process.stdin is not None
        self.go_on()
        print(json.dumps({"do": task, **keywords}), file=self._process.stdin, flush=True)
        return self._reply()

    def go_on(self) -> None:
        """Let the process run, with nothing to do; after its next task it is stopped again."""
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Let the process end."""
        assert self._process.stdin is not None
        self.go_on()
        self._process.stdin.close()
        self._process.wait()

    def _reply(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name}: the worker ended with status {self._process.wait()}")
        self._process.send_signal(signal.SIGSTOP)
        reply: dict[str, Any] = json.loads(line)
        return reply
