"""Moving packed weights: the graph stays what it was, and every piece of the file is where the graph says."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
import pytest

from edge_assistant.bundle import Bundle
from edge_assistant.config import EngineSettings
from edge_assistant.engine.align import align
from edge_assistant.engine.runtime import save_prepacked

ModelProto = ir.serde.onnx.ModelProto
MODELS = Path(__file__).parents[2] / "models"


def saved(bundle: Bundle, folder: Path) -> tuple[Path, Path]:
    save_prepacked(bundle, EngineSettings(threads=1), folder)
    return folder / "model.onnx", folder / "model.onnx.data"


def pieces(graph: Path, data: Path) -> dict[tuple[str, str, int], tuple[int, bytes]]:
    """Return each piece's offset and bytes, by its tensor, what it is, and which blob of it."""
    stored, found = data.read_bytes(), {}
    for tensor in ModelProto.FromString(graph.read_bytes()).graph.initializer:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        if "offset" in entries:
            offset, length = int(entries["offset"]), int(entries["length"])
            found[tensor.name, "raw", 0] = offset, stored[offset : offset + length]
        for key in (key for key in entries if key.startswith("prepacked_")):
            name, *blobs = entries[key].split("|")
            for number, blob in enumerate(blobs):
                offset, length, _ = map(int, blob.split(";"))
                found[tensor.name, f"{key} {name}", number] = offset, stored[offset : offset + length]
    return found


def without_places(graph: Path) -> bytes:
    model = ModelProto.FromString(graph.read_bytes())
    for tensor in model.graph.initializer:
        tensor.ClearField("external_data")
    return model.SerializeToString(deterministic=True)


@pytest.mark.parametrize("model", ["home-mini-moe", None])
def test_every_piece_is_aligned_and_what_it_was(model, tiny_bundle, tmp_path):
    graph, data = saved(Bundle.open(MODELS / model) if model else tiny_bundle(bits=4), tmp_path)
    before, rest = pieces(graph, data), without_places(graph)
    assert any(offset % 64 for (_, kind, _), (offset, _) in before.items() if kind != "raw")
    align(graph, data)
    after = pieces(graph, data)
    assert all(offset % 64 == 0 for offset, _ in after.values())
    assert {key: piece for key, (_, piece) in after.items()} == {key: piece for key, (_, piece) in before.items()}
    assert without_places(graph) == rest
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "model.onnx.data"]


def test_what_is_aligned_stays_as_it_is(tmp_path):
    graph, data = saved(Bundle.open(MODELS / "home-mini"), tmp_path)
    align(graph, data)
    inode = data.stat().st_ino
    written = graph.read_bytes(), data.read_bytes()
    align(graph, data)
    assert (graph.read_bytes(), data.read_bytes(), data.stat().st_ino) == (*written, inode)


def test_a_file_that_is_too_short_is_an_error(tiny_bundle, tmp_path):
    graph, data = saved(tiny_bundle(bits=4), tmp_path)
    data.write_bytes(data.read_bytes()[:-10])
    with pytest.raises(OSError, match="before its graph says"):
        align(graph, data)
