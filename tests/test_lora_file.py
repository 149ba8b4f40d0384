"""The file of an adapter: what is written is read, and what is damaged or does not fit is refused by name."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_assistant.bundle import (
    AdapterSource,
    Architecture,
    CacheSpec,
    Factors,
    FileEntry,
    LoraAbout,
    LoraFile,
    LoraSpec,
    Manifest,
    Quantization,
    Source,
)
from edge_assistant.errors import LoraBaseError, LoraFileError, LoraGraphError

HIDDEN, QUERIES, KEYS, FFN = 8, 12, 6, 20
SHAPES = {
    "q": (HIDDEN, QUERIES),
    "k": (HIDDEN, KEYS),
    "v": (HIDDEN, KEYS),
    "o": (QUERIES, HIDDEN),
    "gate": (HIDDEN, FFN),
    "up": (HIDDEN, FFN),
    "down": (FFN, HIDDEN),
}
MANIFEST = Manifest(
    format_version=1,
    kind="language",
    name="small",
    created_by="a test",
    architecture=Architecture(
        family="mistral",
        n_layers=12,
        hidden_size=HIDDEN,
        n_heads=4,
        n_kv_heads=2,
        head_dim=3,
        ffn_size=FFN,
        vocab_size=50,
        rope_theta=1e4,
        norm_eps=1e-5,
        sliding_window=None,
        tied_embedding=False,
        max_positions=64,
        n_experts=0,
        n_experts_per_token=0,
        full_attention_layers=(),
        yarn=None,
    ),
    quantization=Quantization(32, (), None, (), False, 0, "none"),
    cache=CacheSpec("float32", None),
    instruct=None,
    special_ids={},
    licence=None,
    source=Source("small", "huggingface", None, None),
    assistant=None,
    files={"model.onnx.data": FileEntry(1, 64 * "b")},
    quality=None,
    lora=LoraSpec(4, ("qkv", "o", "gate_up", "down")),
)
ABOUT = LoraAbout.of(AdapterSource("tuned", None, 64 * "a", 4, 8.0, 2.0, "some/base"), MANIFEST, ())


def factors(part: str, rank: int, seed: int = 0) -> Factors:
    row_size, n_rows = SHAPES[part]
    random = np.random.default_rng(seed)
    return Factors(
        random.standard_normal((row_size, rank), np.float32), random.standard_normal((rank, n_rows), np.float32)
    )


def adapter(*parts: str, rank: int = 2) -> LoraFile:
    return LoraFile(replace(ABOUT, parts=parts), {part: factors(part.rpartition(".")[2], rank) for part in parts})


SMALL = adapter("layers.0.q", "layers.11.down")


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "tuned.npz"
    path.write_bytes(SMALL.to_bytes())
    return path


def assert_same(found: LoraFile, expected: LoraFile) -> None:
    assert found.about == expected.about
    assert found.factors.keys() == expected.factors.keys()
    for name, pair in expected.factors.items():
        for one, other in zip(found.factors[name], pair, strict=True):
            assert one.dtype == np.float32
            np.testing.assert_array_equal(one, other)


@given(
    ranks=st.dictionaries(
        st.tuples(st.integers(0, 11), st.sampled_from(sorted(SHAPES))), st.integers(1, 4), max_size=8
    ),
    name=st.text(max_size=20),
    scaling=st.floats(allow_nan=False, allow_infinity=False),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_is_read_and_fits(tmp_path, ranks, name, scaling):
    pairs = {f"layers.{n}.{part}": factors(part, rank, n) for (n, part), rank in ranks.items()}
    about = replace(ABOUT, source=replace(ABOUT.source, name=name, scaling=scaling), parts=tuple(pairs))
    file = LoraFile(about, pairs)
    (tmp_path / "one.npz").write_bytes(file.to_bytes())
    found = LoraFile.read(tmp_path / "one.npz")
    assert_same(found, file)
    assert found.check(tmp_path, MANIFEST) == MANIFEST.lora


@given(share=st.floats(0, 1, exclude_max=True))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_truncated_file_is_refused(path, share):
    content = SMALL.to_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(LoraFileError, match=r"tuned\.npz is no adapter"):
        LoraFile.read(path)


@given(share=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_flipped_bit_is_refused_or_changes_nothing(path, share, bit):
    content = bytearray(SMALL.to_bytes())
    content[int(share * len(content))] ^= 1 << bit
    path.write_bytes(content)
    try:
        found = LoraFile.read(path)
    except LoraFileError:
        return
    assert_same(found, SMALL)  # a time stamp, or another field of the archive that says nothing of the content


def archive(**arrays: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()


def single(array: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


def about(**changes: object) -> np.ndarray:
    return np.frombuffer(json.dumps(asdict(ABOUT) | {"parts": ["layers.0.q"]} | changes).encode(), np.uint8)


Q = factors("q", 2)
NAMED = {"layers.0.q.A": Q.a, "layers.0.q.B": Q.b}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no data left|EOF|Cannot load|No data"),
        (b"not an archive at all", "pickled|magic|Cannot load"),
        (single(np.ones(3)), "it holds a single array"),
        (archive(**NAMED), "it has no about"),
        (archive(about=np.ones(3), **NAMED), "it has no about"),
        (archive(about=np.array([1], object)), "allow_pickle"),
        (archive(about=np.frombuffer(b"[1", np.uint8), **NAMED), "about: Invalid JSON"),
        (archive(about=about(base="short"), **NAMED), "about.base: String should match"),
        (archive(about=about(more=1), **NAMED), "about.more: Unexpected"),
        (archive(about=about(format_version=2), **NAMED), "its format_version is 2, where 1 is known"),
        (archive(about=about(), **{"layers.0.q.A": Q.a}), r"one of the two factors of layers\.0\.q is missing"),
        (archive(about=about(), **{"layers.0.q.B": Q.b}), r"one of the two factors of layers\.0\.q is missing"),
        (archive(about=about(), **NAMED, **{"layers.0.q.C": Q.a}), r"layers\.0\.q\.C is no factor that about names"),
    ],
)
def test_what_is_no_adapter_is_refused(path, content, said):
    path.write_bytes(content)
    with pytest.raises(LoraFileError, match=said):
        LoraFile.read(path)


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000000,)}",
        f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({10**30},)}}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (True, 2)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2",
        "'" * 3,
        "(" * 9000,
    ],
    ids=["vast", "endless", "bool", "open", "quotes", "deep"],
)
def test_an_array_whose_header_was_made_up_is_refused(path, header):
    with zipfile.ZipFile(path, "w") as file:
        text = f"{header}\n".encode()
        file.writestr("about.npy", b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(64))
    with pytest.raises(LoraFileError, match=r"tuned\.npz is no adapter"):
        LoraFile.read(path)


def test_a_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(LoraFileError, match=r"none\.npz is no adapter that can be read \(No such file"):
        LoraFile.read(tmp_path / "none.npz")


def with_factors(name: str, a: np.ndarray, b: np.ndarray) -> LoraFile:
    return LoraFile(ABOUT, {name: Factors(a, b)})


@pytest.mark.parametrize(
    ("file", "error", "said"),
    [
        (adapter("layers.12.q"), LoraFileError, r"layers\.12\.q is no part of this model"),
        (adapter("layers.00.q"), LoraFileError, r"layers\.00\.q is no part"),
        (with_factors("lm_head", *Q), LoraFileError, "lm_head is no part"),
        (with_factors("layers.0.router", *Q), LoraFileError, r"layers\.0\.router is no part"),
        (with_factors("layers.0.o", *Q), LoraFileError, r"layers\.0\.o is \[8, 2\] times \[2, 12\], where \[12, 8\]"),
        (with_factors("layers.0.q", Q.a, Q.b[:1]), LoraFileError, r"\[8, 2\] times \[1, 12\]"),
        (with_factors("layers.0.q", Q.a[:, :0], Q.b[:0]), LoraFileError, r"\[8, 0\] times \[0, 12\]"),
        (with_factors("layers.0.q", Q.a.astype(np.float16), Q.b), LoraFileError, r"q\.A is no matrix of float32"),
        (with_factors("layers.0.q", Q.a, Q.b[0]), LoraFileError, r"q\.B is no matrix of float32"),
        (adapter("layers.0.q", rank=5), LoraGraphError, r"rank 5, and its graph takes up to 4; .*--lora-rank"),
    ],
)
def test_what_does_not_fit_is_refused(path, file, error, said):
    with pytest.raises(error, match=said):
        file.check(path, MANIFEST)


def test_a_bundle_that_takes_no_adapter_or_not_this_one_says_so(path):
    with pytest.raises(LoraGraphError, match=r"cannot be used with small: .*export it with --lora-rank"):
        SMALL.check(path, replace(MANIFEST, lora=None))
    with pytest.raises(LoraGraphError, match=r"layers\.11\.down is none .* only qkv, o can"):
        SMALL.check(path, replace(MANIFEST, lora=LoraSpec(4, ("qkv", "o"))))
    other = replace(MANIFEST, name="larger", files={"model.onnx.data": FileEntry(1, 64 * "c")})
    with pytest.raises(LoraBaseError, match=r"made for other weights \(a bundle named small\) than those of larger"):
        SMALL.check(path, other)
