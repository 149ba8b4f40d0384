"""Where a checkpoint lies: a folder, a folder of the hub's cache, or the hub.

The hub is a server on loopback that speaks its protocol, asked by the real client in a process of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest

from edge_assistant.errors import CheckpointError
from edge_assistant_export.checkpoint import Checkpoint
from edge_assistant_export.synth import synthesise

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OPEN = """
import sys
from edge_assistant.errors import ExportError
from edge_assistant_export.checkpoint import Checkpoint
try:
    with Checkpoint.open(*(argument or None for argument in sys.argv[1:])) as checkpoint:
        print(checkpoint.layout, checkpoint.source_name, checkpoint.revision, len(checkpoint.tokenizer_json()) > 0)
        if checkpoint.adapter:
            print(checkpoint.adapter.source.name, checkpoint.adapter.source.revision)
except ExportError as error:
    print(f"{type(error).__name__}: {error}")
"""


class Hub(ThreadingHTTPServer):
    """Serves `tiny/model`, and `tiny/gated`, whose files are refused; `fetched` is what was asked for."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.fetched: set[str] = set()
        self.broken: set[str] = set()
        self.withheld: set[str] = set()


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        parts = unquote(urlparse(self.path).path).strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            self._describe("/".join(parts[2:4]), parts[4:])
        elif parts[2:4] != ["resolve", COMMIT]:
            self._send(404, b"", {})
        elif parts[1] == "gated":
            self._send(403, b"", {"X-Error-Code": "GatedRepo"})
        else:
            self._send_file("/".join(parts[4:]))

    def _describe(self, name: str, rest: list[str]) -> None:
        if name not in {"tiny/model", "tiny/gated"}:
            return self._send(401, b"", {"X-Error-Code": "RepoNotFound"})
        if rest[1:] and rest[1] not in {"main", COMMIT}:
            return self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        folder = self.server.folder
        files = {file.relative_to(folder).as_posix(): file for file in sorted(folder.rglob("*")) if file.is_file()}
        if rest[:1] == ["tree"]:
            tree = [
                {"type": "file", "path": name, "size": file.stat().st_size, "oid": etag(file)}
                for name, file in files.items()
            ]
            return self._send(200, json.dumps(tree).encode(), {})
        siblings = [{"rfilename": name} for name in files]
        return self._send(200, json.dumps({"id": name, "sha": COMMIT, "siblings": siblings}).encode(), {})

    def _send_file(self, name: str) -> None:
        self.server.fetched.add(name)
        if name in self.server.withheld:
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
        file = self.server.folder / name
        content = file.read_bytes()
        if name in self.server.broken:
            content = content[:-1] + bytes([content[-1] ^ 1])
        return self._send(200, content, {"ETag": f'"{etag(file)}"', "X-Repo-Commit": COMMIT})

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def etag(file: Path) -> str:
    """Return the hash by which the hub knows a file: SHA-256 of large ones."""
    algorithm = "sha256" if file.suffix == ".safetensors" or file.name == "tokenizer.json" else "sha1"
    return hashlib.new(algorithm, file.read_bytes()).hexdigest()


@pytest.fixture
def hub(tiny_checkpoint, mistral_layout, tmp_path):
    """Serve a repository that holds a checkpoint in both layouts, as Mistral's own do."""
    folder = mistral_layout(tiny_checkpoint(), tmp_path / "repository")
    for file in tiny_checkpoint().iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    (folder / "training.log").write_text("not needed")
    with Hub(folder) as server:
        thread = threading.Thread(target=server.serve_forever, name="hub")
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def open_checkpoint(tmp_path):
    """Return a function that opens a hub id, in a process and with a cache of its own, and returns what is said."""

    def open_checkpoint(address: tuple[str, int], *arguments: str, offline: bool = False, program: str = OPEN) -> str:
        environment = {
            "HF_ENDPOINT": f"http://{address[0]}:{address[1]}",
            "HF_HOME": str(tmp_path / "hf"),
            "HF_HUB_OFFLINE": "1" if offline else "0",
            "HF_HUB_DISABLE_XET": "1",
            "PYTHONPATH": ":".join(sys.path),
        }
        command = [sys.executable, "-c", program, *arguments]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert result.returncode == 0, result.stderr
        return result.stdout.strip()

    return open_checkpoint


def test_a_hub_id_is_fetched_once_and_in_one_layout(hub, open_checkpoint):
    expected = f"huggingface tiny/model {COMMIT} True"
    assert open_checkpoint(hub.server_address, "tiny/model") == expected
    assert hub.fetched == {"config.json", "params.json", "model.safetensors", "tokenizer.json", "README.md"}
    hub.fetched.clear()
    assert open_checkpoint(hub.server_address, "tiny/model", "main") == expected
    assert hub.fetched == set()
    assert open_checkpoint(hub.server_address, "tiny/model", offline=True) == expected


