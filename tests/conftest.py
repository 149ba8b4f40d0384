"""What the tests of several rooms share: a real trained checkpoint, small random ones, and bundles of either."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from edge_assistant import assistant
from edge_assistant.bundle import AdapterSource, Bundle, Factors, LoraAbout, LoraFile, LoraMatrix, part_shapes
from edge_assistant.engine import Claim, Constraint, Timing, Usage
from edge_assistant.errors import ContextOverflowError, LoraNameError
from edge_assistant.text.chat import Reply
from edge_assistant.text.messages import Assistant, Message, ToolCall

# No test depends on how fast the machine is.
settings.register_profile("house", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("house")

# A shell makes what it starts in the background deaf to Ctrl-C, and children would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

STORIES = Path(__file__).parents[2] / "shared" / "checkpoints" / "stories260K"

CONTROL_TOKENS = (
    *("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]"),
    *("[/TOOL_RESULTS]", "[TOOL_CALLS]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]", "<pad>"),
)
TINY_SHAPE: dict[str, int | bool | None] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": len(CONTROL_TOKENS) + 256,
    "max_position_embeddings": 512,
    "sliding_window": None,
    "tie_word_embeddings": False,
}

MakeCheckpoint = Callable[..., Path]
MakeBundle = Callable[..., Bundle]


@pytest.fixture(scope="session")
def stories() -> Path:
    """Return the checkpoint of stories260K: trained, with grouped-query attention, a megabyte."""
    if not (STORIES / "model.safetensors").is_file():
        pytest.skip(f"stories260K in the Hugging Face layout is not at {STORIES}")
    return STORIES


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> MakeCheckpoint:
    """Return a function that writes a random checkpoint; keywords replace keys of `TINY_SHAPE`, as in config.json."""
    made: dict[str, Path] = {}

    def make(**shape: int | bool | None) -> Path:
        key = json.dumps(shape, sort_keys=True)
        if key not in made:
            made[key] = tmp_path_factory.mktemp("checkpoint")
            _write_checkpoint(made[key], TINY_SHAPE | shape)
        return made[key]

    return make


@pytest.fixture(scope="session")
def export_bundle(tmp_path_factory: pytest.TempPathFactory) -> MakeBundle:
    """Return a function that exports a checkpoint once for every recipe; keywords are those of `Recipe`."""
    made: dict[str, Bundle] = {}

    def make(checkpoint: Path, **recipe: object) -> Bundle:
        from edge_assistant_export.checkpoint import Checkpoint
        from edge_assistant_export.recipe import Recipe
        from edge_assistant_export.write import export

        key = f"{checkpoint} {sorted(recipe.items())}"
        if key not in made:
            path = tmp_path_factory.mktemp("bundles") / "bundle"
            with Checkpoint.open(checkpoint) as opened:
                export(opened, Recipe(**recipe), path)
            made[key] = Bundle.open(path)
        return made[key]

    return make


@pytest.fixture(scope="session")
def tiny_bundle(tiny_checkpoint: MakeCheckpoint, export_bundle: MakeBundle) -> MakeBundle:
    """Return a function that exports a random checkpoint.

    `shape` is as for `tiny_checkpoint`; other keywords are those of `Recipe`, where nothing is quantised unless said.
    """

    def make(shape: dict[str, int | bool | None] | None = None, **recipe: object) -> Bundle:
        return export_bundle(tiny_checkpoint(**(shape or {})), **{"bits": 32, "instruct": "v7-tekken"} | recipe)

    return make


@pytest.fixture(scope="session")
def lora_file() -> Callable[..., Path]:
    """Return a function that writes a random adapter for a bundle, for all that its graph takes unless said."""
    return _write_lora


class _StoppedClock(datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2024, 5, 6, 7, 8, tzinfo=tz)


@pytest.fixture
def stopped_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give all prompts the same minute, which they tell the model: answers can be compared across minutes."""
    monkeypatch.setattr(assistant, "datetime", _StoppedClock)


class ScriptedModel:
    """Stands in for a ChatModel where the logic around it is tested: it answers what a function makes of the prompt.

    A token is four characters here. `prompts`, `claims`, `adapters` and `held_to` (how many tools, and the constraint)
    keep what it was asked; it sets `started`, and waits for `gate`. It has the adapters `garden` and `kitchen`.
    """

    def __init__(self, script: Callable[[str], str | dict], capacity: int = 2000) -> None:
        self.capacity = capacity
        self.manifest = SimpleNamespace(assistant=None, instruct="v7-tekken")
        self.prompts: list[list[Message]] = []
        self.claims: list[Claim | None] = []
        self.adapters: list[object] = []
        self.held_to: list[tuple[int, Constraint | None]] = []
        self.started = threading.Event()
        self.gate = threading.Event()
        self.gate.set()
        self._script = script

    def count(self, messages: Sequence[Message], tools: Sequence[object] = ()) -> int:
        """Return the tokens of a prompt."""
        return sum(len(str(message)) for message in messages) // 4

    def adapter(self, name):
        """Return what stands for an adapter."""
        if name not in ("garden", "kitchen"):
            raise LoraNameError(name, ["garden", "kitchen"])
        return f"the {name}'s"

    def chat(self, messages, tools, params, *, on_text=None, cancel=None, constraint=None, claim=None, adapter=None):
        """Answer as the script says of the last text: a str is text, a dict {tool: slots} makes calls."""
        if self.count(messages) + params.max_tokens > self.capacity:
            raise ContextOverflowError(self.count(messages), params.max_tokens, self.capacity)
        self.prompts.append(list(messages))
        self.claims.append(claim)
        self.adapters.append(adapter)
        self.held_to.append((len(tools), constraint))
        self.started.set()
        while not self.gate.wait(0.01):
            if cancel is not None and cancel.is_set():
                return Reply(Assistant(), "cancelled", Usage(1, 0, 0), Timing(0.0, 0.0))
        said = self._script(messages[-1].text.rpartition("\n\n")[2])
        if isinstance(said, str):
            if on_text:
                on_text(said)
            message = Assistant(said)
        else:
            message = Assistant(calls=tuple(ToolCall(name, slots) for name, slots in said.items()))
        return Reply(message, "stop", Usage(self.count(messages), 1, 0), Timing(0.0, 0.0))


