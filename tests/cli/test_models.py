from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import pytest

from edge_assistant import cli, config
from edge_assistant.bundle import (
    FORMAT_VERSION,
    MANIFEST_FILE,
    SEEN_FILE,
    WEIGHTS_FILE,
    AudioSpec,
    Bundle,
    FileEntry,
    Origin,
    SpeechArchitecture,
    SpeechManifest,
    SpeechTokens,
    folder,
)
from edge_assistant.engine import Adapter


@pytest.fixture
def bundle(tiny_bundle, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(tiny_bundle().path, tmp_path / "source"))


def spoil(bundle: Path) -> None:
    weights = bundle / WEIGHTS_FILE
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)


def test_verify_finds_one_flipped_bit(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["models", "verify", str(bundle)]) == cli.OK
    spoil(bundle)
    assert cli.main(["models", "verify", str(bundle)]) == cli.FAILED
    assert f"{bundle / WEIGHTS_FILE} is corrupt" in capsys.readouterr().err


def test_verify_hashes_every_file_once_though_all_were_seen_before(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Bundle.open(bundle, config.state_directory() / SEEN_FILE)
    hashed = []
    hash_of = folder._sha256
    monkeypatch.setattr(folder, "_sha256", lambda path: hashed.append(path.name) or hash_of(path))
    assert cli.main(["models", "verify", str(bundle)]) == cli.OK
    monkeypatch.undo()
    assert sorted(hashed) == sorted(Bundle.open(bundle).manifest.files)


def test_a_model_that_was_added_is_found_by_its_name(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = Bundle.open(bundle).manifest.name
    for _ in range(2):  # a second time replaces it
        assert cli.main(["models", "add", str(bundle)]) == cli.OK
    capsys.readouterr()
    assert cli.main(["models", "verify", name]) == cli.OK
    assert cli.main(["models", "list", "--json"]) == cli.OK
    out = capsys.readouterr().out
    assert str(config.state_directory() / "models" / name) in [row["path"] for row in json.loads(out.split("\n", 1)[1])]


def test_a_model_that_was_added_is_the_same_after_it_is_added_from_there(bundle: Path) -> None:
    assert cli.main(["models", "add", str(bundle)]) == cli.OK
    name = Bundle.open(bundle).manifest.name
    assert cli.main(["models", "add", str(config.state_directory() / "models" / name)]) == cli.OK
    assert cli.main(["models", "verify", name]) == cli.OK


def test_a_corrupt_model_is_not_added_and_nothing_of_it_is_left(bundle: Path) -> None:
    spoil(bundle)
    assert cli.main(["models", "add", str(bundle)]) == cli.FAILED
    assert list((config.state_directory() / "models").iterdir()) == []


def test_a_model_that_lacks_a_file_is_not_copied(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (bundle / WEIGHTS_FILE).unlink()
    assert cli.main(["models", "add", str(bundle)]) == cli.FAILED
    assert f"{bundle / WEIGHTS_FILE} is missing: copy the whole bundle again" in capsys.readouterr().err
    assert not (config.state_directory() / "models").exists()


def test_a_model_that_is_half_copied_when_the_power_goes_is_not_listed(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    listings = []

    def copy(source: Path, target: Path) -> None:
        listings.append(listed())
        shutil.copyfile(source, target)

    def listed() -> str:
        assert cli.main(["models", "list", "--json"]) == cli.OK
        return capsys.readouterr().out

    monkeypatch.setattr(shutil, "copy2", copy)
    assert cli.main(["models", "add", str(bundle)]) == cli.OK
    assert len(listings) == len(Bundle.open(bundle).manifest.files) + 1
    assert not any(".partial" in listing for listing in listings)
    assert Bundle.open(bundle).manifest.name in listed()


def test_a_model_that_stepped_aside_when_the_power_went_is_put_back(bundle: Path) -> None:
    """As a kill between the two renames of `models add` leaves it, with a source that is broken by now."""
    assert cli.main(["models", "add", str(bundle)]) == cli.OK
    models, name = config.state_directory() / "models", Bundle.open(bundle).manifest.name
    (models / name).rename(models / f".{name}.old")
    spoil(bundle)
    assert cli.main(["models", "add", str(bundle)]) == cli.FAILED
    assert [path.name for path in models.iterdir()] == [name]
    assert cli.main(["models", "verify", name]) == cli.OK


def test_a_model_that_cannot_take_its_place_leaves_the_one_before(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli.main(["models", "add", str(bundle)]) == cli.OK
    rename = Path.rename

    def refused(self: Path, target: Path) -> Path:
        if self.name.endswith(".partial"):
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refused)
    assert cli.main(["models", "add", str(bundle)]) == cli.FAILED
    name = Bundle.open(bundle).manifest.name
    assert [path.name for path in (config.state_directory() / "models").iterdir()] == [name]
    assert cli.main(["models", "verify", name]) == cli.OK


def test_a_model_for_which_there_is_no_room_is_not_copied(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: shutil._ntuple_diskusage(1000, 999, 1))
    monkeypatch.setattr(shutil, "copy2", lambda *_: pytest.fail("copied"))
    assert cli.main(["models", "add", str(bundle)]) == cli.FAILED
    assert "GB are free there: make room" in capsys.readouterr().err


def test_a_model_whose_name_leads_elsewhere_is_refused_and_removes_nothing(bundle: Path) -> None:
    treasure = config.state_directory() / "treasure"
    treasure.mkdir(parents=True)
    for name in ("../treasure", str(treasure), ".", ""):
        manifest = json.loads((bundle / MANIFEST_FILE).read_text())
        (bundle / MANIFEST_FILE).write_text(json.dumps(manifest | {"name": name}))
        for command in (["models", "add", str(bundle)], ["warm", "--model", str(bundle)]):
            assert cli.main(command) == cli.FAILED
    assert treasure.is_dir()


def test_a_folder_that_cannot_be_read_is_named_and_the_others_are_listed(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["models", "add", str(bundle)]) == cli.OK
    broken = config.state_directory() / "models" / "broken"
    broken.mkdir()
    (broken / MANIFEST_FILE).write_text("{")
    capsys.readouterr()
    assert cli.main(["models", "list", "--json"]) == cli.OK
    said = capsys.readouterr()
    assert Bundle.open(bundle).manifest.name in [row["name"] for row in json.loads(said.out)]
    assert said.err.startswith(f"edge-assistant: not listed: {broken / MANIFEST_FILE} is no manifest")


@pytest.mark.parametrize("command", ["ask", "models inspect", "models verify", "models add", "tune"])
def test_a_path_that_is_not_in_utf_8_is_refused_by_name(
    bundle: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    moved = bundle.rename(bundle.with_name(os.fsdecode(b"caf\xe9")))
    words = [*command.split(), *([str(moved)] if "models" in command else ["--model", str(moved)])]
    assert cli.main([*words, "hi"] if command == "ask" else words) == cli.FAILED
    assert r"caf\xe9 is no path in UTF-8: rename it" in capsys.readouterr().err


def test_a_folder_whose_name_is_not_in_utf_8_is_named_beside_the_list(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = config.state_directory() / "models"
    shutil.copytree(bundle, models / os.fsdecode(b"caf\xe9"))
    assert cli.main(["models", "list"]) == cli.OK
    assert "not listed: " in (said := capsys.readouterr().err)
    assert r"caf\xe9 is no path in UTF-8" in said


@pytest.mark.parametrize("command", ["tune", "warm"])
def test_a_state_directory_that_is_not_in_utf_8_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / os.fsdecode(b"caf\xe9")))
    assert cli.main([command, "--model", "home-mini"]) == cli.FAILED
    assert r"caf\xe9/edge-assistant/" in (said := capsys.readouterr().err)
    assert "is no path in UTF-8" in said


def test_inspect_says_how_much_context_the_settings_give(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EDGE_ASSISTANT_ENGINE__KV_CACHE_BYTES", "51200")
    assert cli.main(["models", "inspect", str(bundle)]) == cli.OK
    assert "512 bytes a token, 100 of 512 tokens in 51200 bytes\n" in capsys.readouterr().out
    monkeypatch.setenv("EDGE_ASSISTANT_ENGINE__SEQUENCES", "3")
    assert cli.main(["models", "inspect", str(bundle)]) == cli.OK
    assert "33 of 512 tokens in 51200 bytes for each of 3 sequences\n" in capsys.readouterr().out


@pytest.mark.parametrize(("kinds", "beyond"), [(("sliding",) * 2, 0), (("full", "sliding"), 256)])
def test_inspect_says_from_where_on_a_window_takes_no_more(
    tiny_bundle, capsys: pytest.CaptureFixture[str], kinds: tuple[str, ...], beyond: int
) -> None:
    layers = [f"{kind}_attention" for kind in kinds]
    bundle = tiny_bundle({"sliding_window": 8, "max_position_embeddings": 4096, "layer_types": layers})
    assert cli.main(["models", "inspect", str(bundle.path)]) == cli.OK
    assert f"512 bytes a token ({beyond} beyond 1032), 4096 of 4096 tokens" in capsys.readouterr().out


def test_inspect_names_the_matrices_that_are_stored_better(tiny_bundle, capsys: pytest.CaptureFixture[str]) -> None:
    better = {"eight_bits": ("embedding", "lm_head"), "small_blocks": ("layers.0.o",)}
    assert cli.main(["models", "inspect", str(tiny_bundle(bits=4, block_size=64, **better).path)]) == cli.OK
    out = capsys.readouterr().out
    assert "weights:    4 bit in blocks of 64\n" in out
    assert "8 bit:      embedding, lm_head\n" in out
    assert "block 32:   layers.0.o\n" in out
    assert cli.main(["models", "inspect", str(tiny_bundle().path)]) == cli.OK
    assert "weights:    32 bit\n" in capsys.readouterr().out


def test_inspect_names_the_adapters_that_a_graph_takes(tiny_bundle, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["models", "inspect", str(tiny_bundle(lora_rank=4).path)]) == cli.OK
    assert "adapters:   up to rank 4 in qkv, o, gate_up, down\n" in capsys.readouterr().out
    assert cli.main(["models", "inspect", str(tiny_bundle().path)]) == cli.OK
    assert "adapters" not in capsys.readouterr().out


def test_inspect_as_json_is_the_manifest(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["models", "inspect", str(bundle), "--json"]) == cli.OK
    shown = json.loads(capsys.readouterr().out)
    assert shown.pop("path") == str(bundle)
    assert shown == json.loads(Bundle.open(bundle).manifest.to_json())


def test_bench_measures_speeds_memory_and_the_roofline(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench", "--model", str(bundle), "--prompt-tokens", "20", "--new-tokens", "5", "--json"]
    assert cli.main(words) == cli.OK
    result = json.loads(capsys.readouterr().out)
    assert result.pop("model") == Bundle.open(bundle).manifest.name
    operators = result.pop("operators")
    assert set(result) == {
        "load_s", "prefill_tokens_per_s", "decode_tokens_per_s", "anonymous_bytes", "file_bytes", "read_bytes_per_s",
        "weight_bytes_per_token", "cache_bytes_per_token", "ceiling_tokens_per_s", "ceiling_share",
    }  # fmt: skip
    assert all(value > 0 for value in result.values())
    assert 0 < operators["GroupQueryAttention"] < 1
    read = result["weight_bytes_per_token"] + result["cache_bytes_per_token"]
    assert result["ceiling_tokens_per_s"] == pytest.approx(result["read_bytes_per_s"] / read, rel=0.01)


@pytest.mark.parametrize("option", ["--prompt-tokens=0", "--prompt-tokens=-3", "--new-tokens=1", "--new-tokens=many"])
def test_bench_refuses_what_has_no_speed(bundle: Path, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["bench", "--model", str(bundle), option])
    assert ended.value.code == cli.USAGE
    assert "is no whole number from" in capsys.readouterr().err


def test_bench_measures_two_tokens(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench", "--model", str(bundle), "--prompt-tokens", "1", "--new-tokens", "2", "--json"]
    assert cli.main(words) == cli.OK
    assert json.loads(capsys.readouterr().out)["decode_tokens_per_s"] > 0


def test_bench_prints_a_line_for_each_operator(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "--model", str(bundle), "--prompt-tokens", "20", "--new-tokens", "5"]) == cli.OK
    lines = dict(line.split(":", 1) for line in capsys.readouterr().out.splitlines())
    assert float(lines["ceiling"].removesuffix(" tokens/s")) > 0
    assert lines["read"].endswith("B/s")
    assert lines["  GroupQueryAttention"].endswith("%")


def test_bench_counts_an_adapter(tiny_bundle, lora_file, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = tiny_bundle(lora_rank=4)
    file = lora_file(tmp_path / "some.npz", bundle)
    words = ["bench", "--model", str(bundle.path), "--prompt-tokens", "20", "--new-tokens", "5", "--json"]
    assert cli.main([*words, "--adapter", str(file)]) == cli.OK
    assert json.loads(capsys.readouterr().out)["adapter_bytes"] == Adapter.load(file, bundle.manifest).nbytes


@pytest.fixture
def ears() -> Path:
    """A bundle of another kind, in the folder in which models are looked for."""
    path = config.state_directory() / "models" / "ears"
    path.mkdir(parents=True)
    for name in ("encoder_model.onnx", "decoder_model_merged.onnx", "tokenizer.json"):
        (path / name).write_bytes(b"not a graph, but as long as one that is not")
    files = {file.name: FileEntry.of(file) for file in path.iterdir()}
    manifest = SpeechManifest(
        format_version=FORMAT_VERSION,
        kind="speech",
        name="ears",
        created_by="a test",
        architecture=SpeechArchitecture("moonshine", 288, 6, 6, 8, 8, 36, 32768, 194),
        bits=8,
        audio=AudioSpec(16000, 895, None),
        tokens=SpeechTokens(1, (2,), {}, None, None, None, None, (), ()),
        licence="MIT",
        source=Origin("a test", None),
        files=files,
        quality={"kl": 0.25},
    )
    (path / MANIFEST_FILE).write_text(manifest.to_json())
    return path


def test_models_of_every_kind_are_listed_inspected_verified_and_added(
    bundle: Path, ears: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["models", "add", str(bundle)]) == cli.OK
    assert cli.main(["models", "add", str(ears)]) == cli.OK
    assert cli.main(["models", "verify", "ears"]) == cli.OK
    capsys.readouterr()
    assert cli.main(["models", "list", "--json"]) == cli.OK
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert (rows["ears"]["kind"], rows["ears"]["bits"]) == ("speech", 8)
    assert rows[Bundle.open(bundle).manifest.name]["kind"] == "language"
    assert cli.main(["models", "inspect", "ears"]) == cli.OK
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("moonshine, 8 bit", "16000 samples a second", "kl 0.25", "MIT"))


def test_a_model_of_another_kind_does_not_answer(ears: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "--model", "ears"]) == cli.FAILED
    assert "is that of a bundle for speech, and one for language is wanted" in capsys.readouterr().err
