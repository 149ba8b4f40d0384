"""Adapters at run time: none is the plain graph to the bit, and what one makes is never taken for another's.

That the numbers are those of a merged checkpoint is tested with the exporter, in tests/export/test_lora.py.
"""

from __future__ import annotations

import gc
import shutil
import weakref
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_assistant.bundle import Bundle, LoraFile
from edge_assistant.config import EngineSettings
from edge_assistant.engine import Adapter, Engine, Keep, SamplingParams
from edge_assistant.engine.speculate import Pace
from edge_assistant.errors import BundleGraphError, LoraBaseError, LoraFileError, LoraGraphError

SETTINGS = EngineSettings(threads=1, prefill_chunk=16, sequences=1)
IDS = np.random.default_rng(3).integers(14, 270, 40).tolist()
PARAMS = SamplingParams(max_tokens=8)
SHAPES = {
    "dense": {},
    "heads the kernel cannot rotate": {"head_dim": 24},
    "window": {"sliding_window": 8},
    "mixture": {"num_local_experts": 4, "num_experts_per_tok": 2},
}
RECIPES = [{"bits": 32}, {"bits": 4}, {"bits": 8, "block_size": 64}, {"bits": 32, "cache": "int8"}]


@pytest.fixture
def bundle(tiny_bundle) -> Bundle:
    return tiny_bundle(lora_rank=4)


@pytest.fixture
def engine(bundle):
    with Engine.load(bundle, SETTINGS) as engine:
        yield engine


@pytest.fixture
def write(lora_file, tmp_path):
    """Return a function that writes a random adapter for a bundle to a file of its own."""
    return lambda *args, **changes: lora_file(tmp_path / f"{len(list(tmp_path.iterdir()))}.npz", *args, **changes)


# Without an adapter.


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_without_an_adapter_the_graph_is_the_plain_one_to_the_bit(tiny_bundle, shape, recipe):
    recipe = recipe | ({"block_size": 32} if shape == SHAPES["mixture"] and recipe["bits"] != 32 else {})
    plain, tunable = tiny_bundle(shape, **recipe), tiny_bundle(shape, **recipe, lora_rank=4)
    with Engine.load(plain, SETTINGS) as one, Engine.load(tunable, SETTINGS) as other:
        np.testing.assert_array_equal(other.score(IDS), one.score(IDS))
        assert list(other.generate(IDS, PARAMS)) == list(one.generate(IDS, PARAMS))


def test_an_adapter_of_nothing_but_zeros_changes_nothing(engine, bundle, write):
    adapter = engine.load_adapter(write(bundle))
    nothing = replace(adapter, factors={name: np.zeros_like(factor) for name, factor in adapter.factors.items()})
    np.testing.assert_array_equal(engine.score(IDS, adapter=nothing), engine.score(IDS))


# Taking turns.


def fresh(bundle, prompt, path) -> list[int]:
    """Return what an engine answers that has never known another adapter."""
    with Engine.load(bundle, SETTINGS) as engine:
        adapter = engine.load_adapter(path) if path else None
        return list(engine.generate(prompt, PARAMS, adapter=adapter))


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_each_answers_as_if_there_were_no_other(tiny_bundle, write, shape):
    bundle = tiny_bundle(shape, lora_rank=4)
    paths = [None, write(bundle, 1), write(bundle, 2), write(bundle, 3, ("o",), rank=2)]
    prompts = [IDS, [*IDS[:30], 20, 21], IDS[:9]]
    expected = {(n, m): fresh(bundle, prompt, path) for n, path in enumerate(paths) for m, prompt in enumerate(prompts)}
    assert len({tuple(expected[n, 0]) for n in range(len(paths))}) == len(paths)

    @given(turns=st.lists(st.tuples(st.integers(0, len(paths) - 1), st.integers(0, len(prompts) - 1)), max_size=12))
    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    def holds(turns):
        engine.score([20])  # with no adapter, which leaves nothing that a prompt begins with
        before = (0, None)
        for turn in turns:
            answer = engine.generate(prompts[turn[1]], PARAMS, adapter=adapters[turn[0]])
            assert list(answer) == expected[turn]
            if before[0] != turn[0]:
                assert answer.usage.cached_tokens == 0
            elif before == turn:
                assert answer.usage.cached_tokens == len(prompts[turn[1]]) - 1
            before = turn

    with Engine.load(bundle, SETTINGS) as engine:
        adapters = [path and engine.load_adapter(path) for path in paths]
        holds()