def test_the_other_layout_is_fetched_where_there_is_only_that(hub, open_checkpoint):
    (hub.folder / "model.safetensors").unlink()
    assert open_checkpoint(hub.server_address, "tiny/model") == f"mistral tiny/model {COMMIT} True"
    assert "consolidated.safetensors" in hub.fetched


def test_the_shards_of_the_index_are_fetched(hub, open_checkpoint):
    (hub.folder / "model.safetensors").rename(hub.folder / "weights-of-tiny.safetensors")
    from safetensors import safe_open

    with safe_open(hub.folder / "weights-of-tiny.safetensors", "numpy") as file:
        index = {"weight_map": dict.fromkeys(file.keys(), "weights-of-tiny.safetensors")}
    (hub.folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert open_checkpoint(hub.server_address, "tiny/model") == f"huggingface tiny/model {COMMIT} True"


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_what_arrives_broken_is_removed_and_fetched_again(hub, open_checkpoint, name):
    hub.broken = {name}
    answer = open_checkpoint(hub.server_address, "tiny/model")
    assert "HubAccessError: tiny/model cannot be had from the hub: a file arrived broken and was removed" in answer
    hub.broken.clear()
    hub.fetched.clear()
    assert open_checkpoint(hub.server_address, "tiny/model").startswith("huggingface tiny/model")
    assert name in hub.fetched <= {"model.safetensors", name}


def test_what_arrived_before_a_download_broke_off_is_checked_when_it_goes_on(hub, open_checkpoint, tmp_path):
    shutil.rmtree(hub.folder)
    synthesise("tiny", hub.folder, shard_bytes=100_000)
    first, second, *_ = sorted(file.name for file in hub.folder.glob("model-*"))
    hub.broken, hub.withheld = {first}, {second}
    assert "the download broke off" in open_checkpoint(hub.server_address, "tiny/model")
    assert list((tmp_path / "hf").rglob(first))
    hub.broken, hub.withheld = set(), set()
    assert "a file arrived broken" in open_checkpoint(hub.server_address, "tiny/model")
    assert open_checkpoint(hub.server_address, "tiny/model").startswith("huggingface tiny/model")


def test_files_are_hashed_once(hub, open_checkpoint, tmp_path):
    expected = open_checkpoint(hub.server_address, "tiny/model")
    (blob,) = (file.resolve() for file in (tmp_path / "hf").rglob("model.safetensors"))
    content, when = blob.read_bytes(), blob.stat().st_mtime_ns
    blob.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(blob, ns=(when, when))
    assert open_checkpoint(hub.server_address, "tiny/model") == expected
    os.utime(blob)
    assert "a file arrived broken" in open_checkpoint(hub.server_address, "tiny/model")


PRETRAINED = """
import sys
from edge_assistant_export.pretrained import Pretrained
checkpoint = Pretrained.open("tiny/model", None, ["bert"], ["modules.json", "*_Pooling/config.json"])
print(checkpoint.source.name, checkpoint.source.revision, checkpoint.licence)
"""


def test_what_a_model_of_another_kind_needs_is_fetched_as_well(hub, open_checkpoint):
    (hub.folder / "config.json").write_text('{"model_type": "bert"}')
    (hub.folder / "modules.json").write_text("[]")
    for name in ("1_Pooling", "onnx"):
        (hub.folder / name).mkdir()
        (hub.folder / name / "config.json").write_text("{}")
    said = open_checkpoint(hub.server_address, program=PRETRAINED)
    assert said == f"tiny/model {COMMIT} apache-2.0"
    assert {"modules.json", "1_Pooling/config.json", "model.safetensors", "tokenizer.json"} <= hub.fetched
    assert not {"onnx/config.json", "training.log", "consolidated.safetensors"} & hub.fetched


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("tiny/gated",), ("HubAccessError", "gated", "https://huggingface.co/tiny/gated", "hf auth login")),
        (("tiny/absent",), ("HubAccessError", "no such model, or it is private", "hf auth login")),
        (("tiny/model", "v9"), ("HubAccessError", "no revision v9", "tree/main")),
    ],
)
def test_what_the_hub_does_not_give_is_explained(hub, open_checkpoint, arguments, said):
    answer = open_checkpoint(hub.server_address, *arguments)
    for part in said:
        assert part in answer


def test_without_a_network_the_error_says_how_to_go_on(hub, open_checkpoint):
    answer = open_checkpoint(hub.server_address, "tiny/model", offline=True)
    assert answer.startswith("HubAccessError: tiny/model cannot be had from the hub: the hub cannot be reached")
    assert "hf download tiny/model" in answer


