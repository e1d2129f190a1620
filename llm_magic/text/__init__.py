"""Text to ids and back, messages to a prompt: knows no torch."""
