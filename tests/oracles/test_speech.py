"""A bundle of speech recognition hears and writes what transformers does with the checkpoint, on a board's packages.

Checkpoints are small and random. In float32 greedy decoding gives the tokens of transformers' `generate`; in 8 bits the
logits are off by at most TOLERANCE of their norm.
"""

from __future__ import annotations

import json
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edge_assistant.bundle import DECODER_FILE, SpeechBundle
from edge_assistant.errors import VerificationError
from edge_assistant_export.cli import main
from edge_assistant_export.speech import describe_speech, open_speech

torch = pytest.importorskip("torch", reason="runs in the environment of transformers: make test-oracles")
transformers = pytest.importorskip("transformers", reason="runs in an environment of its own: make test-oracles")
pytest.importorskip("optimum.exporters.onnx", reason="make test-oracles installs optimum-onnx")

from edge_assistant_export.faithful import speech_quality  # noqa: E402

TOLERANCE = 0.2  # 0.02 and 0.13 were seen: weights as wild as these magnify what rounding does
LIMIT = 20
RATE = 16_000
ON_BOARD = Path(__file__).with_name("on_board.py")
CONTROLS = (
    *("<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|de|>", "<|haw|>", "<|translate|>", "<|transcribe|>"),
    *("<|nospeech|>", "<|notimestamps|>"),
)
END, START = 256, 257


def make_whisper(path: Path, **shape) -> Path:
    small = {"d_model": 64, "encoder_layers": 2, "decoder_layers": 3, "encoder_ffn_dim": 96, "decoder_ffn_dim": 80}
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
    sound = {"num_mel_bins": 20, "max_source_positions": 50, "max_target_positions": 40}
    ids = {"pad_token_id": END, "bos_token_id": END, "eos_token_id": END, "decoder_start_token_id": START}
    config = transformers.WhisperConfig(
        **{"vocab_size": 300, "init_std": 0.3, **small, **heads, **sound, **ids, **shape}
    )
    torch.manual_seed(1)
    model = transformers.WhisperForConditionalGeneration(config)
    languages = {name: 256 + number for number, name in enumerate(CONTROLS) if 2 <= number <= 4}
    said = {"is_multilingual": True, "lang_to_id": languages, "task_to_id": {"translate": 261, "transcribe": 262}}
    said |= {"no_timestamps_token_id": 264, "suppress_tokens": [7, 40], "begin_suppress_tokens": [32, END]}
    for key, value in said.items():
        setattr(model.generation_config, key, value)
    model.generation_config._from_model_config = False  # else it is made anew from the configuration
    model.save_pretrained(path)
    seconds = config.max_source_positions // 50
    transformers.WhisperFeatureExtractor(config.num_mel_bins, RATE, chunk_length=seconds).save_pretrained(path)
    write_tokenizer(path, CONTROLS)
    return path


def make_moonshine(path: Path) -> Path:
    small = {"hidden_size": 64, "intermediate_size": 96, "vocab_size": 300, "max_position_embeddings": 48}
    layers = {"encoder_num_hidden_layers": 2, "decoder_num_hidden_layers": 2}
    heads = {"encoder_num_attention_heads": 4, "decoder_num_attention_heads": 4}
    ids = {"bos_token_id": 257, "eos_token_id": 258, "decoder_start_token_id": 257}
    config = transformers.MoonshineConfig(initializer_range=0.3, **small, **layers, **heads, **ids)
    torch.manual_seed(3)
    transformers.MoonshineForConditionalGeneration(config).save_pretrained(path)
    transformers.Wav2Vec2FeatureExtractor(sampling_rate=RATE, do_normalize=False).save_pretrained(path)
    write_tokenizer(path, ("<unk>", "<s>", "</s>"))
    return path


def write_tokenizer(path: Path, controls) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in controls])
    tokenizer.enable_padding(length=9)
    tokenizer.save(str(path / "tokenizer.json"))
    (path / "README.md").write_text("---\nlicense: mit\n---\n")