def test_nothing_of_an_answer_that_was_left_is_taken_for_the_next_adapters(engine, bundle, write):
    path, other = write(bundle, 1), write(bundle, 2)
    adapter, second = engine.load_adapter(path), engine.load_adapter(other)
    for _ in range(3):
        left = engine.generate(IDS, PARAMS, adapter=adapter)
        assert list(islice(left, 3)) == fresh(bundle, IDS, path)[:3]
        left.close()
        answer = engine.generate(IDS, PARAMS, adapter=second)
        assert list(answer) == fresh(bundle, IDS, other)
        assert answer.usage.cached_tokens == 0


def test_scores_are_the_adapters_and_guesses_do_not_mix(engine, bundle, write):
    adapter = engine.load_adapter(write(bundle))
    scores = engine.score(IDS, adapter=adapter)
    assert np.abs(scores - engine.score(IDS)).max() > 1
    np.testing.assert_array_equal(engine.score(IDS, adapter=adapter), scores)
    often = IDS[:6] * 5  # so that guesses are made
    with Engine.load(bundle, EngineSettings(threads=1, guesses=0, sequences=1)) as plain:
        tuned = plain.load_adapter(adapter.path)
        for one, other in ((adapter, tuned), (None, None), (adapter, tuned)):
            params = SamplingParams(max_tokens=30)
            expected = list(plain.generate(often, params, adapter=other))
            assert list(engine.generate(often, params, adapter=one)) == expected


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_answers_that_are_under_way_at_once_have_each_their_adapter(tiny_bundle, write, shape, monkeypatch):
    monkeypatch.setattr(Pace, "together", lambda *_: True)
    bundle = tiny_bundle(shape, lora_rank=4)
    paths = [None, write(bundle, 1), write(bundle, 2)]
    prompts = [IDS, [*IDS[:30], 20, 21], IDS[:9]]
    asked = [(path, prompt) for prompt in prompts for path in (*paths, paths[1])]
    with Engine.load(bundle, SETTINGS.model_copy(update={"sequences": 4})) as engine:
        adapters = {path: path and engine.load_adapter(path) for path in paths}
        for _ in range(2):
            answers = [engine.generate(prompt, PARAMS, adapter=adapters[path]) for path, prompt in asked]
            assert [list(answer) for answer in answers] == [fresh(bundle, prompt, path) for path, prompt in asked]
        steps = engine.metrics().batches
        assert shape == SHAPES["window"] or any(size > 1 for size in steps)


# Prefixes that are kept.

KEPT = SETTINGS.model_copy(update={"prefix_bytes": 1 << 20, "prefix_disk_bytes": 1 << 20})


def asked(engine, adapter, prompt=IDS) -> tuple[list[int], int]:
    """Return an answer, of whose prompt the first 20 tokens are kept, and how many were not computed."""
    answer = engine.generate(prompt, PARAMS, keep=Keep(20, lasting=True), adapter=adapter)
    return list(answer), answer.usage.cached_tokens


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_what_is_kept_is_each_adapters_own(tiny_bundle, write, shape):
    bundle = tiny_bundle(shape, lora_rank=4)
    paths = [None, write(bundle, 1), write(bundle, 2)]
    prompts = [IDS, [*IDS[:20], 30, 31, 32]]
    expected = [[fresh(bundle, prompt, path) for path in paths] for prompt in prompts]
    with Engine.load(bundle, KEPT) as engine:
        adapters = [path and engine.load_adapter(path) for path in paths]
        first = [asked(engine, adapter) for adapter in adapters]
        assert first == [(answer, 0) for answer in expected[0]]
        again = [asked(engine, adapter, prompts[1]) for adapter in adapters]
        assert again == [(answer, 20) for answer in expected[1]]


def test_what_lasts_is_each_adapters_own(bundle, write, tmp_path):
    paths = [None, write(bundle, 1), write(bundle, 2)]
    expected = [fresh(bundle, IDS, path) for path in paths]
    for turn in (paths, paths[::-1]):
        for path in turn:
            with Engine.load(bundle, KEPT, tmp_path / "prefixes") as engine:
                adapter = path and engine.load_adapter(path)
                known = 0 if turn is paths else 20
                assert asked(engine, adapter) == (expected[paths.index(path)], known)
    assert len(list((tmp_path / "prefixes").glob("*/*.prefix"))) == 3


