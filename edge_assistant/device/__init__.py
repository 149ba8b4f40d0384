"""The boards the assistant is made for."""
