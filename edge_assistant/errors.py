"""Every error this project raises on purpose.

    EdgeAssistantError
    ├── ConfigError            (ValueError)          the configuration
    │   ├── ConfigFileError                          a file that cannot be read, or is not TOML
    │   ├── UnknownKeyError                          a key that no setting has
    │   ├── InvalidValueError                        a value out of its type or range
    │   ├── HomeDirectoryError                       a user who has none
    │   ├── SecretFileError                          a secret's file, missing or open to others
    │   └── BoardFileError                           a board's description that cannot be read
    ├── UnknownBoardError      (LookupError)         no board has the name asked for
    ├── ModelNotFoundError     (FileNotFoundError)   no bundle under the name or path asked for
    ├── PathEncodingError      (ValueError)          a path that is not in UTF-8
    ├── StateDirectoryError    (OSError)             what is to be kept on the device cannot be written
    ├── StateSpaceError        (OSError)             the disk of the state directory has not the room for it
    ├── BundleError            (ValueError)          a bundle that must not be loaded
    │   ├── BundleFileMissingError
    │   ├── BundleManifestError
    │   ├── BundleVersionError
    │   ├── BundleKindError
    │   ├── BundleSizeError
    │   ├── BundleHashError
    │   └── BundleGraphError
    ├── LoraError              (ValueError)          a LoRA adapter that must not be used with a bundle
    │   ├── LoraFileError                            a file that cannot be read, or holds other matrices than it should
    │   ├── LoraBaseError                            an adapter that was made for another bundle
    │   ├── LoraGraphError                           an adapter that the bundle's graph does not take
    │   └── LoraNameError      (LookupError)         a name that the configuration gives to no adapter
    ├── EngineError
    │   ├── CacheBudgetError   (MemoryError)         the byte budget holds no token
    │   ├── DeviceMemoryError  (MemoryError)         a GPU has not the memory that the cache is to take
    │   ├── RewindError        (ValueError)          tokens are to be taken back that a window has passed over
    │   ├── EvictionError      (ValueError)          tokens are to be taken out of a context that a window bounds
    │   ├── ContextOverflowError (ValueError)        the prompt and answer do not fit the cache
    │   ├── PromptError        (ValueError)          a prompt that is empty or not of this vocabulary
    │   ├── SamplingError      (ValueError)          a sampling parameter out of its range
    │   ├── LogitsError        (ArithmeticError)     a model that computes what is no number
    │   ├── PriorityError      (ValueError)          a priority that no request can have
    │   ├── GrammarError       (ValueError)          a schema, pattern or grammar that cannot be held to
    │   ├── TuningError        (ValueError)          a measurement that is broken, or of another machine or model
    │   ├── DraftError         (ValueError)          a draft model of another vocabulary
    │   ├── PrepackedError     (ValueError)          prepacked weights that are broken, or cannot be made
    │   ├── LoadMeasureError                         a load whose memory could not be measured
    │   ├── ProfileError       (OSError)             times of operators that could not be written
    │   ├── EngineBusyError                          too many requests wait; says when to ask again
    │   ├── DeadlineError      (TimeoutError)        an answer that had not begun in time
    │   └── EngineClosedError
    ├── TextError              (ValueError)          text, ids, and the way between them
    │   ├── TokenizerFileError                       a tokenizer.json that cannot be read
    │   ├── ControlTokenError  (LookupError)         a control token that the vocabulary lacks
    │   ├── InvalidTextError                         text that is not Unicode
    │   ├── InputEncodingError                       standard input that is not text
    │   ├── UnsafeVocabularyError                    a vocabulary that reads text as control tokens
    │   ├── InstructFormatError                      an instruct format that is not known
    │   ├── ConversationError                        a chat that its instruct format cannot hold
    │   ├── ToolCallError                            a call that the model wrote wrongly
    │   ├── SchemaFileError                          a file that holds no schema for an answer
    │   └── IncompleteAnswerError                    an answer that ended before it was what its schema says
    ├── HomeError              (ValueError)          the home, and what may be done to it
    │   ├── HomeFileError                            a home description that cannot be read
    │   ├── CallError                                a call with a tool, slot, value or target that cannot be
    │   └── UnknownDeviceError (LookupError)         a call that names what the home does not list
    ├── MqttError                                    the broker and what arrives from it
    │   ├── BrokerLoginError   (PermissionError)
    │   ├── BrokerUnreachableError (ConnectionError)
    │   └── RequestError       (ValueError)          an `ask` that cannot be answered; carries a code
    ├── PackageMissingError (ImportError)            a command whose packages are not installed
    ├── DemoError                                    the demonstration did not come about
    └── ExportError            (ValueError)          the workstation's side
        ├── CheckpointError                          a checkpoint that is missing, truncated or misshapen
        │   ├── UnsupportedArchitectureError
        │   └── AdapterError                         a LoRA adapter that is broken or of another model
        │       └── UnsupportedAdapterError
        ├── HubAccessError     (PermissionError)
        ├── Float16RangeError  (OverflowError)       a model that float16 does not hold
        ├── ExtraMissingError  (ImportError)         a command whose packages are not installed
        ├── RecipeError                              a choice that no kernel knows
        ├── BoardTooSmallError (MemoryError)         a model and options that the board's memory cannot hold
        ├── TargetSizeError                          a size that no choice of bits comes down to
        ├── MaxKlError                               a nearness that no choice of bits reaches
        ├── OutputExistsError  (FileExistsError)     the bundle's folder is already there
        ├── OutputBusyError    (BlockingIOError)     another export writes the same bundle
        ├── OutputSpaceError   (OSError)             the disk cannot take the bundle
        ├── OutputWriteError   (OSError)             the bundle could not be written
        └── VerificationError

A class takes the facts and builds its own message: what is wrong, where, and how to mend it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class EdgeAssistantError(Exception):
    """The root: `except EdgeAssistantError` catches all that this project raises on purpose."""


class ConfigError(EdgeAssistantError, ValueError):
    """The configuration cannot be used."""


class ConfigFileError(ConfigError):
    """A configuration file cannot be read, or is not TOML."""

    def __init__(self, path: Path, problem: str) -> None:
        """`problem` is the system's or the parser's own word."""
        super().__init__(f"{path}: {problem}; `edge-assistant config init` writes a fresh one")


class UnknownKeyError(ConfigError):
    """A key that no setting has."""

    def __init__(self, source: str, key: str, nearest: str | None) -> None:
        """`source` is a file or a variable, `key` is dotted, `nearest` the key that was likely meant."""
        mend = f"did you mean {nearest}?" if nearest else "`edge-assistant config show` lists all there are"
        super().__init__(f"{source}: there is no setting {key}; {mend}")


class InvalidValueError(ConfigError):
    """A value out of its setting's type or range."""

    def __init__(self, source: str, key: str, value: object, expected: str) -> None:
        """`expected` says what the value should be."""
        super().__init__(f"{source}: {key} is {value!r}, expected: {expected}")


