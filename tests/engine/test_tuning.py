"""What tuning keeps: read back as it was, and believed only where it was measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_assistant.bundle import Bundle
from edge_assistant.config import EngineSettings
from edge_assistant.engine import measure
from edge_assistant.engine.measure import Clock, Tuner, smallest_of_the_fastest
from edge_assistant.engine.tuning import Fingerprint, Tuning, read_tuning, save_tuning, tuning_path
from edge_assistant.errors import TuningError

HERE = Fingerprint("a processor", "0" * 64, "1.31.1")
FOUND = Tuning(3, False, 128, True, {"2": 1.3, "4": 2.0}, 7.5, 20.1, ("spinning",))
speeds = st.floats(min_value=1e-3, max_value=1e6)


@given(
    tuning=st.builds(
        Tuning,
        threads=st.integers(1, 64),
        spinning=st.booleans(),
        prefill_chunk=st.integers(1, 512),
        prepacked=st.none() | st.booleans(),
        batch_cost=st.dictionaries(st.sampled_from(["2", "4", "8"]), speeds),
        decode_tokens_per_s=speeds,
        prefill_tokens_per_s=speeds,
        skipped=st.lists(st.text(min_size=1)).map(tuple),
    )
)
def test_what_is_saved_is_read_back(tuning, tmp_path_factory):
    path = tmp_path_factory.mktemp("state") / "tuning" / "home.json"
    save_tuning(path, HERE, tuning)
    save_tuning(path, HERE, tuning)
    assert read_tuning(path, HERE) == tuning
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_where_nothing_was_measured_nothing_is_read(tmp_path):
    assert read_tuning(tmp_path / "home.json", HERE) is None


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"cpu": "another"}, "the cpu was a processor, it is another"),
        ({"bundle": "1" * 64}, "the bundle was 0"),
        ({"onnxruntime": "1.32.0"}, "the onnxruntime was 1.31.1, it is 1.32.0"),
    ],
)
def test_what_was_measured_elsewhere_is_refused(tmp_path, changed, said):
    save_tuning(tmp_path / "home.json", HERE, FOUND)
    with pytest.raises(TuningError, match="run `edge-assistant tune` again") as refused:
        read_tuning(tmp_path / "home.json", replace(HERE, **changed))
    assert said in str(refused.value)


@pytest.mark.parametrize("spoil", ["cut short", "empty", "another type", "a key too many", "a key too few", "text"])
def test_a_broken_file_is_refused(tmp_path, spoil):
    path = tmp_path / "home.json"
    save_tuning(path, HERE, FOUND)
    text = path.read_text(encoding="utf-8")
    kept = json.loads(text)
    tuning = kept["tuning"]
    spoiled = {
        "cut short": text[:-20],
        "empty": "",
        "another type": json.dumps(kept | {"tuning": tuning | {"threads": "four"}}),
        "a key too many": json.dumps(kept | {"tuning": tuning | {"speed": 1}}),
        "a key too few": json.dumps(kept | {"tuning": {key: tuning[key] for key in tuning if key != "spinning"}}),
        "text": "[]",
    }[spoil]
    path.write_text(spoiled, encoding="utf-8")
    with pytest.raises(TuningError, match=r"home\.json.*run `edge-assistant tune` again"):
        read_tuning(path, HERE)


def test_a_folder_in_its_place_is_refused_too(tmp_path):
    (tmp_path / "home.json").mkdir()
    with pytest.raises(TuningError, match="Is a directory"):
        read_tuning(tmp_path / "home.json", HERE)


def test_a_fingerprint_is_of_the_files_and_not_of_what_is_said_of_them(tiny_bundle):
    manifest = tiny_bundle(bits=4).manifest
    mine = Fingerprint.of(manifest, "a processor")
    assert Fingerprint.of(replace(manifest, quality={"kl": 0.1}), "a processor") == mine
    other = Fingerprint.of(tiny_bundle(bits=8).manifest, "a processor")
    keys = {one.key for one in (mine, other, replace(mine, cpu="another"), replace(mine, onnxruntime="0"))}
    assert len(keys) == 4


def test_models_are_kept_apart(tiny_bundle, tmp_path):
    manifest = tiny_bundle().manifest
    assert tuning_path(tmp_path, manifest) != tuning_path(tmp_path, replace(manifest, name="another"))


def test_settings_that_were_not_measured_are_not_set():
    assert FOUND.settings() == {"threads": 3, "spinning": False, "prefill_chunk": 128, "prepacked": True}
    assert "prepacked" not in replace(FOUND, prepacked=None).settings()
    assert FOUND.settings().keys() <= EngineSettings.model_fields.keys()


@given(st.dictionaries(st.integers(1, 64), speeds, min_size=1))
def test_the_smallest_is_taken_that_is_as_fast_as_any(measured):
    number, speed = smallest_of_the_fastest(measured)
    fastest = max(measured.values())
    assert measured[number] == speed >= 0.97 * fastest
    assert all(other < 0.97 * fastest for smaller, other in measured.items() if smaller < number)


def tuned(bundle: Bundle, clock: Clock, anonymous: dict[bool, int], prepacked: Path | None = None) -> Tuning:
    return Tuner(bundle, EngineSettings(), clock).run([2, 1], prepacked, lambda folder: anonymous[folder is not None])


@pytest.fixture
def timed(monkeypatch):
    """Replace what a step takes by a table, by threads, spinning and rows: no test hangs on the machine's speed."""
    took: dict[str, float] = {}

    def step(session, rows):
        options = session._session.get_session_options()
        spinning = options.get_session_config_entry("session.intra_op.allow_spinning") == "1"
        seconds = took.get(f"threads {options.intra_op_num_threads}", 1.0) * (1 + 0.1 * (rows - 1))
        return seconds * (took.get("spinning", 1.0) if spinning else 1.0)

    monkeypatch.setattr(measure, "step_seconds", step)
    monkeypatch.setattr(measure, "chunk_seconds", lambda session, chunk: took.get(f"chunk {chunk}", chunk))
    return took


