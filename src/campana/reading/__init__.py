"""Readers that answer a question from a passage, or say that it has no answer."""