class HomeDirectoryError(ConfigError):
    """Neither the environment nor the system knows a home directory, as in a container whose user has no name."""

    def __init__(self, instead: str) -> None:
        """`instead` is the variable that would do."""
        super().__init__(f"this user has no home directory: set {instead}, or HOME")


class SecretFileError(ConfigError):
    """A file that holds a secret is missing, empty, or open to others."""

    def __init__(self, path: Path, problem: str) -> None:
        """`problem` says what is wrong and, where it can be mended, how."""
        super().__init__(f"{path}: {problem}")


class BoardFileError(ConfigError):
    """A board's description cannot be read, or does not describe one."""

    def __init__(self, path: Path, problems: Sequence[str]) -> None:
        """`problems` name a key and what is wrong with it, one each."""
        listed = "".join(f"\n  {problem}" for problem in problems)
        super().__init__(f"{path} does not describe a board; mend it, or take it anew from the distribution:{listed}")


class UnknownBoardError(EdgeAssistantError, LookupError):
    """No board has the name asked for."""

    def __init__(self, name: str, nearest: str, boards: Sequence[str]) -> None:
        """`nearest` is the name most like it, `boards` the names of all."""
        super().__init__(
            f"no board is called {name!r}; did you mean {nearest}? "
            f"There are {', '.join(boards)}, each with its memory where it is sold with several: raspberry-pi-5-8gb"
        )