@pytest.fixture(scope="module", params=["whisper", "moonshine"])
def checkpoint(request, tmp_path_factory) -> Path:
    return {"whisper": make_whisper, "moonshine": make_moonshine}[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def one(tmp_path_factory) -> Path:
    """A checkpoint for what does not depend on the family."""
    return make_whisper(tmp_path_factory.mktemp("one"))


@pytest.fixture(scope="module")
def export_speech(tmp_path_factory):
    """Return a function that exports once for every choice."""
    made: dict[tuple[Path, int], SpeechBundle] = {}

    def export(checkpoint: Path, bits: int) -> SpeechBundle:
        if (checkpoint, bits) not in made:
            out = tmp_path_factory.mktemp("bundles") / f"{checkpoint.name}-{bits}"
            assert main(["speech", str(checkpoint), str(out), "--bits", str(bits)]) == 0
            made[checkpoint, bits] = SpeechBundle.open(out)
        return made[checkpoint, bits]

    return export


@pytest.fixture(scope="module")
def model(checkpoint):
    return transformers.AutoModelForSpeechSeq2Seq.from_pretrained(checkpoint).eval()


def wave_of(samples: int) -> np.ndarray:
    """Chirps over noise: no two stretches of it are alike."""
    time = np.arange(samples) / RATE
    noise = np.random.default_rng(samples).normal(0, 0.05, samples)
    return (0.5 * np.sin(2 * np.pi * (300 + 900 * time) * time) + noise).astype(np.float32)


def prompt_of(bundle: SpeechBundle) -> list[int]:
    tokens = bundle.manifest.tokens
    chosen = [tokens.start, tokens.languages.get("de"), tokens.transcribe, tokens.no_timestamps]
    return [token for token in chosen if token is not None]


def features_of(checkpoint: Path, wave: np.ndarray):
    extractor = transformers.AutoFeatureExtractor.from_pretrained(checkpoint)
    return extractor(wave, sampling_rate=RATE, return_tensors="pt", return_attention_mask=True)


def generate(checkpoint: Path, model, wave: np.ndarray, bundle: SpeechBundle) -> list[int]:
    """What transformers writes after the prompt."""
    heard = features_of(checkpoint, wave)
    if bundle.manifest.architecture.family == "whisper":
        heard = {"input_features": heard["input_features"], "language": "de", "task": "transcribe"}
    with torch.no_grad():
        written = model.generate(**heard, max_new_tokens=LIMIT, do_sample=False)[0].tolist()
    prompt = prompt_of(bundle)
    return written[len(prompt) :] if written[: len(prompt)] == prompt else written


def on_board(bundle: SpeechBundle, tmp_path: Path, **given):
    np.savez(tmp_path / "given.npz", **{"limit": LIMIT, "prompt": prompt_of(bundle), **given})
    command = [sys.executable, ON_BOARD, bundle.path, tmp_path / "given.npz", tmp_path / "found.npz"]
    subprocess.run(command, check=True, timeout=120)
    return np.load(tmp_path / "found.npz")


@pytest.mark.parametrize("samples", [9_000, 16_000, 30_000])
def test_in_float32_a_board_writes_what_transformers_does(checkpoint, model, export_speech, tmp_path, samples):
    bundle, wave = export_speech(checkpoint, 32), wave_of(samples)
    found = on_board(bundle, tmp_path, wave=wave)
    expected = generate(checkpoint, model, wave[:RATE] if bundle.manifest.audio.mel else wave, bundle)
    assert len(set(expected)) > 3
    assert found["ids"].tolist() == expected
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    assert str(found["text"]) == tokenizer.decode(expected, skip_special_tokens=True)


@pytest.mark.parametrize("bits", [32, 8])
def test_logits_are_those_of_transformers(checkpoint, model, export_speech, tmp_path, bits):
    bundle, wave = export_speech(checkpoint, bits), wave_of(RATE)
    forced = np.random.default_rng(5).integers(0, 250, LIMIT)
    found = on_board(bundle, tmp_path, wave=wave, forced=forced)["logits"]
    heard = features_of(checkpoint, wave)
    if bundle.manifest.audio.mel:
        del heard["attention_mask"]
    ids = torch.tensor([[*prompt_of(bundle), *forced]])
    with torch.no_grad():
        expected = model(**heard, decoder_input_ids=ids).logits[0, len(prompt_of(bundle)) - 1 : -1].numpy()
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    print(f"{bundle.path.name}: off by {error:.5f} of the logits' norm")
    assert error < (1e-4 if bits == 32 else TOLERANCE)


def test_what_is_heard_is_what_transformers_hears(checkpoint, export_speech, tmp_path):
    bundle, wave = export_speech(checkpoint, 32), wave_of(12_345)
    found, expected = on_board(bundle, tmp_path, wave=wave), features_of(checkpoint, wave)
    name = "input_features" if bundle.manifest.audio.mel else "input_values"
    np.testing.assert_allclose(found[name], expected[name].numpy(), atol=1e-4)


def test_the_shortest_wave_is_as_long_as_the_manifest_says(checkpoint, export_speech, tmp_path):
    bundle = export_speech(checkpoint, 32)
    shortest = bundle.manifest.audio.min_samples
    assert np.isfinite(on_board(bundle, tmp_path, wave=wave_of(shortest))["logits"]).all()
    if shortest > 1:
        with pytest.raises(subprocess.CalledProcessError):
            on_board(bundle, tmp_path, wave=wave_of(shortest - 1))


def test_the_manifest_says_what_a_board_needs(checkpoint, export_speech):
    manifest = export_speech(checkpoint, 8).manifest
    tokens, shape, audio = manifest.tokens, manifest.architecture, manifest.audio
    assert (manifest.kind, manifest.bits, manifest.licence, audio.sampling_rate) == ("speech", 8, "mit", RATE)
    assert (shape.vocab_size, shape.hidden_size, shape.n_heads, shape.head_dim) == (300, 64, 4, 16)
    assert set(manifest.quality) == {"kl", "top1_agreement"}
    if shape.family == "whisper":
        assert (shape.n_encoder_layers, shape.n_decoder_layers, shape.max_positions) == (2, 3, 40)
        assert (audio.mel.n_mels, audio.mel.n_fft, audio.mel.hop_length, audio.mel.n_frames) == (20, 400, 160, 100)
        assert (tokens.start, tokens.ends, tokens.languages) == (START, (END,), {"en": 258, "de": 259, "haw": 260})
        assert (tokens.translate, tokens.transcribe, tokens.no_speech, tokens.no_timestamps) == (261, 262, 263, 264)
        assert (tokens.suppressed, tokens.suppressed_first) == ((7, 40), (32, END))
    else:
        assert (audio.mel, tokens.start, tokens.ends, tokens.languages) == (None, 257, (258,), {})


def test_eight_bits_make_a_smaller_bundle(checkpoint, export_speech):
    sizes = [sum(entry.bytes for entry in export_speech(checkpoint, bits).manifest.files.values()) for bits in (8, 32)]
    assert sizes[0] < 0.7 * sizes[1]


def test_the_tokenizer_neither_cuts_nor_pads(checkpoint, export_speech):
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(export_speech(checkpoint, 32).tokenizer_path))
    assert (tokenizer.truncation, tokenizer.padding) == (None, None)


