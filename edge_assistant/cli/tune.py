"""`tune` and `warm`: what is measured and written on the device, for the device."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from edge_assistant.cli.common import open_bundle, settings_and_model
from edge_assistant.cli.report import show
from edge_assistant.config import state_directory
from edge_assistant.device import prepare

if TYPE_CHECKING:
    from argparse import Namespace


def tune(args: Namespace) -> int:
    """Measure, and keep what was found; progress goes to standard error."""
    settings, path = settings_and_model(args)
    found = prepare.tune(open_bundle(path), settings.engine, state_directory(), _progress)
    print(json.dumps(found)) if args.json else show(found)
    return 0


def warm(args: Namespace) -> int:
    """Write the prepacked weights, and say what memory they save."""
    settings, path = settings_and_model(args)
    saved = prepare.warm(open_bundle(path), settings.engine, state_directory())
    print(json.dumps(saved)) if args.json else show(saved)
    return 0


def _progress(line: str) -> None:
    print(f"  {line}", file=sys.stderr, flush=True)