@pytest.fixture
def scripted_model() -> type[ScriptedModel]:
    """Return the class of models that answer by a script."""
    return ScriptedModel


def _write_lora(
    path: Path, bundle: Bundle, seed: int = 0, matrices: Sequence[LoraMatrix] | None = None, rank: int = 4
) -> Path:
    random, manifest = np.random.default_rng(seed), bundle.manifest
    assert manifest.lora is not None
    factors = {}
    for layer in range(manifest.architecture.n_layers):
        for matrix in manifest.lora.matrices if matrices is None else matrices:
            for part, (n_rows, row_size) in part_shapes(manifest.architecture, matrix).items():
                a, b = random.standard_normal((row_size, rank)), random.standard_normal((rank, n_rows))
                a, b = a.astype(np.float32), (b / row_size**0.5).astype(np.float32)
                factors[f"layers.{layer}.{part}"] = Factors(a, b)
    source = AdapterSource(f"seed {seed}", None, 64 * "0", rank, 1.0, 1.0, None)
    path.write_bytes(LoraFile(LoraAbout.of(source, manifest, factors), factors).to_bytes())
    return path


def _write_checkpoint(path: Path, shape: dict[str, int | bool | None]) -> None:
    from safetensors.numpy import save_file

    family = "mixtral" if shape.get("num_local_experts") else "mistral"
    config = {"architectures": [f"{family.capitalize()}ForCausalLM"], "model_type": family, "hidden_act": "silu"}
    config |= {"rms_norm_eps": 1e-5, "rope_theta": 10000.0, "torch_dtype": "float32", **shape}
    (path / "config.json").write_text(json.dumps(config))
    (path / "tokenizer.json").write_text(_byte_tokenizer())
    save_file(_random_tensors(**shape), path / "model.safetensors")


def _random_tensors(
    hidden_size: int,
    intermediate_size: int,
    num_hidden_layers: int,
    num_attention_heads: int,
    num_key_value_heads: int,
    head_dim: int,
    vocab_size: int,
    *,
    tie_word_embeddings: bool,
    num_local_experts: int = 0,
    **_: object,
) -> dict[str, np.ndarray]:
    """Return weights under which every layer matters and the logits are far apart."""
    random = np.random.default_rng(0)
    queries, keys = num_attention_heads * head_dim, num_key_value_heads * head_dim

    def matrix(n_rows: int, row_size: int, scale: float = 1.0) -> np.ndarray:
        return (random.standard_normal((n_rows, row_size)) * scale / np.sqrt(row_size)).astype(np.float32)

    def norm() -> np.ndarray:
        return random.uniform(0.8, 1.2, hidden_size).astype(np.float32)

    tensors = {"model.embed_tokens.weight": matrix(vocab_size, hidden_size, 4), "model.norm.weight": norm()}
    if not tie_word_embeddings:
        tensors["lm_head.weight"] = matrix(vocab_size, hidden_size, 4)
    for layer in range(num_hidden_layers):
        at = f"model.layers.{layer}."
        tensors |= {
            f"{at}input_layernorm.weight": norm(),
            f"{at}self_attn.q_proj.weight": matrix(queries, hidden_size, 2),
            f"{at}self_attn.k_proj.weight": matrix(keys, hidden_size, 2),
            f"{at}self_attn.v_proj.weight": matrix(keys, hidden_size),
            f"{at}self_attn.o_proj.weight": matrix(hidden_size, queries),
            f"{at}post_attention_layernorm.weight": norm(),
        }
        names = [f"{at}mlp.{name}_proj.weight" for name in ("gate", "up", "down")]
        if num_local_experts:
            tensors[f"{at}block_sparse_moe.gate.weight"] = matrix(num_local_experts, hidden_size, 2)
        for expert in range(num_local_experts or 1):
            if num_local_experts:
                names = [f"{at}block_sparse_moe.experts.{expert}.{name}.weight" for name in ("w1", "w3", "w2")]
            tensors[names[0]] = matrix(intermediate_size, hidden_size, 2)
            tensors[names[1]] = matrix(intermediate_size, hidden_size, 2)
            tensors[names[2]] = matrix(hidden_size, intermediate_size)
    return tensors


def _byte_tokenizer() -> str:
    """Return a tokenizer whose tokens are Mistral's control tokens and the 256 bytes."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    letters = [*CONTROL_TOKENS, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in CONTROL_TOKENS])
    return tokenizer.to_str()
