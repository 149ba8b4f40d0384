"""Which slot a request gets, and what is kept there."""

from __future__ import annotations

from scheduling import BATCH, GREEDY, IDS, PROMPTS, VOICE, fresh

from edge_assistant.engine import Keep, SamplingParams


def test_what_the_prefixes_keep_is_read_once_for_all_slots(engine_of, tiny_bundle, machine):
    engine = engine_of(sequences=2)
    first, second = PROMPTS[2], [*PROMPTS[2][:70], *PROMPTS[1]]
    machine.hold()
    busy = engine.generate(first, GREEDY, keep=Keep(70))
    machine.held()
    while len(machine.runs[-1][0]) > 1:
        machine.step()
    other = engine.generate(second, GREEDY)
    machine.let_go()
    answers = [list(busy), list(other)]
    assert (busy.usage.cached_tokens, other.usage.cached_tokens) == (0, 70)
    assert machine.rows() == len(first) + 29 + len(second) - 70 + 29
    assert answers == [fresh(tiny_bundle(), first), fresh(tiny_bundle(), second)]


def test_nothing_is_cut_out_of_what_an_interrupted_answer_has_left_behind(engine_of, machine):
    """The job said of none of its prompt that it comes again, only that it goes on itself."""
    engine = engine_of(sequences=1, cache_reuse=8)
    machine.hold()
    job = engine.generate(IDS[:120], GREEDY, claim=BATCH)
    machine.held()
    for _ in range(12):
        machine.step()
    turn = engine.generate(PROMPTS[3], GREEDY, claim=VOICE)
    machine.let_go()
    assert len(list(turn)) == 30
    like_it = engine.generate([*IDS[:30], *IDS[60:120], 20], GREEDY, claim=VOICE)
    assert (len(list(like_it)), len(list(job))) == (30, 30)
    assert like_it.usage.cached_tokens == 30


def test_conversations_that_go_on_keep_their_slots(engine_of):
    engine = engine_of(sequences=3)
    texts = [list(prompt) for prompt in PROMPTS[:3]]
    for turn in range(3):
        for text in texts:
            generation = engine.generate([*text, 20], SamplingParams(max_tokens=10))
            answer = list(generation)
            assert generation.usage.cached_tokens == (len(text) - 1 if turn else 0)
            text += [20, *answer]


def test_one_conversation_does_not_take_the_slots_of_others(engine_of):
    engine = engine_of(sequences=3)
    short, text = SamplingParams(max_tokens=5), list(PROMPTS[0])
    list(engine.generate(PROMPTS[1], short))
    for _ in range(4):
        text += list(engine.generate(text, short))
    other = engine.generate(PROMPTS[1], short)
    list(other)
    assert other.usage.cached_tokens == len(PROMPTS[1]) - 1


def test_all_slots_share_the_budget(tiny_bundle, engine_of):
    bundle = tiny_bundle()
    per_token = bundle.manifest.cache_size.per_token
    for sequences in (1, 2, 3):
        metrics = engine_of(sequences=sequences, kv_cache_bytes=301 * per_token).metrics()
        assert (metrics.sequences, metrics.capacity) == (sequences, 301 // sequences)
        assert metrics.cache_bytes == sequences * metrics.capacity * per_token
    for positions, expected in ((511, (1, 511)), (512, (1, 512)), (1024, (2, 512)), (9999, (4, 512))):
        metrics = engine_of(sequences=0, kv_cache_bytes=positions * per_token).metrics()
        assert (metrics.sequences, metrics.capacity) == expected


def test_what_was_read_before_an_interruption_is_not_counted_as_cached_after_it(engine_of, machine):
    """The job has the beginning from another slot, loses its own, and has it from there once more."""
    engine = engine_of(sequences=2, prefix_bytes=0)
    begin, rest = list(IDS[:40]), list(IDS[60:145])
    machine.hold()
    first = engine.generate([*begin, 20, *rest], SamplingParams(3))
    machine.held()
    job = engine.generate([*begin, *IDS[100:140]], SamplingParams(5), claim=BATCH)
    while len(machine.runs) < 11 or len(machine.runs[-1][0]) == 1:
        machine.step()
    turns = [([*begin, 21, *rest], 9), (PROMPTS[3], 2)]
    generations = [engine.generate(prompt, SamplingParams(most), claim=VOICE) for prompt, most in turns]
    machine.let_go()
    for generation in (first, *generations, job):
        list(generation)
    assert engine.metrics().by_priority["batch"].evicted == 1
    assert job.usage.cached_tokens == len(begin)
