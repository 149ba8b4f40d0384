"""The workstation's side: a Mistral checkpoint becomes a bundle that a board can run."""

__version__ = "0.1.0"