class ModelNotFoundError(EdgeAssistantError, FileNotFoundError):
    """No bundle lies under the name or path asked for."""

    def __init__(self, name: str, looked: Sequence[Path]) -> None:
        """`looked` are the folders that were tried, in order."""
        places = "".join(f"\n  {path}" for path in looked)
        super().__init__(
            f"no model {name!r}: a bundle is a folder with a manifest.json, and there is none at{places}\n"
            f"Copy one there, name another by its path, or export one on a workstation:\n"
            f"  edge-assistant-export model CHECKPOINT {looked[-1]}"
        )


class PathEncodingError(EdgeAssistantError, ValueError):
    """A path that is not in UTF-8: no manifest can name it, and onnxruntime opens none such."""

    def __init__(self, path: Path) -> None:
        """`path` is the folder or file; of its name, what is not in UTF-8 is shown as numbers."""
        shown = os.fsencode(path).decode("utf-8", "backslashreplace")
        super().__init__(f"{shown} is no path in UTF-8: rename it, or name another")


class StateDirectoryError(EdgeAssistantError, OSError):
    """What is to be kept on the device cannot be written; found out before it is made."""

    def __init__(self, folder: Path, reason: OSError) -> None:
        """`folder` is the one in the state directory that it is for."""
        super().__init__(
            f"{folder} cannot be written ({reason.strerror or reason}): let this user write there, or set "
            f"XDG_STATE_HOME to a folder where it may, for `edge-assistant serve` as well"
        )


class StateSpaceError(EdgeAssistantError, OSError):
    """The disk of the state directory cannot take what is to be kept there; found out before it is made."""

    def __init__(self, folder: Path, needed: int, free: int) -> None:
        """`folder` is the one that it is for; both sizes are in bytes."""
        super().__init__(
            f"{folder} needs {needed / 1e9:.2f} GB, and {free / 1e9:.2f} GB are free there: make room, or set "
            f"XDG_STATE_HOME to a folder on another disk, for `edge-assistant serve` as well"
        )


class BundleError(EdgeAssistantError, ValueError):
    """A bundle that must not be loaded."""


class BundleFileMissingError(BundleError):
    """A file of the bundle is not there."""

    def __init__(self, path: Path) -> None:
        """`path` is the file."""
        super().__init__(f"{path} is missing: copy the whole bundle again")


class BundleManifestError(BundleError):
    """The manifest cannot be read."""

    def __init__(self, path: Path, problems: Sequence[str]) -> None:
        """`problems` name a key and what is wrong with it, one each."""
        listed = "".join(f"\n  {problem}" for problem in problems)
        super().__init__(f"{path} is no manifest this runtime can read; export the model again:{listed}")


class BundleVersionError(BundleError):
    """The bundle's format is of another time."""

    def __init__(self, path: Path, found: int, known: int) -> None:
        """`found` is the manifest's format_version, `known` the one this runtime reads."""
        mend = "update this runtime" if found > known else "export the model again"
        super().__init__(f"{path} has format_version {found}, this runtime reads {known}: {mend}")


class BundleKindError(BundleError):
    """The bundle holds a model for something else."""

    def __init__(self, path: Path, found: str, wanted: str) -> None:
        """`path` is the manifest; `found` and `wanted` are kinds, such as `speech`."""
        super().__init__(f"{path} is that of a bundle for {found}, and one for {wanted} is wanted: name another bundle")


class BundleSizeError(BundleError):
    """A file is longer or shorter than the manifest says."""

    def __init__(self, path: Path, expected: int, actual: int) -> None:
        """Both sizes are bytes."""
        what = "cut short" if actual < expected else "too long"
        super().__init__(f"{path} is {what}: {actual} bytes, the manifest says {expected}; copy the bundle again")


class BundleHashError(BundleError):
    """A file's content is not what was exported."""

    def __init__(self, path: Path, expected: str, actual: str) -> None:
        """Both are SHA-256 in hexadecimal."""
        super().__init__(
            f"{path} is corrupt: its SHA-256 is {actual}, the manifest says {expected}; copy the bundle again"
        )


class BundleGraphError(BundleError):
    """The graph cannot be loaded, or is not the one the manifest describes."""

    def __init__(self, path: Path, problems: Sequence[str]) -> None:
        """`problems` are what does not hold, one each."""
        listed = "".join(f"\n  {problem}" for problem in problems)
        super().__init__(f"{path} does not fit its manifest or this onnxruntime; export the model again:{listed}")


