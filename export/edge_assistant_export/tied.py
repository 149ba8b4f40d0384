"""Whether a checkpoint's output head is its embedding: what the configuration says, held against the weights.

transformers 5 takes a model that sees for tied where its file says nothing, and writes so into the file when it saves
it again, beside a head of its own: there only the weights tell. It ties nothing then, and neither is done here. Without
the weights an index of shards tells that there is a head, which nobody stores twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np

from edge_assistant_export.hub import read_index
from edge_assistant_export.safetensors_file import SafetensorsFile

# Rows that are compared at a time: most heads of their own differ in the first.
_ROWS: Final = 1024


def head_is_embedding(found: Mapping[str, SafetensorsFile], head: str, embedding: str) -> bool:
    """Return whether no head of its own is stored, by the files of all tensors and the stored names of the two.

    Raises:
        CheckpointError: One of them is of a type that cannot be read.
    """
    if head not in found or embedding not in found:
        return True
    shapes = [found[name].tensors[name].shape for name in (head, embedding)]
    if shapes[0] != shapes[1] or not shapes[0]:
        return False
    starts = range(0, shapes[0][0], _ROWS)
    parts = ([found[name].read(name, slice(at, at + _ROWS)) for name in (head, embedding)] for at in starts)
    return all(np.array_equal(one, other) for one, other in parts)


def index_lists(index: Path, ending: str) -> bool:
    """Return whether an index of shards, if there is one, lists a tensor whose name ends so.

    Raises:
        CheckpointError: It cannot be read.
    """
    return index.is_file() and any(name.endswith(ending) for name in read_index(index))
