"""Every board's file says what it must, and is found by its names."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from edge_assistant.device import boards
from edge_assistant.device.boards import Board, board, read_board, target, targets
from edge_assistant.errors import BoardFileError, UnknownBoardError

FILES = sorted((Path(__file__).parents[2] / "firmware_configs").glob("*.toml"))
GIB = 1 << 30


def write(path: Path, **changes: object) -> Path:
    """Write a board's table as TOML; a change to None leaves the key out."""
    table = {
        "title": '"Test"',
        "aliases": '["t"]',
        "machine": '"aarch64"',
        "cpu": '"Cortex-A76"',
        "cpu_features": '["asimddp"]',
        "copy_bandwidth": 1,
        "reserved_bytes": 1,
        "variants": "[{ram_bytes = 2, cores = 1, peak_bandwidth = 1}]",
    } | changes
    lines = [f"{key} = {value}" for key, value in table.items() if value is not None]
    path.write_text("\n".join(["[board]", *lines]), encoding="utf-8")
    return path


def test_every_file_is_a_board() -> None:
    assert [one.name for one in boards.boards()] == [file.stem for file in FILES]
    assert len(FILES) >= 8


@pytest.mark.parametrize("one", boards.boards(), ids=lambda one: one.name)
def test_a_board_is_found_by_each_of_its_names(one: Board) -> None:
    for name in (one.name, *one.aliases, one.name.upper()):
        assert board(name) == one
        assert target(name) == boards.Target(one, one.variants[0])
        for variant in one.variants:
            assert target(f"{name}-{variant.size}") == boards.Target(one, variant)


def test_no_two_boards_share_a_name() -> None:
    names = [name for one in boards.boards() for name in (one.name, *one.aliases)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("one", targets(), ids=lambda one: one.name)
def test_what_is_left_is_less_than_there_is(one: boards.Target) -> None:
    assert 0 < one.usable_bytes < one.variant.ram_bytes
    assert one.board.copy_bandwidth < one.variant.peak_bandwidth
    assert target(one.name) == one


def test_the_sizes_that_are_sold() -> None:
    sizes = {one.name: [variant.size for variant in one.variants] for one in boards.boards()}
    assert sizes["raspberry-pi-zero-2-w"] == ["512mb"]
    assert sizes["raspberry-pi-3"] == ["1gb"]
    assert sizes["raspberry-pi-4"] == ["2gb", "4gb", "8gb"]
    assert sizes["raspberry-pi-5"] == ["2gb", "4gb", "8gb", "16gb"]
    assert sizes["jetson-orin-nano"] == ["4gb", "8gb"]


def test_processors_before_the_cortex_a76_have_no_dot_products() -> None:
    without = {one.cpu for one in boards.boards() if not one.has_dot_products}
    assert without == {"Cortex-A53", "Cortex-A57", "Cortex-A72"}


@pytest.mark.parametrize(
    ("name", "nearest"), [("pi6", "pi5"), ("raspberry-pi5", "raspberry-pi-5"), ("orin-nano-8", "orin-nano-8gb")]
)
def test_an_unknown_name_gets_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(UnknownBoardError, match=f"{name}'; did you mean {nearest}\\?") as raised:
        target(name)
    assert isinstance(raised.value, LookupError)
    assert "raspberry-pi-4" in str(raised.value)


def test_a_board_alone_has_no_size() -> None:
    with pytest.raises(UnknownBoardError, match="did you mean pi5"):
        board("pi5-8gb")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"cpu": None}, "board.cpu: Field required"),
        ({"cores": 4}, "board.cores: Extra inputs are not permitted"),
        ({"machine": '"armv7l"'}, "board.machine"),
        ({"reserved_bytes": 2}, "leaves nothing of the smallest variant"),
        ({"variants": "[]"}, "board.variants"),
        ({"cpu_features": '["asimdp"]'}, "board.cpu_features.0"),
        ({"cpu": "A76"}, "Invalid value"),
    ],
)
def test_a_wrong_file_is_named_with_the_key(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    path = write(tmp_path / "b.toml", **changes)
    with pytest.raises(BoardFileError, match=f"^{path} ") as raised:
        read_board(path)
    assert said in str(raised.value)


@pytest.mark.parametrize("text", ["board = 5", "board = []", "[board]\ncores = " + "9" * 5000, "a = " + "[" * 100_000])
def test_a_file_that_holds_something_else_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "b.toml").write_text(text, encoding="utf-8")
    with pytest.raises(BoardFileError, match=r"b\.toml"):
        read_board(tmp_path / "b.toml")


def test_variants_must_grow(tmp_path: Path) -> None:
    two = ", ".join(f"{{ram_bytes = {size}, cores = 1, peak_bandwidth = 1}}" for size in (4, 2))
    with pytest.raises(BoardFileError, match="must grow"):
        read_board(write(tmp_path / "b.toml", variants=f"[{two}]"))


def test_a_sound_file_is_read_and_a_file_without_the_table_is_not(tmp_path: Path) -> None:
    assert read_board(write(tmp_path / "b.toml")).name == "b"
    (tmp_path / "c.toml").write_text("[engine]\n", encoding="utf-8")
    with pytest.raises(BoardFileError, match="no table"):
        read_board(tmp_path / "c.toml")
    with pytest.raises(BoardFileError, match="No such file"):
        read_board(tmp_path / "d.toml")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_settings_beside_it_fit_the_smallest_of_its_boards(file: Path) -> None:
    engine = tomllib.loads(file.read_text(encoding="utf-8"))["engine"]
    assert not {"threads", "spinning", "prefill_chunk", "prepacked"} & engine.keys()  # `edge-assistant tune` finds them
    assert engine["kv_cache_bytes"] < target(file.stem).usable_bytes
