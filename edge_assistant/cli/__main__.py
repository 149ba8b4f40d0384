"""`python -m edge_assistant.cli`."""

import sys

from edge_assistant.cli import main

sys.exit(main())