# Neighbours load the folder as it lies there.


def test_optimum_writes_the_same(checkpoint, model, export_speech):
    optimum = pytest.importorskip("optimum.onnxruntime", reason="make test-oracles installs optimum-onnx")
    bundle, wave = export_speech(checkpoint, 32), wave_of(RATE)
    theirs = optimum.ORTModelForSpeechSeq2Seq.from_pretrained(bundle.path)
    assert generate(bundle.path, theirs, wave, bundle) == generate(checkpoint, model, wave, bundle)


def test_onnx_asr_writes_the_same(tmp_path):
    onnx_asr = pytest.importorskip("onnx_asr", reason="make test-oracles installs onnx-asr")
    sound = {"num_mel_bins": 80, "max_source_positions": 1500, "max_target_positions": 448}  # it takes none other
    checkpoint = make_whisper(tmp_path / "whisper", vocab_size=265, encoder_layers=1, decoder_layers=1, **sound)
    assert main(["speech", str(checkpoint), str(tmp_path / "out"), "--bits", "32"]) == 0
    bundle, wave = SpeechBundle.open(tmp_path / "out"), wave_of(RATE)
    theirs = onnx_asr.load_model("whisper", bundle.path)
    # It suppresses nothing, and ends at the 448th token: what it says begins as ours does without suppression.
    manifest = json.loads((bundle.path / "manifest.json").read_text())
    manifest["tokens"] |= {"suppressed": [], "suppressed_first": []}
    (bundle.path / "manifest.json").write_text(json.dumps(manifest))
    found = str(on_board(bundle, tmp_path, wave=wave)["text"])
    assert len(found) > 3
    assert theirs.recognize(wave, sample_rate=RATE, language="de").startswith(found.strip())