# Memory.


def test_its_bytes_are_those_of_its_factors_and_are_given_back(engine, bundle, write):
    adapter = engine.load_adapter(write(bundle, matrices=("o",)))
    architecture = bundle.manifest.architecture
    sizes = architecture.hidden_size + architecture.n_heads * architecture.head_dim
    assert adapter.nbytes == architecture.n_layers * 4 * 4 * sizes
    list(engine.generate(IDS, PARAMS, adapter=adapter))
    factor = weakref.ref(next(iter(adapter.factors.values())))
    del adapter
    list(engine.generate(IDS, PARAMS))
    gc.collect()
    assert factor() is None


def test_an_adapter_is_known_by_what_was_read_and_not_by_what_the_file_has_become(bundle, write, monkeypatch):
    """What is kept of prompts by its identity outlives a restart: it must not be taken for another's then."""
    path, other = write(bundle, 1), write(bundle, 2)
    known = Adapter.load(path, bundle.manifest).identity
    assert Adapter.load(path, bundle.manifest).identity == known
    read = LoraFile.read

    def replaced(path):
        content = read(path)
        shutil.copy(other, path)
        return content

    monkeypatch.setattr(LoraFile, "read", replaced)
    assert Adapter.load(path, bundle.manifest).identity == known
    assert Adapter.load(path, bundle.manifest).identity != known


# What is refused.


def test_an_adapter_of_another_bundle_is_refused(engine, bundle, tiny_bundle, write):
    others = [tiny_bundle({"tie_word_embeddings": True}, lora_rank=4), tiny_bundle(bits=4, lora_rank=4)]
    for other in others:
        path = write(other)
        with pytest.raises(LoraBaseError, match="made for other weights"):
            engine.load_adapter(path)
        adapter = Adapter.load(path, other.manifest)
        with pytest.raises(LoraBaseError, match="made for other weights"):
            engine.generate(IDS, PARAMS, adapter=adapter)
        with pytest.raises(LoraBaseError, match="made for other weights"):
            engine.score(IDS, adapter=adapter)


def test_an_adapter_of_another_graph_with_the_same_weights_is_refused(bundle, tiny_bundle, write):
    adapter = Adapter.load(write(bundle), bundle.manifest)
    with Engine.load(tiny_bundle(), SETTINGS) as plain:
        with pytest.raises(LoraGraphError, match="takes no adapter; export it with --lora-rank"):
            plain.load_adapter(adapter.path)
        with pytest.raises(LoraGraphError, match="loaded for another graph"):
            plain.generate(IDS, PARAMS, adapter=adapter)


def test_a_rank_and_matrices_that_the_graph_does_not_take_are_refused(engine, bundle, tiny_bundle, write):
    with pytest.raises(LoraGraphError, match="rank 5, and its graph takes up to 4"):
        engine.load_adapter(write(bundle, rank=5))
    mixture = tiny_bundle(SHAPES["mixture"], lora_rank=4)
    with pytest.raises(LoraGraphError, match=r"layers\.0\.down is none of what its graph takes: only qkv, o can"):
        Adapter.load(write(mixture, matrices=("down",)), mixture.manifest)


def test_a_refused_adapter_leaves_the_engine_as_it_was(engine, tmp_path):
    expected = list(engine.generate(IDS, PARAMS))
    with pytest.raises(LoraFileError):
        engine.load_adapter(tmp_path / "none.npz")
    answer = engine.generate(IDS, PARAMS)
    assert list(answer) == expected
    assert answer.usage.cached_tokens == len(IDS) - 1


def test_a_graph_and_a_manifest_that_differ_over_adapters_are_refused(bundle, tiny_bundle):
    for path, manifest in (
        (bundle.path, replace(bundle.manifest, lora=None)),
        (bundle.path, replace(bundle.manifest, lora=replace(bundle.manifest.lora, matrices=("qkv",)))),
        (tiny_bundle().path, bundle.manifest),
    ):
        with pytest.raises(BundleGraphError, match=r"layers\.0\.o\.lora_A"):
            Engine.load(Bundle(path, manifest), SETTINGS)
