"""What to make of a checkpoint: every choice of an export, checked when it is written down."""

from __future__ import annotations

from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Final, Literal, get_args

from edge_assistant.bundle import FLOAT_BITS, Architecture, CacheSpec, Dtype, InstructVersion, LoraSpec, Quantization
from edge_assistant.errors import RecipeError
from edge_assistant_export.methods import LEAST_SQUARES, METHODS, Method
from edge_assistant_export.weights import plan_weights

Bits = Literal[4, 8, 16, 32]
BlockSize = Literal[32, 64, 128]
CacheType = Literal["float", "int8"]
WindowCache = Literal["bounded", "full"]

# No board of ours holds a longer context: 32,768 positions of a 7B are 8.6 GB of float32 cache, and the rotary tables
# of a million positions would be half a gigabyte of the bundle.
LONGEST_DEFAULT: Final = 32_768


@dataclass(frozen=True, slots=True)
class Recipe:
    """The choices of one export; what is None is decided by the checkpoint.

    Raises:
        RecipeError: A value is none of those that the kernels know; the nearest one is named.
    """

    name: str | None = None
    """What the bundle is called; None: as its folder."""
    bits: Bits = 4
    """Bits of a weight in every matrix that `eight_bits` does not name; 16 and 32 keep floats, of `dtype`."""
    block_size: BlockSize = 32
    """Weights that share a scale in all others than `small_blocks`: 32 is more exact, 128 smaller and faster."""
    small_blocks: tuple[str, ...] = ()
    """Matrices in blocks of 32, by the same names."""
    eight_bits: tuple[str, ...] = ()
    """Matrices of a 4-bit bundle that have 8, by the names of `Quantization`; `mixed.py` chooses them by measuring."""
    method: str = "least_squares"
    """How weights become integers: a name in `methods.py`."""
    zero_points: bool = False
    """Whether each block has a zero point of its own, found by least squares: nearer, for `bits` more bits a block."""
    accuracy_level: Literal[0, 4] = 4
    """4 multiplies in int8, 0 in float32: onnxruntime's own scale, of which its kernels for GPUs know nothing."""
    dtype: Dtype = "float32"
    """What the graph computes in: the processor attends in either type, CUDA in float16 alone."""
    cache: CacheType = "float"
    """Of the type of `dtype`, or int8."""
    window_cache: WindowCache = "bounded"
    """What layers with a window keep: the window and some slack, or, as other runtimes want it, the whole context."""
    calibration: Path | None = None
    """A text for methods that read one and for the scales of an int8 cache; None: what the model samples itself."""
    sequence_length: int | None = None
    """Positions that the rotary tables cover; None: the checkpoint's, at most LONGEST_DEFAULT."""
    instruct: InstructVersion | None = None
    """The format of a chat; None: what the checkpoint's tokenizer shows."""
    licence: str | None = None
    """None: what the checkpoint says."""
    lora_rank: int | None = None
    """The highest rank of the LoRA adapters that the graph takes while it runs; None: it takes none."""

    def __post_init__(self) -> None:
        """Refuse what no kernel knows."""
        check_choice("bits", self.bits, get_args(Bits))
        check_choice("block_size", self.block_size, get_args(BlockSize))
        check_choice("method", self.method, tuple(METHODS))
        check_choice("accuracy_level", self.accuracy_level, (0, 4))
        check_choice("dtype", self.dtype, get_args(Dtype))
        if not self.quantized and self.bits != FLOAT_BITS[self.dtype]:
            raise RecipeError("bits", self.bits, f"{FLOAT_BITS[self.dtype]}, as dtype is {self.dtype}")
        check_choice("cache", self.cache, get_args(CacheType))
        check_choice("window_cache", self.window_cache, get_args(WindowCache))
        check_choice("instruct", self.instruct, (None, *get_args(InstructVersion)))
        if self.zero_points and not METHODS[self.method].finds_zero_points:
            raise RecipeError("zero_points", f"used with method {self.method}", "method least_squares")
        if self.sequence_length is not None and self.sequence_length < 1:
            raise RecipeError("sequence_length", self.sequence_length, 1)
        if self.lora_rank is not None and self.lora_rank < 1:
            raise RecipeError("lora_rank", self.lora_rank, 1)
        if self.lora_rank is not None and self.rounding.scales_channels:
            mend = f"none, as method {self.method} scales the inputs that an adapter was trained on"
            raise RecipeError("lora_rank", self.lora_rank, mend)
        if self.eight_bits and self.bits != 4:
            raise RecipeError("eight_bits", ",".join(self.eight_bits), f"none, as bits is {self.bits}")
        if self.small_blocks and not self.quantized:
            raise RecipeError("small_blocks", ",".join(self.small_blocks), f"none, as bits is {self.bits}")
        if self.calibration is not None and not self.calibrates:
            readers = " or ".join(name for name, method in METHODS.items() if method.reads_text)
            raise RecipeError(
                "calibration", self.calibration, f"none, as neither method {readers} nor an int8 cache asks"
            )

    @property
    def quantized(self) -> bool:
        """Whether weights become integers."""
        return self.bits not in FLOAT_BITS.values()

    @property
    def calibrates(self) -> bool:
        """Whether the export reads a text with the checkpoint before it is done."""
        return self.cache == "int8" or self.rounding.reads_text

    @property
    def rounding(self) -> Method:
        """How the weights are written."""
        return METHODS[self.method] if self.quantized else LEAST_SQUARES

    def quantization(self, architecture: Architecture) -> Quantization:
        """Return how the weights of this architecture are stored.

        Raises:
            RecipeError: The fused op for experts wants rows of whole blocks, and they are not; or a matrix
                that is named is none of the architecture's.
        """
        self._check_blocks(architecture)
        plain = Quantization(
            bits=self.bits,
            eight_bits=(),
            block_size=self.block_size if self.quantized else None,
            small_blocks=(),
            zero_points=self.zero_points and self.quantized,
            accuracy_level=self.accuracy_level if self.quantized else 0,
            method=self.method if self.quantized else "none",
            dtype=self.dtype,
        )
        if not self.eight_bits and not self.small_blocks:
            return plain
        known = tuple(plan_weights(architecture, plain).by_name)
        head = "embedding" if architecture.tied_embedding else "lm_head"
        chosen: dict[str, tuple[str, ...]] = {}
        for option, names in (("eight_bits", self.eight_bits), ("small_blocks", self.small_blocks)):
            wanted = [head if name == "lm_head" else name for name in names]
            for name in wanted:
                check_choice(option, name, known)
            chosen[option] = tuple(name for name in known if name in wanted)
        return replace(plain, eight_bits=chosen["eight_bits"], small_blocks=chosen["small_blocks"])

    def _check_blocks(self, architecture: Architecture) -> None:
        sizes = (architecture.hidden_size, architecture.ffn_size)
        if not self.quantized or not architecture.n_experts or not any(size % self.block_size for size in sizes):
            return
        fitting = [size for size in get_args(BlockSize) if not any(row % size for row in sizes)]
        floats = FLOAT_BITS[self.dtype]
        mend = fitting[-1] if fitting else f"none: rows of {sizes[0]} and {sizes[1]} take --bits {floats}"
        raise RecipeError("block_size", self.block_size, mend, tuple(fitting))

    def cache_spec(self, architecture: Architecture) -> CacheSpec:
        """Return how the graph keeps keys and values; where no layer has a window, `window_cache` says nothing."""
        window = self.window_cache if architecture.windowed_layers else None
        return CacheSpec(self.dtype if self.cache == "float" else "int8", window)

    def lora(self, architecture: Architecture) -> LoraSpec | None:
        """Return which matrices take an adapter: of a mixture not its experts, whose products are one op."""
        if self.lora_rank is None:
            return None
        return LoraSpec(self.lora_rank, ("qkv", "o") if architecture.n_experts else ("qkv", "o", "gate_up", "down"))

    def positions(self, architecture: Architecture) -> int:
        """Return how many positions the bundle covers: never more than the checkpoint was made for.

        Raises:
            RecipeError: More were asked for.
        """
        if self.sequence_length is None:
            return min(architecture.max_positions, LONGEST_DEFAULT)
        if self.sequence_length > architecture.max_positions:
            raise RecipeError("sequence_length", self.sequence_length, architecture.max_positions)
        return self.sequence_length


def check_choice(option: str, value: object, allowed: tuple[object, ...]) -> None:
    """Refuse a value that is none of those allowed.

    Raises:
        RecipeError: It names the nearest one, whatever letters are large.
    """
    if value in allowed:
        return
    numbers = [known for known in allowed if isinstance(known, int)]
    if isinstance(value, int) and numbers:
        nearest: object = min(numbers, key=lambda known: abs(known - value))
    else:
        nearest = get_close_matches(str(value).lower(), map(str, allowed), n=1, cutoff=0)[0]
    raise RecipeError(option, value, nearest, tuple(known for known in allowed if known is not None))