@pytest.fixture
def adapter_hub(adapter):
    """Serve a repository that holds an adapter and what trainers leave beside it."""
    (adapter / "README.md").write_text("---\nlibrary_name: peft\n---\n")
    (adapter / "tokenizer.json").write_text("not needed")
    (adapter / "training_args.bin").write_text("not needed")
    with Hub(adapter) as server:
        thread = threading.Thread(target=server.serve_forever, name="hub")
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("revision", ["", "main", COMMIT])
def test_of_an_adapter_s_repository_only_the_adapter_is_fetched(adapter_hub, open_checkpoint, folder, revision):
    arguments = (str(folder), "", "tiny/model", revision)
    expected = f"huggingface checkpoint None True\ntiny/model {COMMIT}"
    assert open_checkpoint(adapter_hub.server_address, *arguments) == expected
    assert adapter_hub.fetched == {"adapter_config.json", "adapter_model.safetensors"}
    assert open_checkpoint(adapter_hub.server_address, *arguments, offline=True) == expected


def test_an_adapter_that_arrives_broken_is_removed_and_fetched_again(adapter_hub, open_checkpoint, folder):
    adapter_hub.broken = {"adapter_model.safetensors"}
    arguments = (str(folder), "", "tiny/model")
    assert "a file arrived broken and was removed" in open_checkpoint(adapter_hub.server_address, *arguments)
    adapter_hub.broken.clear()
    assert open_checkpoint(adapter_hub.server_address, *arguments).endswith(f"tiny/model {COMMIT}")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("tiny/gated",), ("HubAccessError", "gated")),
        (("tiny/absent",), ("HubAccessError", "no such model, or it is private")),
        (("tiny/model", "v9"), ("HubAccessError", "no revision v9")),
    ],
)
def test_an_adapter_that_the_hub_does_not_give_is_explained(adapter_hub, open_checkpoint, folder, arguments, said):
    answer = open_checkpoint(adapter_hub.server_address, str(folder), "", *arguments)
    for part in said:
        assert part in answer


def test_a_repository_without_an_adapter_is_none(hub, open_checkpoint, folder):
    answer = open_checkpoint(hub.server_address, str(folder), "", "tiny/model")
    assert answer.startswith("AdapterError: ")
    assert "adapter_config.json: it is missing" in answer


# A folder of the cache, and what is neither.


def into_cache(folder, root) -> Path:
    """Lay out a folder as the hub's cache is, with links to blobs."""
    snapshot = root / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (root / "blobs").mkdir()
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(COMMIT)
    for number, file in enumerate(folder.iterdir()):
        shutil.move(file, root / "blobs" / str(number))
        (snapshot / file.name).symlink_to(Path("..") / ".." / "blobs" / str(number))
    return root


@pytest.fixture
def cache(folder, tmp_path) -> Path:
    """Return the hub's cache of a checkpoint."""
    return into_cache(folder, tmp_path / "models--tiny--Tiny-7B-v0.1")


@pytest.mark.parametrize("revision", [None, "main", COMMIT])
@pytest.mark.parametrize("inside", ["", f"snapshots/{COMMIT}"])
def test_a_folder_of_the_hubs_cache_is_known_by_its_name(cache, inside, revision):
    with Checkpoint.open(cache / inside, revision) as checkpoint:
        assert checkpoint.source_name == "tiny/Tiny-7B-v0.1"
        assert checkpoint.revision == COMMIT
        assert checkpoint.tensor("norm").shape == (64,)


@pytest.mark.parametrize("revision", [None, "main", COMMIT])
@pytest.mark.parametrize("inside", ["", f"snapshots/{COMMIT}"])
def test_an_adapter_in_the_hubs_cache_is_known_by_its_name(folder, adapter, tmp_path, inside, revision):
    cached = into_cache(adapter, tmp_path / "models--tiny--lora")
    with Checkpoint.open(folder, adapter=cached / inside, adapter_revision=revision) as checkpoint:
        assert checkpoint.adapter.source.name == "tiny/lora"
        assert checkpoint.adapter.source.revision == COMMIT
    with pytest.raises(CheckpointError, match="revision v2"):
        Checkpoint.open(folder, adapter=cached / inside, adapter_revision="v2")


def test_a_revision_that_the_cache_does_not_hold_is_named(cache):
    with pytest.raises(CheckpointError, match=f"no revision v2; there is {COMMIT}"):
        Checkpoint.open(cache, "v2")
    with pytest.raises(CheckpointError, match="not revision v2"):
        Checkpoint.open(cache / "snapshots" / COMMIT, "v2")


def test_a_plain_folder_has_no_revision(folder):
    with Checkpoint.open(folder) as checkpoint:
        assert (checkpoint.source_name, checkpoint.revision) == ("checkpoint", None)
    with pytest.raises(CheckpointError, match="only from a hub id"):
        Checkpoint.open(folder, "main")


@pytest.mark.parametrize(
    "name", ["no-such-folder", "/no/such/folder", "./a/b/c", "", "~no-such-user/a", "modèle/été", "a/b--c", "a/b..c"]
)
def test_what_is_neither_a_folder_nor_a_hub_id_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"there is no such folder, and it is no hub id|it is no checkpoint"):
        Checkpoint.open(name)


def test_a_file_is_not_a_checkpoint(folder):
    with pytest.raises(CheckpointError, match="name the folder"):
        Checkpoint.open(folder / "model.safetensors")
