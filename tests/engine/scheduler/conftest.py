"""Fixtures of the scheduler's tests."""

from __future__ import annotations

import pytest
from scheduling import Machine, settings_of

from edge_assistant.engine import Engine
from edge_assistant.engine.session import Session, Together
from edge_assistant.engine.speculate import Pace


@pytest.fixture(autouse=True)
def chance(one_chance):
    """Let all answers be compared with those of another engine."""


@pytest.fixture
def machine(monkeypatch):
    machine = Machine()
    run, run_rows, together = Session.run, Session.run_rows, Together.run

    def one(session, ids):
        machine.passes([list(ids)], session.cache)
        return run(session, ids)

    def rows(session, ids, count):
        machine.passes([list(ids)], session.cache)
        return run_rows(session, ids, count)

    def several(batch, tokens, adapter):
        machine.passes([[token] for token in tokens.values()])
        return together(batch, tokens, adapter)

    monkeypatch.setattr(Session, "run", one)
    monkeypatch.setattr(Session, "run_rows", rows)
    monkeypatch.setattr(Together, "run", several)
    return machine


@pytest.fixture
def batching(monkeypatch):
    """Let whoever can step together do so, whatever it costs."""
    monkeypatch.setattr(Pace, "together", lambda self, more: True)


@pytest.fixture
def engine_of(tiny_bundle):
    """Return a function that loads an engine without guesses; keywords are settings."""
    engines = []

    def load(bundle=None, **settings) -> Engine:
        engines.append(Engine.load(bundle or tiny_bundle(), settings_of(**settings)))
        return engines[-1]

    yield load
    for engine in engines:
        engine.close()
