"""Which matrices are stored better: what is chosen fits, is nearer than other choices, and is what is computed."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random

import numpy as np
import onnx_ir as ir
import pytest
from safetensors.numpy import load_file, save_file

from edge_assistant.bundle import Bundle
from edge_assistant.config import EngineSettings
from edge_assistant.engine import Engine
from edge_assistant.errors import CheckpointError, MaxKlError, RecipeError, TargetSizeError
from edge_assistant.text.tokenizer import Tokenizer
from edge_assistant_export.calibration_text import calibration_texts
from edge_assistant_export.checkpoint import Checkpoint
from edge_assistant_export.cli import main
from edge_assistant_export.cli.common import read_size
from edge_assistant_export.mixed import Goal, check_goal, check_size, choose_bits, fitting
from edge_assistant_export.quantize import dequantize, quantize
from edge_assistant_export.recipe import Recipe
from edge_assistant_export.reference import forward
from edge_assistant_export.reference_model.packing import FORMAT
from edge_assistant_export.reference_model.splits import cases
from edge_assistant_export.verify import compare, texts_of
from edge_assistant_export.weights import plan_weights
from edge_assistant_export.write import export

HOME_MINI = Path(__file__).parents[2] / "models" / "home-mini" / "checkpoint"
STORIES_TEXT = Path(__file__).parents[1] / "data" / "stories.txt"
IDS = [1, *np.random.default_rng(0).integers(14, 270, 39).tolist()]
STORED = {"q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj", "o": "self_attn.o_proj"}
STORED |= {"gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj"}


def unheard(stage: str, done: int, total: int) -> None:
    pass


def run(*arguments) -> int | str | None:
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as end:
        return end.code


def names_of(checkpoint) -> list[str]:
    return list(plan_weights(checkpoint.config, Recipe().quantization(checkpoint.config)).by_name)


def weight_bytes(checkpoint, recipe) -> int:
    return plan_weights(checkpoint.config, recipe.quantization(checkpoint.config)).file.size


def choose(checkpoint, recipe, size, texts) -> Recipe:
    """Choose as for a folder of so many bytes."""
    rest = check_size(checkpoint, recipe, Goal())[0] - weight_bytes(checkpoint, recipe)
    return fitting(checkpoint, recipe, lambda tried: weight_bytes(checkpoint, tried) + rest <= size, texts, unheard)


# What the graph computes.


@pytest.mark.parametrize("how", [{}, {"zero_points": True, "block_size": 128, "small_blocks": ("layers.0.down",)}])
@pytest.mark.parametrize(
    ("shape", "eight_bits", "tensors"),
    [
        ({}, ("layers.0.qkv", "layers.1.down"), ["layers.0.q", "layers.0.k", "layers.0.v", "layers.1.down"]),
        ({}, ("layers.0.o", "layers.1.gate_up", "lm_head"), ["layers.0.o", "layers.1.gate", "layers.1.up", "lm_head"]),
        ({}, ("embedding",), ["embedding"]),
        ({"tie_word_embeddings": True}, ("embedding", "layers.1.o"), ["embedding", "layers.1.o"]),
    ],
    ids=["qkv and down", "o, gate_up and the head", "an embedding of its own", "a tied embedding"],
)
def test_the_graph_takes_each_matrix_by_its_own_bits(
    shape, eight_bits, tensors, how, tiny_checkpoint, export_bundle, tmp_path
):
    path = tiny_checkpoint(**shape)
    stored = {"embedding": "model.embed_tokens", "lm_head": "lm_head"}
    in_eight = {stored.get(name) or f"model.{name[:9]}{STORED[name[9:]]}" for name in tensors}
    folder = Path(shutil.copytree(path, tmp_path / "rounded"))
    weights = load_file(path / "model.safetensors")
    for name, weight in weights.items():
        if weight.ndim == 2:
            bits = 8 if name.removesuffix(".weight") in in_eight else 4
            block_size = 32 if "layers.0.mlp.down" in name else how.get("block_size", 32)
            packed = quantize(weight, bits, block_size, zero_points="zero_points" in how)
            weights[name] = np.ascontiguousarray(dequantize(packed, bits, weight.shape[1]))
    save_file(weights, folder / "model.safetensors")
    with Checkpoint.open(folder) as checkpoint:
        expected = forward(checkpoint, IDS)
    bundle = export_bundle(path, eight_bits=eight_bits, accuracy_level=0, **how)
    assert bundle.manifest.quantization.eight_bits == eight_bits
    with Engine.load(bundle, EngineSettings(threads=1)) as engine:
        np.testing.assert_allclose(engine.score(IDS), expected, atol=1e-4)


def test_experts_of_a_layer_share_their_bits(tiny_checkpoint, export_bundle):
    path = tiny_checkpoint(num_local_experts=4, num_experts_per_tok=2)
    bundles = [export_bundle(path, eight_bits=names) for names in ((), ("layers.1.experts",))]
    graph = ir.load(bundles[1].graph_path).graph
    mixtures = [node for node in graph if node.op_type == "QMoE"]
    assert [node.attributes["expert_weight_bits"].as_int() for node in mixtures] == [4, 8]
    with Checkpoint.open(path) as checkpoint:
        expected = [forward(checkpoint, IDS)]
    plain, finer = (compare(bundle, [IDS], expected).kl for bundle in bundles)
    assert finer < plain


def test_a_matrix_that_the_architecture_has_not_is_refused_with_the_nearest(tiny_checkpoint):
    with Checkpoint.open(tiny_checkpoint(tie_word_embeddings=True)) as checkpoint:
        for name, nearest in (("layers.0.gate", r"layers\.0\.gate_up"), ("layers.7.down", r"layers\.[01]\.down")):
            with pytest.raises(RecipeError, match=f"eight_bits cannot be {name}: the nearest that can is {nearest}"):
                Recipe(eight_bits=(name,)).quantization(checkpoint.config)
        with pytest.raises(RecipeError, match="there are embedding, layers"):
            Recipe(eight_bits=("norm",)).quantization(checkpoint.config)
    with pytest.raises(RecipeError, match="none, as bits is 8"):
        Recipe(bits=8, eight_bits=("embedding",))


def test_the_head_is_the_embedding_where_they_are_tied(tiny_checkpoint):
    for tied, stored in ((True, ("embedding",)), (False, ("lm_head",))):
        with Checkpoint.open(tiny_checkpoint(tie_word_embeddings=tied)) as checkpoint:
            assert Recipe(eight_bits=("lm_head",)).quantization(checkpoint.config).eight_bits == stored


# What is chosen.


@pytest.fixture(scope="module", params=["stories", "home-mini"])
def trained(request):
    """Return a trained checkpoint, texts to choose by and others to measure with."""
    if request.param == "stories":
        path = request.getfixturevalue("stories")
        tokenizer = Tokenizer(path / "tokenizer.json")
        texts = texts_of(STORIES_TEXT.read_text(encoding="utf-8"), tokenizer, 1, 256, 6000)
    else:
        path, tokenizer = HOME_MINI, Tokenizer(HOME_MINI / "tokenizer.json")
        asked = [(case.talk.messages(case.example.question), case.example.answer) for case in cases("b", 18)]
        texts = [FORMAT.encode(tokenizer, [*before, answer])[-512:] for before, answer in asked]
    with Checkpoint.open(path) as checkpoint:
        yield checkpoint, texts[::2], texts[1::2]


@pytest.mark.parametrize(("block_size", "share"), [(32, 0.12), (32, 0.4), (128, 0.2)])
def test_the_choice_is_nearer_than_others_of_as_many_bytes(trained, block_size, share, tmp_path):
    checkpoint, texts, others = trained
    recipe = Recipe(block_size=block_size, zero_points=True)
    least, most = check_size(checkpoint, recipe, Goal())
    chosen = choose(checkpoint, recipe, int(least + share * (most - least)), texts)
    names = names_of(checkpoint)
    assert 0 < len(chosen.eight_bits) < len(names)
    room = weight_bytes(checkpoint, chosen)

    def filled(order):
        taken = recipe
        for name in order:
            more = replace(recipe, eight_bits=(*taken.eight_bits, name))
            if weight_bytes(checkpoint, more) <= room:
                taken = more
        return taken

    expected = [forward(checkpoint, ids) for ids in others]

    def kl(recipe, name):
        export(checkpoint, recipe, tmp_path / name)
        return compare(Bundle.open(tmp_path / name), others, expected).kl

    rivals = {f"random {seed}": filled(Random(seed).sample(names, len(names))) for seed in range(4)}
    rivals |= {"first": filled(names), "last": filled(names[::-1])}
    found = kl(chosen, "chosen")
    for name, rival in rivals.items():
        assert found < kl(rival, name), name


@pytest.mark.parametrize("block_size", [32, 64])
def test_nothing_more_would_have_fitted(block_size, tiny_checkpoint):
    recipe = Recipe(block_size=block_size)
    with Checkpoint.open(tiny_checkpoint(hidden_size=256, num_attention_heads=16)) as checkpoint:
        least, most = check_size(checkpoint, recipe, Goal())
        room = least - weight_bytes(checkpoint, recipe)
        small = False
        for size in np.linspace(least, most, 7)[1:-1].astype(int).tolist():
            chosen = choose(checkpoint, recipe, size, [IDS])
            assert weight_bytes(checkpoint, chosen) + room <= size
            small |= bool(chosen.small_blocks)
            for name in set(names_of(checkpoint)) - set(chosen.eight_bits):
                more = replace(chosen, eight_bits=(*chosen.eight_bits, name))
                assert weight_bytes(checkpoint, more) + room > size
        assert small == (block_size > 32)


def test_all_or_nothing(tiny_checkpoint):
    with Checkpoint.open(tiny_checkpoint()) as checkpoint:
        least, most = check_size(checkpoint, Recipe(), Goal())
        smallest = choose(checkpoint, Recipe(), least, [IDS])
        assert weight_bytes(checkpoint, smallest) == weight_bytes(checkpoint, Recipe())
        assert choose(checkpoint, Recipe(), most, [IDS]) == Recipe(bits=8)
        with pytest.raises(TargetSizeError, match=f"{least / 1e6:,.2f} MB, in 8 bits {most / 1e6:,.2f} MB"):
            check_size(checkpoint, Recipe(), Goal(least - 1))


@pytest.mark.parametrize("shape", [{}, {"num_local_experts": 4, "num_experts_per_tok": 2}])
@pytest.mark.parametrize("how", [(), ("--method", "gptq", "--zero-points"), ("--cache", "int8")])
def test_the_folder_is_no_larger_than_was_asked(shape, how, tiny_checkpoint, tmp_path, capsys):
    (tmp_path / "text").write_text("the lamp is on, the door is shut and all is well. " * 20)
    path, out = tiny_checkpoint(**shape), tmp_path / "out"
    read = ("--calibration", tmp_path / "text")
    with Checkpoint.open(path) as checkpoint:
        least, most = check_size(checkpoint, Recipe(zero_points="--zero-points" in how), Goal())
    size = (least + most) // 2_000
    assert run("model", path, out, "--target-size", f"{size}KB", *how, *read, "--json") == 0
    output = capsys.readouterr()
    printed, manifest = json.loads(output.out), Bundle.open(out).manifest
    assert sum(file.stat().st_size for file in out.iterdir()) <= size * 1000
    assert manifest.bits == 4
    assert printed["eight_bits"] == list(manifest.quantization.eight_bits) != []
    assert f"8 bits a weight in {', '.join(manifest.quantization.eight_bits)}" in output.err
    (again,) = (line.split()[-1] for line in output.err.splitlines() if "--eight-bits" in line)
    assert run("model", path, tmp_path / "again", "--eight-bits", again, *how, *(read if how else ())) == 0
    weights = [Bundle.open(folder).manifest.files["model.onnx.data"] for folder in (out, tmp_path / "again")]
    assert weights[0] == weights[1]


@pytest.mark.parametrize("shape", [{}, {"sliding_window": 8}])
@pytest.mark.parametrize(
    "recipe", [Recipe(), Recipe(lora_rank=4), Recipe(lora_rank=4, zero_points=True, dtype="float16")]
)
def test_the_smallest_size_that_is_named_holds_the_folder(shape, recipe, tiny_checkpoint, tmp_path):
    with Checkpoint.open(tiny_checkpoint(num_hidden_layers=12, **shape)) as checkpoint:
        least, most = check_size(checkpoint, recipe, Goal())
        for bits, size in ((4, least), (8, most)):
            export(checkpoint, replace(recipe, bits=bits), tmp_path / str(bits))
            assert sum(file.stat().st_size for file in (tmp_path / str(bits)).iterdir()) <= size


def test_a_dry_run_names_the_range_and_needs_no_weights(folder, tmp_path, capsys):
    (folder / "model.safetensors").unlink()
    assert run("model", folder, tmp_path / "out", "--target-size", "1GB", "--dry-run") == 0
    assert "is chosen when it is made" in capsys.readouterr().out
    assert run("model", folder, tmp_path / "out", "--target-size", "10KB", "--dry-run") == 1
    assert "target_size cannot be 0.01 MB: with all matrices in 4 bits the bundle takes" in capsys.readouterr().err


# As near as was asked.


@pytest.fixture
def text(tmp_path) -> Path:
    """A text of which one part in five can be held out."""
    path = tmp_path / "text"
    path.write_text(STORIES_TEXT.read_text(encoding="utf-8")[:3200])
    return path


@pytest.mark.parametrize("method", ["least_squares", "gptq"])
def test_the_bundle_is_as_near_as_was_asked_and_no_larger_than_that_takes(method, tiny_checkpoint, text, tmp_path):
    recipe = Recipe(method=method, zero_points=True)
    with Checkpoint.open(tiny_checkpoint()) as checkpoint:

        def chosen(max_kl):
            with choose_bits(checkpoint, recipe, Goal(max_kl=max_kl), text, tmp_path / "out", unheard) as choice:
                return choice

        loosest = chosen(100.0)
        assert loosest.recipe == recipe
        with pytest.raises(MaxKlError, match="max_kl cannot be 1e-09: with all matrices in 8 bits"):
            chosen(1e-9)
        sizes = []
        for share in (0.7, 0.3, 0.03):
            choice = chosen(share * loosest.kl)
            assert choice.kl <= share * loosest.kl
            sizes.append(len(choice.recipe.eight_bits) if choice.recipe.bits == 4 else math.inf)
            # What was measured is what comes of it.
            export(checkpoint, choice.recipe, tmp_path / "out", texts=choice.texts, overwrite=True)
            ids = [ids for ids in calibration_texts(checkpoint, text) if ids not in choice.texts]
            expected = [forward(checkpoint, one) for one in ids]
            assert compare(Bundle.open(tmp_path / "out"), ids, expected).kl == pytest.approx(choice.kl, rel=1e-3)
    assert 0 < sizes[0] <= sizes[1] < sizes[2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "text"]


def test_the_command_says_what_it_reached(tiny_checkpoint, text, tmp_path, capsys):
    assert run("model", tiny_checkpoint(), tmp_path / "out", "--max-kl", 5, "--calibration", text, "--json") == 0
    output = capsys.readouterr()
    assert 0 < json.loads(output.out)["kl"] <= 5
    assert "All matrices have 4 bits: they are near enough" in output.err
    assert "measured on text held out of the calibration" in output.err


@pytest.mark.parametrize("characters", [5, 4 * 511 + 3])
def test_too_little_text_to_hold_some_out_is_said(characters, tiny_checkpoint, tmp_path):
    """Of a letter a token, the fifth text of the second has three: to measure with them would promise nothing."""
    (tmp_path / "text").write_text("a" * characters)
    goal, out = Goal(max_kl=0.1), tmp_path / "out"
    refused = pytest.raises(CheckpointError, match="give a longer text")
    with Checkpoint.open(tiny_checkpoint()) as checkpoint, refused:
        choose_bits(checkpoint, Recipe(), goal, tmp_path / "text", out, unheard).__enter__()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("how", [("--target-size", "1GB", "--block-size", 64), ("--max-kl", 1), ("--method", "awq")])
def test_a_model_that_computes_no_number_is_refused(how, tiny_checkpoint, text, tmp_path, capsys):
    folder = Path(shutil.copytree(tiny_checkpoint(), tmp_path / "broken"))
    tensors = load_file(folder / "model.safetensors")
    wide = {name: tensor * np.float32(1e21) for name, tensor in tensors.items() if "mlp" in name}
    save_file(tensors | wide, folder / "model.safetensors")
    if how[0] == "--target-size":
        with Checkpoint.open(folder) as checkpoint:
            how = (how[0], f"{sum(check_size(checkpoint, Recipe(block_size=64), Goal())) // 2000}KB", *how[2:])
    assert run("model", folder, tmp_path / "out", *how, "--calibration", text) == 1
    assert re.search("broken: .*(no number|not finite)", capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_may_not_be_written_is_named(tiny_checkpoint, text, tmp_path, capsys):
    (tmp_path / "file").touch()
    command = ("model", tiny_checkpoint(), tmp_path / "file" / "out", "--calibration", text, "--max-kl", 1)
    assert run(*command) == 1
    assert "file is no folder)" in capsys.readouterr().err


def killed(*arguments, at: str) -> None:
    """Run the command, which kills itself where a function, by its module and name, would have been called."""
    code = (
        f"import os, sys, {at.rpartition('.')[0]}; from edge_assistant_export.cli import main\n"
        f"{at} = lambda *_, **__: os.kill(os.getpid(), 9)\nmain(sys.argv[1:])"
    )
    command = [sys.executable, "-c", code, *map(str, arguments)]
    assert subprocess.run(command, check=False, capture_output=True, timeout=120).returncode == -9


@pytest.mark.parametrize("goal", [("--max-kl", 0.02), ("--target-size", 0.5)], ids=lambda goal: goal[0])
def test_what_was_measured_before_a_kill_is_not_measured_again(goal, tiny_checkpoint, text, tmp_path, monkeypatch):
    if goal[0] == "--target-size":
        with Checkpoint.open(tiny_checkpoint()) as checkpoint:
            least, most = check_size(checkpoint, Recipe(), Goal())
        goal = (goal[0], f"{(least + most) / 2000:.3f}KB")
    command = ("model", tiny_checkpoint(), tmp_path / "out", *goal, "--calibration", text, "--name", "same")
    killed(*command, at="edge_assistant_export.cli.model._exported")
    left = [path.relative_to(tmp_path / ".out.choice.partial").parts[0] for path in tmp_path.glob(".*/**/*")]
    assert {".texts.json", ".sensitivities.json"} <= {*left}
    assert "bundle" not in left
    for measurement in ("sensitivities", "compare", "calibration_texts", "forward_all"):
        again = partial(pytest.fail, f"{measurement} again")
        monkeypatch.setattr(f"edge_assistant_export.mixed.{measurement}", lambda *_, again=again: again())
    assert run(*command) == 0
    monkeypatch.undo()
    expected = ("model", tiny_checkpoint(), tmp_path / "expected", *goal, "--calibration", text, "--name", "same")
    assert run(*expected) == 0
    assert Bundle.open(tmp_path / "out").manifest == Bundle.open(tmp_path / "expected").manifest
    assert sorted(path.name for path in tmp_path.iterdir()) == ["expected", "out", "text"]


def test_a_kill_between_two_measurements_leaves_no_litter_for_good(tiny_checkpoint, text, tmp_path):
    command = ("model", tiny_checkpoint(), tmp_path / "out", "--max-kl", 0.02, "--calibration", text)
    killed(*command, at="edge_assistant_export.mixed.compare")
    assert (tmp_path / ".out.choice.partial" / "bundle").is_dir()
    assert run(*command, "--zero-points") == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "text"]


# What cannot be asked for.


@pytest.mark.parametrize(
    ("recipe", "goal", "board", "problem"),
    [
        ({}, {"target_size": 1, "max_kl": 0.1}, None, "max_kl cannot be 0.1.*target_size decides"),
        ({"bits": 8}, {"target_size": 1}, None, "target_size cannot be 1.*bits is 8"),
        ({"eight_bits": ("lm_head",)}, {"max_kl": 0.1}, None, "max_kl cannot be 0.1.*eight_bits or small_blocks names"),
        ({}, {"max_kl": 0.0}, None, "max_kl cannot be 0.0.*nearest that can is 0.001"),
        ({}, {"max_kl": float("nan")}, None, "max_kl cannot be nan"),
        ({}, {"target_size": 1}, "pi5", "--for pi5 chooses the bits"),
    ],
)
def test_what_leaves_no_choice_is_refused(recipe, goal, board, problem):
    with pytest.raises(RecipeError, match=problem):
        check_goal(Recipe(**recipe), Goal(**goal), board)


@pytest.mark.parametrize(("text", "count"), [("4.2GB", 4_200_000_000), ("900mb", 900_000_000), ("1.5 KiB", 1536)])
def test_sizes_are_read_as_people_write_them(text, count):
    assert read_size(text) == count


@pytest.mark.parametrize("text", ["4.2", "GB", "-1GB", "4,2GB", "4GBit", "1e3MB"])
def test_what_is_no_size_is_wrong_usage(text, tmp_path, capsys):
    assert run("model", tmp_path, tmp_path / "out", f"--target-size={text}") == 2
    assert "write it as 4.2GB, 900MB or 3.9GiB" in capsys.readouterr().err
