"""What each board is: its memory, how fast that is read, and what its processor can do.

Every file of firmware_configs/ is named after a board. Its table [board] is read here; its other tables are the
settings of `edge-assistant serve` there. Bytes are bytes (a board "with 8 GB" has 8 GiB), bandwidths bytes a second.

A board has its file's name and shorter ones; the size of its memory follows after a hyphen, and where it is left out
the smallest is meant, so that what is made for a board runs on each that is sold:

    raspberry-pi-5    raspberry-pi-5-8gb    pi5    pi5-8gb    zero2w-512mb
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from edge_assistant.errors import BoardFileError, UnknownBoardError

FOLDER = Path(__file__).parents[1] / "firmware_configs"

_DOT_PRODUCTS = "asimddp"
_Found = TypeVar("_Found")
_Count = Annotated[int, Field(gt=0)]
_Name = Annotated[str, Field(pattern="^[a-z0-9]+(-[a-z0-9]+)*$")]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Variant(_Table):
    """One of the sizes of memory a board is sold with."""

    ram_bytes: _Count
    cores: _Count
    peak_bandwidth: _Count
    """What the memory's bus can carry: no token is written faster than the weights pass through it."""

    @property
    def size(self) -> str:
        """The memory as it follows a board's name: `8gb`, `512mb`."""
        return f"{self.ram_bytes >> 30}gb" if self.ram_bytes >= 1 << 30 else f"{self.ram_bytes >> 20}mb"


class Accelerator(_Table):
    """What could compute beside the processor."""

    name: str
    compute: str
    """NVIDIA's name of what it runs: `sm_87`."""
    in_wheels: bool
    """Whether onnxruntime's wheels on the Python index hold code for it."""


class Board(_Table):
    """A board as its file describes it; `name` is the file's."""

    name: _Name
    title: str
    aliases: tuple[_Name, ...]
    machine: Literal["aarch64"]
    """What `uname -m` must print: onnxruntime has wheels for no other ARM."""
    cpu: str
    cpu_features: tuple[Literal["aes", "asimddp", "i8mm"], ...]
    """Those of the kernel's names in /proc/cpuinfo that make a difference here."""
    copy_bandwidth: _Count
    """What one core copies: a floor, as the bus's peak is a ceiling."""
    reserved_bytes: _Count
    """What firmware, kernel and the system's services keep."""
    variants: Annotated[tuple[Variant, ...], Field(min_length=1)]
    accelerators: tuple[Accelerator, ...] = ()
    notes: tuple[str, ...] = ()
    """Whole sentences that whoever makes something for this board should read."""

    @model_validator(mode="after")
    def _check_variants(self) -> Self:
        sizes = [variant.ram_bytes for variant in self.variants]
        if sizes != sorted(set(sizes)):
            raise ValueError("variants must grow in ram_bytes")
        if sizes[0] <= self.reserved_bytes:
            raise ValueError("reserved_bytes leaves nothing of the smallest variant")
        return self

    @property
    def has_dot_products(self) -> bool:
        """Whether it multiplies int8 at speed: without, onnxruntime computes in float32 whatever is asked."""
        return _DOT_PRODUCTS in self.cpu_features


@dataclass(frozen=True, slots=True)
class Target:
    """A board with one size of memory."""

    board: Board
    variant: Variant

    @property
    def name(self) -> str:
        """Such as `raspberry-pi-5-8gb`."""
        return f"{self.board.name}-{self.variant.size}"

    @property
    def title(self) -> str:
        """Such as `Raspberry Pi 5 with 8 GB`."""
        size = self.variant.size
        return f"{self.board.title} with {size[:-2]} {size[-2:].upper()}"

    @property
    def usable_bytes(self) -> int:
        """What is left for the assistant."""
        return self.variant.ram_bytes - self.board.reserved_bytes


@cache
def boards() -> tuple[Board, ...]:
    """Return every board, by name.

    Raises:
        BoardFileError
    """
    return tuple(read_board(path) for path in sorted(FOLDER.glob("*.toml")))


def targets() -> tuple[Target, ...]:
    """Return every board with every size of its memory."""
    return tuple(Target(board, variant) for board in boards() for variant in board.variants)


def board(name: str) -> Board:
    """Return the board of this name, given without a size of memory.

    Raises:
        UnknownBoardError: There is none; the nearest name is named.
    """
    return _find(name, {known: board for board in boards() for known in (board.name, *board.aliases)})


def target(name: str) -> Target:
    """Return the board of this name with the memory the name says, else with its smallest.

    Raises:
        UnknownBoardError: There is none; the nearest name is named.
    """
    named: dict[str, Target] = {}
    for one in boards():
        for known in (one.name, *one.aliases):
            named[known] = Target(one, one.variants[0])
            named |= {f"{known}-{variant.size}": Target(one, variant) for variant in one.variants}
    return _find(name, named)


def read_board(path: Path) -> Board:
    """Read the table [board] of a file.

    Raises:
        BoardFileError: It cannot be read, is not TOML, or a key is missing, unknown or wrong.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
        return Board.model_validate({"name": path.stem} | tables["board"])
    except KeyError as error:
        raise BoardFileError(path, ["there is no table [board]"]) from error
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, ('board', *item['loc'])))}: {item['msg']}" for item in error.errors()]
        raise BoardFileError(path, problems) from error
    except (OSError, ValueError, RecursionError, TypeError) as error:  # the last where `board` is no table
        raise BoardFileError(path, [str(error)]) from error


def _find(name: str, named: Mapping[str, _Found]) -> _Found:
    wanted = name.strip().lower()
    if wanted not in named:
        nearest = difflib.get_close_matches(wanted, named, n=1, cutoff=0)[0]
        raise UnknownBoardError(name, nearest, [known.name for known in boards()])
    return named[wanted]