class LoraError(EdgeAssistantError, ValueError):
    """A LoRA adapter that must not be used with a bundle."""


class LoraFileError(LoraError):
    """A file that cannot be read as an adapter, or holds other matrices than it should."""

    def __init__(self, path: Path, problem: str) -> None:
        """`problem` is what is wrong with the file."""
        mend = "make it with edge-assistant-export adapter"
        super().__init__(f"{path} is no adapter that can be read ({problem}): {mend}")


class LoraBaseError(LoraError):
    """An adapter that was made for another bundle: with these weights it would answer nonsense."""

    def __init__(self, path: Path, made_for: str, bundle: str) -> None:
        """Both bundles by name, which may be the same: they are told apart by their weights."""
        super().__init__(
            f"{path} was made for other weights (a bundle named {made_for}) than those of {bundle}: "
            f"make it with edge-assistant-export adapter --for that bundle"
        )


class LoraGraphError(LoraError):
    """An adapter that the bundle's graph does not take."""

    NONE = "its graph takes no adapter; export it with --lora-rank"

    def __init__(self, path: Path, bundle: str, problem: str = NONE) -> None:
        """`bundle` is its name, `problem` what its graph does not take, and how to mend it."""
        super().__init__(f"{path} cannot be used with {bundle}: {problem}")


class LoraNameError(LoraError, LookupError):
    """The configuration gives the name to no adapter."""

    def __init__(self, name: str, names: Sequence[str]) -> None:
        """`names` are those that it gives."""
        there_are = f"there are {', '.join(names)}" if names else "model.adapters of the configuration names none"
        super().__init__(f"no adapter is called {name!r}; {there_are}")


class EngineError(EdgeAssistantError):
    """The engine cannot do what it is asked."""


class CacheBudgetError(EngineError, MemoryError):
    """The key/value cache's budget does not hold one token."""

    def __init__(self, budget: int, per_token: int, whole: int, max_positions: int) -> None:
        """`budget`, `per_token` and `whole`, the cost of all `max_positions`, are bytes, of all sequences."""
        super().__init__(
            f"engine.kv_cache_bytes = {budget} holds no token: one costs {per_token} bytes in this model. "
            f"{512 * per_token} bytes hold 512 tokens, {whole} the whole context of {max_positions}"
        )


class DeviceMemoryError(EngineError, MemoryError):
    """The device that computes does not give the memory for the cache."""

    def __init__(self, device: str, size: int, problem: str) -> None:
        """`size` is that of one buffer, of keys or of values of one layer, in bytes; `problem` is onnxruntime's."""
        super().__init__(
            f"{device} gives no {size} bytes for a layer's keys or values ({problem}): lower engine.kv_cache_bytes or "
            f"engine.gpu_memory_bytes, or set engine.provider = cpu"
        )


class RewindError(EngineError, ValueError):
    """A context cannot be taken back so far: what its next token would see was dropped from a bounded window cache."""

    def __init__(self, length: int, target: int, shortest: int) -> None:
        """All are tokens: of the context, of what was to be left of it, and the least that can be left."""
        super().__init__(
            f"a context of {length} tokens cannot be taken back to {target}: a window has dropped what comes before. "
            f"It can be taken back to {shortest} or more, or to 0 and read anew"
        )


class EvictionError(EngineError, ValueError):
    """Tokens cannot be taken out of the middle of a context whose layers keep a bounded window."""

    def __init__(self, tokens: int) -> None:
        """`tokens` were to be taken out."""
        super().__init__(
            f"{tokens} tokens cannot be taken out of a bounded window cache: read what is left of the context anew, "
            f"or export the model with --window-cache full"
        )


class ContextOverflowError(EngineError, ValueError):
    """The prompt and its answer are longer than the cache."""

    def __init__(self, prompt: int, answer: int, capacity: int) -> None:
        """All are tokens."""
        excess = prompt + answer - capacity
        super().__init__(
            f"{prompt} tokens of prompt and {answer} of answer are {excess} more than the {capacity} that fit: "
            f"shorten either, or raise engine.kv_cache_bytes"
        )


