"""What was said, spelled as a model reads it best.

A text all in capitals is cut into other tokens than the same words in a home's list of devices, which a small model
can hardly hold together; and some hubs and speech recognisers write nothing else. No name is lost by it: what a call
names is compared without its case.
"""

from __future__ import annotations


def legible(text: str) -> str:
    """Return the text, in small letters where it has none."""
    return text.lower() if text.isupper() else text