def test_every_question_is_asked_and_answered(tiny_bundle, timed):
    timed |= {"threads 2": 1.0, "threads 1": 1.5, "chunk 64": 32.0, "spinning": 0.9}
    asked: list[str] = []
    found = tuned(tiny_bundle(), Clock(asked.append), {True: 1, False: 2}, None)
    assert found == Tuning(2, True, 64, None, {"2": 1.1, "4": 1.3, "8": 1.7}, round(1 / 0.9, 3), 2.0, ())
    assert len(asked) == 3 + 4 + 1 + 1


def test_what_gains_next_to_nothing_is_not_paid_for(tiny_bundle, timed):
    timed |= {"threads 2": 1.0, "threads 1": 1.02, "chunk 512": 500.0, "spinning": 0.98}
    found = tuned(tiny_bundle(), Clock(lambda line: None), {True: 1, False: 2})
    assert (found.threads, found.spinning, found.prefill_chunk) == (1, False, 32)


@pytest.mark.parametrize(("anonymous", "pays"), [({True: 1, False: 2}, True), ({True: 2, False: 2}, False)])
def test_prepacked_weights_pay_where_they_save_memory(tiny_bundle, timed, tmp_path, anonymous, pays):
    from edge_assistant.engine.prepacked import prepacked_folder, write_prepacked

    bundle = tiny_bundle(bits=4)
    fingerprint = Fingerprint.of(bundle.manifest, "a processor")
    folder = prepacked_folder(tmp_path, bundle.manifest, fingerprint)
    write_prepacked(bundle, EngineSettings(threads=1), folder, fingerprint)
    assert tuned(bundle, Clock(lambda line: None), anonymous, folder).prepacked is pays


def test_when_the_time_is_up_the_rest_is_left_out_and_named(tiny_bundle, timed):
    said: list[str] = []
    clock = Clock(said.append, end=0.0)
    found = tuned(tiny_bundle(), clock, {True: 1, False: 2})
    assert (found.threads, found.spinning, found.prefill_chunk, found.batch_cost) == (2, False, 32, {})
    assert found.skipped == tuple(clock.skipped)
    assert "threads = 1" in found.skipped
    assert all("there is no time" in line for line in said)


def test_a_question_that_would_take_too_long_is_not_begun():
    clock = Clock(lambda line: None, end=float("inf"))
    assert clock.ask("load", "the first", lambda: 1.0) == 1.0
    clock.end = -float("inf")
    assert clock.ask("load", "the second", pytest.fail, 3) is None
    assert clock.skipped == ["the second"]


def test_real_steps_leave_the_context_as_it_was(tiny_bundle):
    from edge_assistant.engine.kv_cache import KvCache
    from edge_assistant.engine.session import Session

    bundle = tiny_bundle({"sliding_window": 8}, bits=4)
    session = Session(bundle, KvCache(bundle.manifest, 64), EngineSettings(threads=1))
    session.run(list(range(32)))
    assert measure.step_seconds(session, 4) > 0
    assert session.cache.length == 32
    assert measure.chunk_seconds(session, 64) > 0