class PromptError(EngineError, ValueError):
    """A prompt that is empty, or holds what is no token of this model."""

    def __init__(self, length: int | None, vocab_size: int) -> None:
        """`length` of the prompt is in tokens, None where it is no row of whole numbers."""
        problem = f"it holds an id outside 0..{vocab_size - 1}" if length else "it is empty"
        if length is None:
            problem = f"it is no row of token ids, whole numbers in 0..{vocab_size - 1}"
        super().__init__(f"the prompt cannot be read: {problem}")


class LogitsError(EngineError, ArithmeticError):
    """What the model computed for the next token is no number, so there is no token to choose."""

    def __init__(self, position: int) -> None:
        """`position` is that of the token in the context."""
        super().__init__(
            f"the model computes no number for the token at position {position}: verify its files "
            f"(`edge-assistant models verify`); one in float16 may need --dtype float32, or another provider"
        )


class PriorityError(EngineError, ValueError):
    """A priority that no request can have."""

    def __init__(self, priority: object, known: tuple[str, ...]) -> None:
        """`known` are those there are."""
        super().__init__(f"the priority {priority!r} is none: there are {', '.join(known)}")


class SamplingError(EngineError, ValueError):
    """A sampling parameter out of its range."""

    def __init__(self, name: str, value: object, must: str) -> None:
        """`must` says what holds for every right value, such as `be above 0`."""
        super().__init__(f"{name} = {value!r}, but it must {must}")


class GrammarError(EngineError, ValueError):
    """What an answer was to be held to is malformed, impossible, too large, or more than can be held to."""

    def __init__(self, kind: str, problem: str) -> None:
        """`kind` is what was given (`json_schema`, `regex`, `lark`), `problem` the compiler's own word."""
        super().__init__(f"the answer cannot be held to this {kind}: {problem.strip()}")
        self.kind = kind


class TuningError(EngineError, ValueError):
    """What `edge-assistant tune` saved cannot be used."""

    def __init__(self, path: Path, problem: str) -> None:
        """`problem` says what does not hold."""
        super().__init__(f"{path}: {problem}; run `edge-assistant tune` again, until then the defaults hold")


class PrepackedError(EngineError, ValueError):
    """What `edge-assistant warm` wrote cannot be used."""

    def __init__(self, path: Path, problem: str) -> None:
        """`problem` says what does not hold."""
        super().__init__(
            f"{path}: {problem}; run `edge-assistant warm` again, until then the bundle's own weights load"
        )


class DraftError(EngineError, ValueError):
    """A draft model whose tokens are not those of the model that it is to write ahead for."""

    def __init__(self, draft: str, model: str, sizes: tuple[int, int]) -> None:
        """Both by name; `sizes` are those of the model's vocabulary and of the draft's, in tokens."""
        super().__init__(
            f"{draft} cannot be the draft of {model}: their vocabularies differ ({sizes[1]} and {sizes[0]} tokens, or "
            f"other ones). Name one that was made with the same tokenizer in engine.draft, or none"
        )


class LoadMeasureError(EngineError):
    """What loading a bundle takes could not be measured: the process that was to load it has not done so."""

    def __init__(self, bundle: str, problem: str) -> None:
        """`bundle` is its name, `problem` why it was not loaded."""
        super().__init__(f"the memory that loading {bundle} takes cannot be measured: {problem}")


class ProfileError(EngineError, OSError):
    """What onnxruntime notes of its operators' times breaks off."""

    def __init__(self, path: Path) -> None:
        """`path` is the temporary file."""
        super().__init__(f"{path} breaks off: make room on its disk, or set TMPDIR to a folder where there is some")


class EngineBusyError(EngineError):
    """As many requests wait as may, and none of them gives way to this one; nothing was computed."""

    def __init__(self, waiting: int, retry_after_s: float) -> None:
        """`waiting` requests are ahead; a place is expected after `retry_after_s` seconds."""
        self.retry_after_s = retry_after_s
        super().__init__(f"{waiting} requests are waiting already: ask again in {retry_after_s:.1f} s")


class DeadlineError(EngineError, TimeoutError):
    """An answer had not begun when its time was over, and is given up."""

    def __init__(self, deadline_s: float) -> None:
        """`deadline_s` is what the request allowed, in seconds."""
        super().__init__(f"no token came within the {deadline_s:g} s that the request allowed: others were first")


