"""The bundle: what is written is read, and what does not hold is refused by name."""

from __future__ import annotations

import json
import math
import os
import resource
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_assistant.bundle import (
    FORMAT_VERSION,
    AdapterSource,
    Architecture,
    AssistantSpec,
    AudioSpec,
    Bundle,
    CacheSpec,
    EmbeddingBundle,
    EmbeddingManifest,
    EncoderArchitecture,
    FileEntry,
    LoraSpec,
    Manifest,
    MelSpec,
    Origin,
    Quantization,
    Source,
    SpeechArchitecture,
    SpeechBundle,
    SpeechManifest,
    SpeechTokens,
    Yarn,
    find_model,
    open_bundle,
    read_manifest,
    replace_text,
)
from edge_assistant.bundle import folder as folder_module
from edge_assistant.errors import (
    BundleFileMissingError,
    BundleHashError,
    BundleKindError,
    BundleManifestError,
    BundleSizeError,
    BundleVersionError,
    ModelNotFoundError,
)

CONTENT = {"model.onnx": b"graph", "model.onnx.data": b"weights" * 1000, "tokenizer.json": b"{}"}

MISTRAL_7B = Architecture(
    family="mistral",
    n_layers=32,
    hidden_size=4096,
    n_heads=32,
    n_kv_heads=8,
    head_dim=128,
    ffn_size=14336,
    vocab_size=32768,
    rope_theta=1e6,
    norm_eps=1e-5,
    sliding_window=None,
    tied_embedding=False,
    max_positions=32768,
    n_experts=0,
    n_experts_per_token=0,
    full_attention_layers=(),
    yarn=None,
)
MANIFEST = Manifest(
    format_version=FORMAT_VERSION,
    kind="language",
    name="seven",
    created_by="a test",
    architecture=MISTRAL_7B,
    quantization=Quantization(4, ("lm_head",), 64, ("layers.0.down",), False, 4, "least_squares"),
    cache=CacheSpec("float32", None),
    instruct="v3",
    special_ids={"<s>": 1, "</s>": 2},
    licence="Apache-2.0",
    source=Source("mistralai/Mistral-7B-v0.3", "mistral", "abc", None),
    assistant=AssistantSpec("You are at home.", "learnt"),
    files={},
    quality={"kl": 0.01},
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A bundle whose files hold what a test can tell apart."""
    path = tmp_path / "bundle"
    path.mkdir()
    for name, content in CONTENT.items():
        (path / name).write_bytes(content)
    write_manifest(path, replace(MANIFEST, files={name: FileEntry.of(path / name) for name in CONTENT}))
    return path


def write_manifest(path: Path, manifest: Manifest) -> None:
    (path / "manifest.json").write_text(manifest.to_json())


def edit_manifest(path: Path, edit) -> None:
    raw = json.loads((path / "manifest.json").read_text())
    edit(raw)
    (path / "manifest.json").write_text(json.dumps(raw))


def touch(path: Path) -> None:
    """Give a file another time, as any rewriting does."""
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000_000))


@given(
    name=st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="/."), min_size=1, max_size=20),
    cache=st.builds(CacheSpec, st.sampled_from(["float32", "int8"]), st.sampled_from(["bounded", "full"])),
    instruct=st.sampled_from([None, "v1", "v7-tekken"]),
    quality=st.none()
    | st.dictionaries(st.text(max_size=5), st.floats(allow_nan=False, allow_infinity=False), max_size=3),
    special_ids=st.dictionaries(st.text(max_size=8), st.integers(0, 2**31), max_size=4),
    changes=st.fixed_dictionaries(
        {"sliding_window": st.none() | st.integers(1, 2**20)},
        optional={"full_attention_layers": st.just((0, 3)), "yarn": st.just(Yarn(16.0, 16384, 32.0, 1.0, 1.0))},
    )
    | st.just({"family": "mixtral", "n_experts": 8, "n_experts_per_token": 2}),
    assistant=st.none() | st.builds(AssistantSpec, st.text(max_size=20), st.sampled_from(["learnt", "listed"])),
    tuned=st.tuples(
        st.sampled_from([None, AdapterSource("lora", None, 64 * "a", 16, 32.0, 2.0, None)]),
        st.sampled_from([None, LoraSpec(16, ("qkv", "o"))]),
    ),
)
def test_what_is_written_is_read(name, cache, instruct, quality, special_ids, changes, assistant, tuned):
    architecture = replace(MISTRAL_7B, **changes)
    manifest = replace(
        MANIFEST,
        name=name,
        cache=cache if architecture.windowed_layers else replace(cache, window=None),
        instruct=instruct,
        quality=quality,
        special_ids=special_ids,
        assistant=assistant,
        source=replace(MANIFEST.source, adapter=tuned[0]),
        architecture=architecture,
        lora=tuned[1],
    )
    assert Manifest.from_json(manifest.to_json()) == manifest


def test_every_key_is_required_and_no_other_is_taken():
    raw = json.loads(MANIFEST.to_json())
    for section in (raw, *(value for value in raw.values() if isinstance(value, dict))):
        if section in (raw["special_ids"], raw["quality"], raw["files"]):
            continue
        for key in list(section):
            if key in {"adapter", "lora", "dtype"}:
                continue
            value = section.pop(key)
            with pytest.raises(BundleManifestError, match=f"{key}: Field required"):
                Manifest.from_json(json.dumps(raw))
            section[key] = value
        section["nonsense"] = 1
        with pytest.raises(BundleManifestError, match="nonsense: Unexpected"):
            Manifest.from_json(json.dumps(raw))
        del section["nonsense"]
    assert Manifest.from_json(json.dumps(raw)) == MANIFEST
    del raw["lora"]  # as manifests were written before graphs took adapters
    assert Manifest.from_json(json.dumps(raw)) == MANIFEST


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("architecture", "n_layers", "32"),
        ("architecture", "n_layers", 0),
        ("architecture", "family", "llama"),
        ("architecture", "n_kv_heads", 5),
        ("architecture", "n_experts", 8),
        ("architecture", "n_experts_per_token", 1),
        ("architecture", "full_attention_layers", [32]),
        ("architecture", "yarn", {"factor": 16.0}),
        ("architecture", "norm_eps", math.nan),
        ("architecture", "rope_theta", math.inf),
        ("quality", "kl", math.nan),
        ("quality", "kl", -math.inf),
        ("quantization", "bits", 3),
        ("cache", "type", "float16"),
        ("cache", "window", "ring"),
        ("special_ids", "<s>", -1),
        ("files", "../../etc/passwd", {"bytes": 1, "sha256": "0" * 64}),
        ("files", "model.onnx", {"bytes": 1, "sha256": "abc"}),
    ],
)
def test_values_that_cannot_be_are_refused(section, key, value):
    raw = json.loads(MANIFEST.to_json())
    raw[section][key] = value
    with pytest.raises(BundleManifestError, match=section):
        Manifest.from_json(json.dumps(raw))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\xff", '{"format_version": "1"}', "[" * 100_000])
def test_a_manifest_that_is_none_is_refused(text):
    with pytest.raises(BundleManifestError):
        Manifest.from_json(text.encode("latin-1"))


def test_a_token_of_mistral_7b_costs_what_the_paper_says():
    assert MANIFEST.cache_size.per_token == 256 * 1024
    assert replace(MANIFEST, cache=CacheSpec("int8", None)).cache_size.per_token == 64 * 1024


@pytest.mark.parametrize("window", [4096, 32767])
@pytest.mark.parametrize("full_attention_layers", [(), (0, 3)])
def test_a_window_that_the_context_outgrows_says_what_becomes_of_it(window, full_attention_layers):
    shape = replace(MISTRAL_7B, sliding_window=window, full_attention_layers=full_attention_layers)
    with pytest.raises(ValueError, match=r"cache\.window is None"):
        replace(MANIFEST, architecture=shape)
    for kept in ("bounded", "full"):
        replace(MANIFEST, architecture=shape, cache=CacheSpec("float32", kept))


@pytest.mark.parametrize(
    "shape",
    [{}, {"sliding_window": 32768}, {"sliding_window": 4096, "full_attention_layers": tuple(range(32))}],
    ids=str,
)
def test_no_cache_is_bounded_where_nothing_leaves_a_window(shape):
    with pytest.raises(ValueError, match=r"cache\.window is bounded"):
        replace(MANIFEST, architecture=replace(MISTRAL_7B, **shape), cache=CacheSpec("float32", "bounded"))


def test_a_whole_bundle_opens(folder):
    bundle = Bundle.open(folder)
    assert bundle.manifest.name == "seven"
    assert bundle.graph_path.read_bytes() == CONTENT["model.onnx"]
    assert bundle.tokenizer_path.read_bytes() == CONTENT["tokenizer.json"]


@pytest.mark.parametrize("name", ["manifest.json", *CONTENT])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(BundleFileMissingError, match=name):
        Bundle.open(folder)


def test_another_time_s_format_is_refused_whatever_else_it_holds(folder):
    edit_manifest(folder, lambda raw: raw.update(format_version=FORMAT_VERSION + 1, something_new=True))
    with pytest.raises(BundleVersionError, match="update this runtime"):
        Bundle.open(folder)


def test_a_file_the_board_needs_must_be_listed(folder):
    edit_manifest(folder, lambda raw: raw["files"].pop("tokenizer.json"))
    with pytest.raises(BundleManifestError, match=r"tokenizer\.json is not listed"):
        Bundle.open(folder)


@pytest.mark.parametrize("content", [b"weights", b"weights" * 2000])
def test_a_size_is_checked_every_time(folder, tmp_path, content):
    seen = tmp_path / "seen.json"
    Bundle.open(folder, seen)
    (folder / "model.onnx.data").write_bytes(content)
    with pytest.raises(BundleSizeError, match=r"model\.onnx\.data"):
        Bundle.open(folder, seen)


def test_a_changed_byte_is_found_when_first_seen(folder, tmp_path):
    damage(folder / "model.onnx.data")
    for seen in (None, tmp_path / "seen.json", tmp_path / "seen.json"):
        with pytest.raises(BundleHashError, match=r"model\.onnx\.data is corrupt"):
            Bundle.open(folder, seen)


def test_a_changed_byte_is_found_when_the_time_has_changed(folder, tmp_path):
    seen = tmp_path / "state" / "seen.json"
    Bundle.open(folder, seen)
    damage(folder / "model.onnx.data")
    touch(folder / "model.onnx.data")
    with pytest.raises(BundleHashError):
        Bundle.open(folder, seen)


def test_what_was_seen_is_hashed_again_only_without_the_memory(folder, tmp_path, monkeypatch):
    seen = tmp_path / "seen.json"
    Bundle.open(folder, seen)
    data = folder / "model.onnx.data"
    before = data.stat()
    damage(data)
    os.utime(data, ns=(before.st_atime_ns, before.st_mtime_ns))
    Bundle.open(folder, seen)
    with pytest.raises(BundleHashError):
        Bundle.open(folder)

    touch(folder / "tokenizer.json")
    hashed = []
    real = folder_module._sha256
    monkeypatch.setattr(folder_module, "_sha256", lambda path: hashed.append(path.name) or real(path))
    Bundle.open(folder, seen)
    assert hashed == ["tokenizer.json"]


def test_a_new_manifest_for_the_same_files_is_not_believed(folder, tmp_path):
    seen = tmp_path / "seen.json"
    Bundle.open(folder, seen)
    edit_manifest(folder, lambda raw: raw["files"]["model.onnx"].update(sha256="0" * 64))
    with pytest.raises(BundleHashError):
        Bundle.open(folder, seen)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"x": 1}', "[" * 100_000])
def test_a_broken_memory_only_costs_time(folder, tmp_path, content):
    seen = tmp_path / "seen.json"
    seen.write_text(content)
    Bundle.open(folder, seen)
    assert str((folder / "model.onnx").resolve()) in json.loads(seen.read_text())


def test_a_memory_that_cannot_be_kept_only_costs_time(folder, tmp_path, caplog):
    (tmp_path / "file").touch()
    Bundle.open(folder, tmp_path / "file" / "seen.json")
    assert "seen.json cannot be written" in caplog.text


def test_a_model_is_found_by_path_and_by_name_in_order(folder, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    second.mkdir()
    (second / "bundle").symlink_to(folder)
    assert find_model(folder, [first]) == folder
    assert find_model("bundle", [first, second]) == second / "bundle"
    with pytest.raises(ModelNotFoundError) as caught:
        find_model("other", [first, second])
    with pytest.raises(ModelNotFoundError, match="~nobody-is-called-so"):
        find_model("~nobody-is-called-so/model", [first])
    for hint in (str(first / "other"), str(second / "other"), "edge-assistant-export model"):
        assert hint in str(caught.value)


def damage(path: Path) -> None:
    """Flip one bit in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


# The other kinds.

SPEECH = SpeechManifest(
    format_version=FORMAT_VERSION,
    kind="speech",
    name="ears",
    created_by="a test",
    architecture=SpeechArchitecture("whisper", 384, 4, 4, 6, 6, 64, 51865, 448),
    bits=8,
    audio=AudioSpec(16000, 1, MelSpec(80, 400, 160, 3000)),
    tokens=SpeechTokens(50258, (50257,), {"en": 50259}, 50359, 50358, 50363, 50362, (1, 2), (220,)),
    licence="MIT",
    source=Origin("openai/whisper-tiny", "abc"),
    files={},
    quality={"kl": 0.01},
)
EMBEDDING = EmbeddingManifest(
    format_version=FORMAT_VERSION,
    kind="embedding",
    name="finder",
    created_by="a test",
    architecture=EncoderArchitecture("bert", 12, 384, 12, 30522),
    bits=32,
    embedding_size=384,
    pooling="cls",
    normalize=True,
    max_length=512,
    pad_id=0,
    query_prompt="query: ",
    passage_prompt="",
    licence=None,
    source=Origin("BAAI/bge-small-en-v1.5", None),
    files={},
    quality={"min_cosine": 0.99},
)
OTHERS = [SPEECH, EMBEDDING]
CLASSES = {"language": Bundle, "speech": SpeechBundle, "embedding": EmbeddingBundle}


def of_kind(path: Path, manifest) -> Path:
    """A bundle whose files are small, of the kind of a manifest."""
    path.mkdir()
    names = {*manifest.REQUIRED, *({"mel_filters.npy"} if manifest.KIND == "speech" else ())}
    for name in names:
        (path / name).write_bytes(name.encode() * 10)
    write_manifest(path, replace(manifest, files={name: FileEntry.of(path / name) for name in sorted(names)}))
    return path


@pytest.fixture(params=[MANIFEST, *OTHERS], ids=lambda manifest: manifest.KIND)
def any_kind(request, tmp_path) -> Path:
    return of_kind(tmp_path / "any", request.param)


@pytest.mark.parametrize("manifest", OTHERS, ids=lambda manifest: manifest.KIND)
def test_other_kinds_read_what_they_write_and_no_other_key(manifest):
    raw = json.loads(manifest.to_json())
    assert type(manifest).from_json(manifest.to_json()) == manifest
    inner = [value for key, value in raw.items() if isinstance(value, dict) and key not in ("files", "quality")]
    for section in (raw, *inner):
        for key in list(section):
            value = section.pop(key)
            with pytest.raises(BundleManifestError, match=f"{key}: Field required"):
                type(manifest).from_json(json.dumps(raw))
            section[key] = value
        section["nonsense"] = 1
        with pytest.raises(BundleManifestError, match="nonsense: Unexpected"):
            type(manifest).from_json(json.dumps(raw))
        del section["nonsense"]


def test_every_kind_is_opened_by_what_it_says(any_kind, tmp_path):
    kind = read_manifest(any_kind).KIND
    bundle = open_bundle(any_kind, tmp_path / "seen.json")
    assert type(bundle) is CLASSES[kind]
    for other, opener in CLASSES.items():
        if other == kind:
            assert opener.open(any_kind).manifest == bundle.manifest
        else:
            with pytest.raises(BundleKindError, match=f"for {kind}, and one for {other} is wanted"):
                opener.open(any_kind)


def test_every_kind_is_checked_by_the_same_code(any_kind, tmp_path):
    seen = tmp_path / "seen.json"
    manifest = open_bundle(any_kind, seen).manifest
    for name in manifest.files:
        content = (any_kind / name).read_bytes()
        (any_kind / name).write_bytes(content[:-1])
        with pytest.raises(BundleSizeError, match=name):
            open_bundle(any_kind, seen)
        (any_kind / name).write_bytes(content)
        damage(any_kind / name)
        touch(any_kind / name)
        with pytest.raises(BundleHashError, match=name):
            open_bundle(any_kind, seen)
        (any_kind / name).unlink()
        with pytest.raises(BundleFileMissingError, match=name):
            open_bundle(any_kind, seen)
        (any_kind / name).write_bytes(content)
        edit_manifest(any_kind, lambda raw, name=name: raw["files"].pop(name))
        with pytest.raises(BundleManifestError, match=f"{name} is not listed"):
            open_bundle(any_kind)
        write_manifest(any_kind, manifest)


@pytest.mark.parametrize("name", ["", ".", "..", "../models", "/etc", "a/b", "a\nb", "a\0b"])
def test_a_name_that_leads_out_of_the_state_directory_is_refused(any_kind, name):
    edit_manifest(any_kind, lambda raw: raw.update(name=name))
    with pytest.raises(BundleManifestError, match="is no name for a folder"):
        read_manifest(any_kind)


@pytest.mark.parametrize(("version", "error"), [(1, BundleManifestError), (2, BundleVersionError)])
def test_a_kind_that_is_not_known_is_refused(any_kind, version, error):
    edit_manifest(any_kind, lambda raw: raw.update(kind="vision", format_version=version))
    with pytest.raises(error):
        open_bundle(any_kind)
    with pytest.raises(error):
        read_manifest(any_kind)


@pytest.mark.parametrize(
    ("manifest", "section", "key", "value"),
    [
        (SPEECH, "architecture", "family", "wav2vec2"),
        (SPEECH, "tokens", "start", 51865),
        (SPEECH, "tokens", "suppressed", [-1]),
        (SPEECH, "audio", "sampling_rate", 0),
        (EMBEDDING, "architecture", "family", "gpt2"),
    ],
)
def test_values_of_other_kinds_that_cannot_be_are_refused(manifest, section, key, value):
    raw = json.loads(manifest.to_json())
    raw[section][key] = value
    with pytest.raises(BundleManifestError, match=section):
        type(manifest).from_json(json.dumps(raw))


def test_a_text_that_the_disk_has_no_room_for_leaves_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "text"
    replace_text(path, "old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            replace_text(path, 2000 * "x")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
