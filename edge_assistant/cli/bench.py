"""`bench`: the speed and memory of a model on this machine, and its roofline."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from edge_assistant.cli.common import adapter_file, prepared_bundle, settings_and_model
from edge_assistant.cli.report import show
from edge_assistant.device import bench as device

if TYPE_CHECKING:
    from argparse import Namespace


def bench(args: Namespace) -> int:
    """Measure, and print what was found: as a person reads it, or as JSON."""
    settings, path = settings_and_model(args)
    adapter = adapter_file(args, settings)
    result = device.bench(*prepared_bundle(path, settings), args.prompt_tokens, args.new_tokens, adapter)
    print(json.dumps(result)) if args.json else show(result)
    return 0