# What goes wrong.


def test_weights_that_are_missing_are_not_made_up(one, tmp_path, capsys):
    from safetensors.numpy import load_file, save_file

    broken = shutil.copytree(one, tmp_path / "broken")
    tensors = load_file(broken / "model.safetensors")
    gone = min(name for name in tensors if "decoder.layers.1." in name)
    del tensors[gone]
    save_file(tensors, broken / "model.safetensors", {"format": "pt"})
    assert main(["speech", str(broken), str(tmp_path / "out")]) == 1
    assert f"{gone} is missing in its weights" in capsys.readouterr().err
    assert names_in(tmp_path) == ["broken"]


@pytest.mark.parametrize("bits", [8, 32])
def test_weights_that_are_no_numbers_are_refused(one, tmp_path, capsys, bits):
    from safetensors.numpy import load_file, save_file

    broken = shutil.copytree(one, tmp_path / "broken")
    tensors = load_file(broken / "model.safetensors")
    bad = min(name for name in tensors if "decoder.layers.1." in name)
    tensors[bad].reshape(-1)[0] = np.nan
    save_file(tensors, broken / "model.safetensors", {"format": "pt"})
    assert main(["speech", str(broken), str(tmp_path / "out"), "--bits", str(bits)]) == 1
    assert f"{broken}: {bad} holds numbers that are not finite" in capsys.readouterr().err
    assert names_in(tmp_path) == ["broken"]


@pytest.mark.parametrize("change", [{"activation_function": "nope"}, {"d_model": 32}])
def test_a_configuration_that_the_weights_do_not_fit_is_one_line(one, tmp_path, capsys, change):
    broken = shutil.copytree(one, tmp_path / "broken")
    config = json.loads((broken / "config.json").read_text()) | change
    (broken / "config.json").write_text(json.dumps(config))
    assert main(["speech", str(broken), str(tmp_path / "out")]) == 1
    (line,) = (line for line in capsys.readouterr().err.splitlines() if "edge-assistant-export: error" in line)
    assert f"{broken}: its weights cannot be read" in line
    assert line.endswith("download it again")