class EngineClosedError(EngineError):
    """The engine was closed; its memory is gone."""

    def __init__(self) -> None:
        super().__init__("the engine is closed: load it again")


class PackageMissingError(EdgeAssistantError, ImportError):
    """A command needs a package that is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        """`extra` is the one of this distribution that brings it."""
        super().__init__(
            f"the package {package} is not installed: in the clone, run `pip install --editable '.[{extra}]'`"
        )


class DemoError(EdgeAssistantError):
    """The demonstration did not come about."""


class ExportError(EdgeAssistantError, ValueError):
    """The workstation's side: a checkpoint that cannot become a bundle."""


class CheckpointError(ExportError):
    """A checkpoint that is missing, truncated or misshapen."""

    def __init__(self, path: Path | str, problem: str) -> None:
        """`path` is the file or folder, `problem` what is wrong there and, where it can be mended, how."""
        super().__init__(f"{path}: {problem}")


class UnsupportedArchitectureError(CheckpointError):
    """A model whose mathematics the exporter does not know: a bundle of it would answer nonsense."""

    LANGUAGE = (
        "Mistral, Ministral and Mixtral models (MistralForCausalLM, MinistralForCausalLM, Ministral3ForCausalLM, "
        "MixtralForCausalLM, and the language part of Mistral3ForConditionalGeneration) with plain rotary positions, "
        "or those of YaRN, and silu"
    )

    def __init__(self, path: Path, found: str, supported: str = LANGUAGE) -> None:
        """`path` is the file that says so, `found` what it says, `supported` what the command knows."""
        super().__init__(path, f"{found} is not supported. Supported are {supported}")


class AdapterError(CheckpointError):
    """A LoRA adapter that is missing, broken, or was trained on another model than the checkpoint."""


class UnsupportedAdapterError(AdapterError):
    """An adapter of a kind that is not merged here: a bundle of it would not be the model that was trained."""

    def __init__(self, path: Path, found: str) -> None:
        """`path` is the file that says so, `found` what it says."""
        super().__init__(
            path,
            f"{found} is not supported; plain LoRA is. "
            f"Merge the adapter with PEFT (merge_and_unload), save the model, and export that without --adapter",
        )


class HubAccessError(ExportError, PermissionError):
    """The hub does not give the checkpoint."""

    def __init__(self, name: str, problem: str, mend: str) -> None:
        """`name` is `organisation/model`; `problem` ends no sentence, `mend` says what to do."""
        super().__init__(f"{name} cannot be had from the hub: {problem}. {mend}")


class ExtraMissingError(ExportError, ImportError):
    """A command needs packages that are not installed."""

    def __init__(self, command: str, extra: str, reason: ImportError) -> None:
        """`extra` is the one of the exporter's distribution that brings them."""
        super().__init__(
            f"`{command}` needs packages that are not here ({reason}): install the extra {extra}, in the clone, with "
            f"`pip install torch==2.13.0` and then `pip install --editable . --editable './export[{extra}]'`"
        )


class RecipeError(ExportError):
    """A choice of an export that no kernel knows."""

    def __init__(self, option: str, value: object, nearest: object, allowed: Sequence[object] = ()) -> None:
        """`nearest` is the value closest to what was asked for, `allowed` are all there are, where they are few."""
        others = f"; there are {', '.join(map(str, allowed))}" if allowed else ""
        super().__init__(f"{option} cannot be {value}: the nearest that can is {nearest}{others}")


class Float16RangeError(ExportError, OverflowError):
    """A model that is to compute in float16 and holds numbers that float16 does not."""

    def __init__(self, name: str, largest: float) -> None:
        """`largest` is the greatest magnitude in the tensor of that name."""
        super().__init__(f"{name} holds {largest:g}, and float16 nothing beyond 65504: leave --dtype at float32")


class BoardTooSmallError(ExportError, MemoryError):
    """A model and options that the board's memory cannot hold: paging them in would take seconds a token."""

    def __init__(self, board: str, needed: int, tokens: int, usable: int, mends: Sequence[str]) -> None:
        """`needed` is the least in bytes, with a context of `tokens`; `usable` what is left beside the system."""
        listed = "".join(f"\n  {mend}" for mend in mends)
        super().__init__(
            f"{board} is too small: the model needs {needed / 1e9:.2f} GB with a context of {tokens} tokens, and "
            f"{usable / 1e9:.2f} GB are left beside the system"
            + (f". What would fit:{listed}" if mends else ", and no board that is known has more")
        )


