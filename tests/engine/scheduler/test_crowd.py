"""Many callers at once: each gets the answer that it would have had alone."""

from __future__ import annotations

import threading
from collections import Counter
from itertools import islice
from random import Random

from scheduling import LIVELY, PROMPTS, fresh

from edge_assistant.engine import Claim


def test_a_crowd_gets_the_answers_that_each_would_have_had_alone(engine_of, tiny_bundle):
    """Callers of all priorities, more than there are slots, some of whom give up half-way."""
    bundle = tiny_bundle()
    expected = [fresh(bundle, prompt, LIVELY) for prompt in PROMPTS]
    engine = engine_of(bundle, sequences=3, guesses=4, queue=64)
    wrong: list[object] = []
    counted: Counter[str] = Counter()

    def ask(number: int) -> None:
        random = Random(number)
        for _ in range(8):
            chosen, most = random.randrange(4), random.choice((3, 30, 30))
            claim = Claim(str(number % 3), random.choice(("voice", "interactive", "batch")))
            generation = engine.generate(PROMPTS[chosen], LIVELY, claim=claim)
            answer = list(islice(generation, most))
            generation.close()
            if answer != expected[chosen][:most]:
                wrong.append((chosen, answer))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert wrong == []
    for counts in engine.metrics().by_priority.values():
        counted.update(started=counts.started, ended=counts.finished + counts.cancelled, failed=counts.failed)
    assert counted["failed"] == 0
    assert counted["started"] == 48
