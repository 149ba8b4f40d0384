"""What the export of a speech recogniser reads and refuses before anything heavy is imported."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from edge_assistant.errors import CheckpointError, ExtraMissingError, RecipeError, UnsupportedArchitectureError
from edge_assistant_export.cli import main
from edge_assistant_export.speech import describe_speech, open_speech

WHISPER_TINY = {
    "model_type": "whisper",
    "d_model": 384,
    "encoder_layers": 4,
    "decoder_layers": 4,
    "decoder_attention_heads": 6,
    "vocab_size": 51865,
    "max_target_positions": 448,
    "max_source_positions": 1500,
    "num_mel_bins": 80,
    "eos_token_id": 50257,
    "decoder_start_token_id": 50258,
    "suppress_tokens": [1, 2],
}
WHISPER_SOUND = {"feature_size": 80, "n_fft": 400, "hop_length": 160, "chunk_length": 30, "sampling_rate": 16000}
MOONSHINE_TINY = {
    "model_type": "moonshine",
    "hidden_size": 288,
    "encoder_num_hidden_layers": 6,
    "decoder_num_hidden_layers": 6,
    "encoder_num_attention_heads": 8,
    "decoder_num_attention_heads": 8,
    "vocab_size": 32768,
    "max_position_embeddings": 194,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
}
MOONSHINE_SOUND = {"do_normalize": False, "sampling_rate": 16000}
CONTROLS = ("<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|yue|>", "<|translate|>", "<|transcribe|>",
            "<|nocaptions|>", "<|notimestamps|>", "<|0.00|>")  # fmt: skip


def write_checkpoint(path: Path, config: dict, sound: dict, generation: dict | None = None) -> Path:
    """Write all but the weights, of which nothing is read without torch."""
    path.mkdir()
    files = {"config.json": config, "preprocessor_config.json": sound, "generation_config.json": generation}
    for name, content in files.items():
        if content is not None:
            (path / name).write_text(json.dumps(content))
    (path / "tokenizer.json").write_text(tokenizer_json(CONTROLS))
    (path / "model.safetensors").touch()
    (path / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    return path


def tokenizer_json(controls) -> str:
    from tokenizers import AddedToken, Tokenizer, models

    tokenizer = Tokenizer(models.BPE(vocab={"a": 0, "b": 1}, merges=[]))
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in controls])
    tokenizer.enable_truncation(5)
    return tokenizer.to_str()


@pytest.fixture
def whisper(tmp_path) -> Path:
    return write_checkpoint(tmp_path / "whisper", WHISPER_TINY, WHISPER_SOUND)


@pytest.fixture
def moonshine(tmp_path) -> Path:
    return write_checkpoint(tmp_path / "moonshine", MOONSHINE_TINY, MOONSHINE_SOUND)


def edit(path: Path, **changes: object) -> None:
    """Change keys of a JSON file; None removes one."""
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def describe(path: Path, **choices):
    return describe_speech(open_speech(path), **{"bits": 8, "name": "ears", **choices})


def test_a_whisper_is_described(whisper):
    manifest = describe(whisper)
    shape, tokens, mel = manifest.architecture, manifest.tokens, manifest.audio.mel
    assert (shape.family, shape.n_encoder_layers, shape.n_decoder_layers, shape.head_dim) == ("whisper", 4, 4, 64)
    assert (mel.n_mels, mel.n_fft, mel.hop_length, mel.n_frames) == (80, 400, 160, 3000)
    assert (tokens.start, tokens.ends, tokens.suppressed) == (50258, (50257,), (1, 2))
    assert tokens.languages == {"en": 4, "yue": 5}
    assert (tokens.translate, tokens.transcribe, tokens.no_speech, tokens.no_timestamps) == (6, 7, 8, 9)
    assert (manifest.licence, manifest.source.name, manifest.source.revision) == ("apache-2.0", "whisper", None)
    assert describe(whisper, licence="mit").licence == "mit"


def test_a_whisper_of_english_alone_has_no_languages(whisper):
    edit(whisper / "config.json", vocab_size=51864)
    tokens = describe(whisper).tokens
    assert (tokens.languages, tokens.transcribe, tokens.translate, tokens.no_timestamps) == ({}, None, None, 9)
    (whisper / "generation_config.json").write_text(json.dumps({"is_multilingual": True}))
    assert describe(whisper).tokens.languages == {"en": 4, "yue": 5}


def test_the_configuration_of_generation_goes_before(whisper):
    said = {"suppress_tokens": None, "begin_suppress_tokens": [220, 50257], "eos_token_id": [50257, 3]}
    (whisper / "generation_config.json").write_text(json.dumps(said))
    tokens = describe(whisper).tokens
    assert (tokens.suppressed, tokens.suppressed_first, tokens.ends) == ((), (220, 50257), (50257, 3))


def test_a_moonshine_is_described(moonshine):
    manifest = describe(moonshine, bits=32)
    shape, tokens = manifest.architecture, manifest.tokens
    assert (shape.family, shape.n_decoder_layers, shape.n_kv_heads, shape.head_dim) == ("moonshine", 6, 8, 36)
    assert (manifest.audio.mel, manifest.audio.min_samples, manifest.audio.sampling_rate) == (None, 895, 16000)
    assert (tokens.start, tokens.ends, tokens.languages, tokens.no_timestamps) == (1, (2,), {}, None)


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "tokenizer.json", "preprocessor_config.json"])
def test_a_missing_file_is_named(whisper, missing):
    (whisper / missing).unlink()
    with pytest.raises(CheckpointError, match=missing.replace("model.", r"model\*.")):
        open_speech(whisper)


@pytest.mark.parametrize("model_type", ["mistral", "wav2vec2", None])
def test_another_architecture_is_named_beside_those_there_are(whisper, model_type):
    edit(whisper / "config.json", model_type=model_type)
    with pytest.raises(
        UnsupportedArchitectureError, match=rf"config.json: model_type {model_type!r}.*whisper, moonshine"
    ):
        open_speech(whisper)


@pytest.mark.parametrize(
    ("file", "changes", "problem"),
    [
        ("config.json", {"d_model": None}, "config.json: it has no d_model"),
        ("config.json", {"d_model": "384"}, "config.json: it describes no model"),
        ("config.json", {"decoder_attention_heads": 0}, "config.json: it describes no model"),
        ("config.json", {"encoder_layers": 0}, "config.json: it describes no model: n_encoder_layers"),
        ("config.json", {"decoder_start_token_id": 60000}, "60000 is no id of 51865 tokens"),
        ("config.json", {"vocab_size": 5}, "tokenizer.json: it has 11 tokens, but the model has rows for 5"),
        ("preprocessor_config.json", {"feature_size": 128}, "it makes 128 mels in 3000 frames, but the model takes 80"),
        ("preprocessor_config.json", {"chunk_length": 10}, "in 1000 frames"),
        ("preprocessor_config.json", {"n_fft": None}, "preprocessor_config.json: it has no n_fft"),
    ],
)
def test_what_does_not_fit_is_named(whisper, file, changes, problem):
    edit(whisper / file, **changes)
    with pytest.raises(CheckpointError, match=problem):
        describe(whisper)


@pytest.mark.parametrize(
    "key", ["encoder_num_hidden_layers", "encoder_num_attention_heads", "decoder_num_key_value_heads"]
)
def test_a_moonshine_whose_halves_differ_is_refused(moonshine, key):
    edit(moonshine / "config.json", **{key: 4})
    with pytest.raises(UnsupportedArchitectureError, match=f"{key} 4"):
        describe(moonshine)


def test_a_whisper_whose_halves_have_other_heads_is_refused(whisper):
    edit(whisper / "config.json", encoder_attention_heads=4)
    with pytest.raises(UnsupportedArchitectureError, match="encoder_attention_heads 4"):
        describe(whisper)


def test_a_moonshine_that_wants_its_wave_normalised_is_refused(moonshine):
    edit(moonshine / "preprocessor_config.json", do_normalize=True)
    with pytest.raises(CheckpointError, match="do_normalize"):
        describe(moonshine)


@pytest.mark.parametrize("content", ["", "{}", '{"model": {"type": "BPE"}}'])
def test_a_tokenizer_that_cannot_be_read_is_named(whisper, content):
    (whisper / "tokenizer.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: it is no tokenizer"):
        describe(whisper)


def test_bits_that_no_quantiser_knows_name_the_nearest(whisper):
    with pytest.raises(RecipeError, match="nearest that can is 8"):
        describe(whisper, bits=4)


# The command.


@pytest.fixture
def without_torch(monkeypatch):
    """As where the extra is not installed, wherever this runs."""
    for name in ("torch", "transformers", "optimum"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "edge_assistant_export.with_optimum", raising=False)


def test_without_its_extra_the_command_says_how_to_install_it(whisper, tmp_path, capsys, without_torch):
    assert main(["speech", str(whisper), str(tmp_path / "out")]) == 1
    message = capsys.readouterr().err
    assert "`edge-assistant-export speech` needs packages that are not here" in message
    assert "./export[speech]" in message
    assert [path.name for path in tmp_path.iterdir()] == ["whisper"]
    assert issubclass(ExtraMissingError, ImportError)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("nowhere", "out"), 1, "there is no such folder"),
        (("whisper", "whisper"), 1, "already there"),
        (("whisper", "out", "--bits", "4"), 2, "the nearest that can is 8"),
        (("whisper", "out", "--bit", "8"), 2, "did you mean --bits?"),
        (("whisper",), 2, "OUT"),
    ],
)
def test_wrong_usage_is_told_before_torch_is_needed(whisper, without_torch, monkeypatch, capsys, arguments, code, said):
    monkeypatch.chdir(whisper.parent)
    try:
        result = main(["speech", *arguments])
    except SystemExit as end:
        result = end.code
    assert result == code
    assert said in capsys.readouterr().err