class TargetSizeError(ExportError):
    """A bundle that is to be smaller than all its matrices in 4 bits make it."""

    def __init__(self, wanted: int, least: int, most: int) -> None:
        """All are in bytes: what was asked for, and the bundle with all matrices in 4 and in 8 bits."""
        super().__init__(
            f"target_size cannot be {wanted / 1e6:,.2f} MB: with all matrices in 4 bits the bundle takes "
            f"{least / 1e6:,.2f} MB, in 8 bits {most / 1e6:,.2f} MB; larger blocks (--block-size) take less"
        )


class MaxKlError(ExportError):
    """A bundle that is to be nearer to its checkpoint than all its matrices in 8 bits bring it."""

    def __init__(self, wanted: float, best: float) -> None:
        """Both are KL divergences in nats."""
        super().__init__(
            f"max_kl cannot be {wanted:g}: with all matrices in 8 bits the KL divergence is {best:.2g}, and none is "
            f"nearer but --bits 32"
        )


class OutputExistsError(ExportError, FileExistsError):
    """Something already lies where the bundle is to go."""

    def __init__(self, path: Path, *, strangers: Sequence[str] = (), overwritable: bool = True) -> None:
        """`path` is the folder to be; `strangers` are names in it that are not a bundle's and would be lost."""
        mend = ", or replace it with --overwrite" if overwritable else ""
        if strangers:
            mend = f", for {', '.join(sorted(strangers)[:3])} in it would be lost"
        super().__init__(f"{path} is already there: name another{mend}")


class OutputBusyError(ExportError, BlockingIOError):
    """Another export writes the same bundle."""

    def __init__(self, path: Path) -> None:
        """`path` is the bundle's folder."""
        super().__init__(f"{path} is being written by another export: wait for it, or name another folder")


class OutputSpaceError(ExportError, OSError):
    """The disk cannot take the bundle; found out before anything is read."""

    def __init__(self, path: Path, needed: int, free: int) -> None:
        """`path` is the bundle's folder; both sizes are in bytes."""
        super().__init__(
            f"{path} needs {needed / 1e9:.2f} GB, and {free / 1e9:.2f} GB are free there: "
            f"make room, or name a folder on another disk"
        )


class OutputWriteError(ExportError, OSError):
    """The bundle could not be written; nothing of it is left under its name."""

    def __init__(self, path: Path, needed: int | None, reason: OSError) -> None:
        """`path` is the bundle's folder, `needed` its size in bytes, None where that is not known beforehand."""
        space = "" if needed is None else f"the bundle needs {needed / 1e9:.2f} GB of space; "
        super().__init__(
            f"{path} could not be written ({reason.strerror or reason}): {space}nothing is left under its name"
        )


class VerificationError(ExportError):
    """A bundle and a checkpoint that cannot be compared."""

    def __init__(self, path: Path, problem: str) -> None:
        """`path` is the bundle's folder; `problem` says how to mend it, where it can be."""
        super().__init__(f"{path} cannot be verified: {problem}")


class TextError(EdgeAssistantError, ValueError):
    """Text, token ids, and the way between them."""


class TokenizerFileError(TextError):
    """A tokenizer.json cannot be read."""

    def __init__(self, path: Path, problem: str) -> None:
        """`problem` is the system's or the library's own word."""
        super().__init__(f"{path} is no tokenizer this runtime can read ({problem}): export the model again")


class ControlTokenError(TextError, LookupError):
    """The vocabulary lacks a control token that the instruct format needs."""

    def __init__(self, name: str) -> None:
        """`name` is the token's, such as `[INST]`."""
        super().__init__(f"the tokenizer has no control token {name}: its instruct format is not the model's")


class InvalidTextError(TextError):
    """A text is not Unicode: half of a surrogate pair stands alone, as a broken JSON escape leaves it."""

    def __init__(self, character: str, position: int) -> None:
        """`position` counts characters from 0."""
        super().__init__(f"character {position} of the text is {character!r}, half of a pair: send valid Unicode")


