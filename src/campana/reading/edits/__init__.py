"""Counterparts made offline: small edits of an answerable question, one operator a file, that take its answer away."""
