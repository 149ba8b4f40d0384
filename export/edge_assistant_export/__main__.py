"""`python -m edge_assistant_export`."""

import sys

from edge_assistant_export.cli import main

sys.exit(main())