class InputEncodingError(TextError):
    """What standard input gives is not text in the encoding of the terminal."""

    def __init__(self, encoding: str, byte: int) -> None:
        """`byte` is the first that cannot be read."""
        super().__init__(f"standard input is not {encoding}: it holds the byte {byte:#04x}; convert it, or set LC_ALL")


class UnsafeVocabularyError(TextError):
    """The vocabulary turns text into a control id, so what a person types could speak for the model."""

    def __init__(self, name: str) -> None:
        """`name` is the control token's."""
        super().__init__(f"the vocabulary reads text as the control token {name}: export a sound tokenizer.json")


class InstructFormatError(TextError):
    """No instruct format has this name."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        """`known` are the names there are."""
        super().__init__(f"no instruct format is called {name!r}; there are {', '.join(known)}")


class ConversationError(TextError):
    """A conversation that its instruct format cannot hold."""

    def __init__(self, turn: int, role: str, problem: str) -> None:
        """`turn` counts from 1, `role` says whose turn it is."""
        super().__init__(f"turn {turn} of the conversation ({role}): {problem}")


class ToolCallError(TextError):
    """The model called a tool in a way that cannot be read; nothing was called."""

    def __init__(self, text: str, problem: str) -> None:
        """`text` is what the model wrote, in full."""
        super().__init__(f"the model's call cannot be read: {problem}: {text[:200]}")
        self.text = text


class SchemaFileError(TextError):
    """A file that was to hold the JSON schema of an answer cannot be read, or holds something else."""

    def __init__(self, path: Path, problem: str) -> None:
        """`problem` says what is wrong with it."""
        super().__init__(f"{path} holds no JSON schema for an answer: {problem}")


class IncompleteAnswerError(TextError):
    """An answer ended before it was JSON that fits its schema; no part of it is passed on as one."""

    def __init__(self, text: str, finish_reason: str, tokens: int) -> None:
        """`text` is what was written, of so many tokens; `finish_reason` is why it ended."""
        why = "max_tokens cut it: allow more" if finish_reason == "length" else f"its finish_reason is {finish_reason}"
        super().__init__(f"the answer is no whole JSON yet after {tokens} tokens ({why}): {text[:200]}")


class HomeError(EdgeAssistantError, ValueError):
    """The home, and what may be done to it."""


class HomeFileError(HomeError):
    """A home description that cannot be read."""

    def __init__(self, path: Path, key: str, problem: str) -> None:
        """`path` is the file, `key` the dotted place in it, empty for the whole."""
        super().__init__(f"{path}: {key}: {problem}" if key else f"{path}: {problem}")


class CallError(HomeError):
    """A call that cannot be carried out; nothing was commanded. The message is a sentence for the person."""


class UnknownDeviceError(HomeError, LookupError):
    """A call that names what the home does not list. The message is a sentence for the person."""

    def __init__(self, wanted: str, nearest: Sequence[str] = ()) -> None:
        """`wanted` is what was asked for (`hall lamp in the hall`), `nearest` what comes close, with its article."""
        mend = f" Did you mean {' or '.join(nearest)}?" if nearest else ""
        super().__init__(f"There is no {wanted}.{mend}")


class MqttError(EdgeAssistantError):
    """The broker, and what arrives from it."""


class BrokerLoginError(MqttError, PermissionError):
    """The broker refuses us; trying again with the same login would not help."""

    def __init__(self, address: str, username: str | None, reason: str) -> None:
        """`address` is `host:port`, `reason` the broker's own word."""
        who = f"the user {username!r}" if username else "an anonymous client"
        super().__init__(
            f"the broker at {address} refuses {who} ({reason}): check mqtt.username and mqtt.password_file"
        )


class BrokerUnreachableError(MqttError, ConnectionError):
    """No broker answers, or a broker of our own does not start."""

    def __init__(self, address: str, reason: str, mend: str = "") -> None:
        """`mend` says how it can be put right, where that is known."""
        super().__init__(f"no broker at {address}: {reason}" + (f"; {mend}" if mend else ""))


class RequestError(MqttError, ValueError):
    """A question that cannot be answered as it arrived."""

    def __init__(self, code: str, problem: str, request_id: str | None = None) -> None:
        """`code` is one of docs/protocol.md, `request_id` the question's own where it could be read."""
        super().__init__(problem)
        self.code = code
        self.request_id = request_id
