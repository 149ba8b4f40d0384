"""What the home is (devices and their states) and what the assistant may do to it."""