@pytest.mark.parametrize("content", [b"", b"nonsense" * 100])
def test_weights_that_cannot_be_read_are_named(one, tmp_path, capsys, content):
    broken = shutil.copytree(one, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(content)
    assert main(["speech", str(broken), str(tmp_path / "out")]) == 1
    assert f"{broken}: its weights cannot be read" in capsys.readouterr().err


def test_a_float32_graph_of_other_weights_is_refused(checkpoint, model, export_speech):
    bundle = export_speech(checkpoint, 32)
    manifest = describe_speech(open_speech(checkpoint), bits=32, name="x")
    assert speech_quality(model, bundle.path, manifest)["top1_agreement"] == 1
    with torch.no_grad():
        head = model.get_output_embeddings().weight
        head.copy_(head.flip(0))
    with pytest.raises(VerificationError, match="KL divergence"):
        speech_quality(model, bundle.path, manifest)
    with torch.no_grad():
        head.copy_(head.flip(0))


@pytest.mark.parametrize("with_past", [False, True])
def test_a_float32_graph_one_of_whose_branches_is_wrong_is_refused(one, export_speech, tmp_path, with_past):
    import onnx
    from onnx import helper

    folder = shutil.copytree(export_speech(one, 32).path, tmp_path / "wrong")
    graph = onnx.load(folder / DECODER_FILE)
    (choice,) = (node for node in graph.graph.node if node.op_type == "If")
    (branch,) = (held.g for held in choice.attribute if held.name == ("then_branch" if with_past else "else_branch"))
    (last,) = (node for node in branch.node if "logits" in node.output)
    last.output[list(last.output).index("logits")] = "turned"
    branch.node.append(helper.make_node("Neg", ["turned"], ["logits"]))
    onnx.save(graph, folder / DECODER_FILE)
    model = transformers.AutoModelForSpeechSeq2Seq.from_pretrained(one).eval()
    with pytest.raises(VerificationError, match="KL divergence"):
        speech_quality(model, folder, describe_speech(open_speech(one), bits=32, name="x"))


@pytest.mark.parametrize("bits", [8, 32])
def test_weights_that_compute_no_number_are_refused(one, tmp_path, capsys, bits):
    from safetensors.numpy import load_file, save_file

    broken = shutil.copytree(one, tmp_path / "broken")
    tensors = load_file(broken / "model.safetensors")
    tensors["model.decoder.layers.0.fc1.weight"][:] = 1e30
    save_file(tensors, broken / "model.safetensors", {"format": "pt"})
    assert main(["speech", str(broken), str(tmp_path / "out"), "--bits", str(bits)]) == 1
    assert "computes what is no number" in capsys.readouterr().err
    assert names_in(tmp_path) == ["broken"]


def test_a_disk_with_too_little_room_is_refused_before_a_graph_is_written(one, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=10_000_000))
    assert main(["speech", str(one), str(tmp_path / "out")]) == 1
    errors = capsys.readouterr().err
    assert f"{tmp_path / 'out'} needs 0.07 GB, and 0.01 GB are free there" in errors
    assert "writing" not in errors
    assert names_in(tmp_path) == []


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def export_in_a_child(checkpoint, out, **options) -> subprocess.Popen:
    program = "from edge_assistant_export.cli import main; raise SystemExit(main())"
    command = [sys.executable, "-c", program, "speech", checkpoint, out]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options)


@pytest.mark.parametrize("limit", [20_000, 200_000, 500_000])
def test_a_disk_that_is_too_small_leaves_nothing(one, tmp_path, limit):
    """The first limit stops torch, the others the quantiser and what follows."""

    def at_most():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    with export_in_a_child(one, tmp_path / "out", preexec_fn=at_most) as child:
        _, errors = child.communicate(timeout=120)
    assert child.returncode == 1
    assert f"error: {tmp_path / 'out'} could not be written" in errors.splitlines()[-1]
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("stage", ["writing the graphs", "rounding", "merging", "comparing"])
def test_ctrl_c_leaves_nothing(one, tmp_path, stage):
    with export_in_a_child(one, tmp_path / "out") as child:
        while stage not in (line := child.stderr.readline()):
            assert line, "it ended before"
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=120)
    assert child.returncode == 130
    assert errors.splitlines()[-1] == "edge-assistant-export: interrupted"
    assert names_in(tmp_path) == []


def test_what_a_killed_export_left_is_cleared_away(one, tmp_path):
    with export_in_a_child(one, tmp_path / "out") as child:
        while "rounding" not in child.stderr.readline():
            assert child.poll() is None
        child.kill()
    assert names_in(tmp_path) == [".out.partial"]
    assert main(["speech", str(one), str(tmp_path / "out")]) == 0
    assert names_in(tmp_path) == ["out"]
    files = SpeechBundle.open(tmp_path / "out").manifest.files
    assert names_in(tmp_path / "out") == sorted([*files, "manifest.json"])


def test_json_is_all_that_standard_output_holds(one, tmp_path, capsys):
    assert main(["speech", str(one), str(tmp_path / "out"), "--json", "--name", "ears"]) == 0
    printed = json.loads(capsys.readouterr().out)
    files = {file.name: file.stat().st_size for file in (tmp_path / "out").iterdir()}
    del files["manifest.json"]
    assert printed["files"] == files
    assert (printed["name"], printed["kind"], printed["bytes"]) == ("ears", "speech", sum(files.values()))
    assert main(["speech", str(one), str(tmp_path / "out"), "--overwrite", "--bits", "32"]) == 0
    assert SpeechBundle.open(tmp_path / "out").manifest.bits == 32
