"""Models: where they come from, how they are stored and loaded, and what they cost.

`parse` and `sources` name a model, `bring` stores it, `load` loads it, `shape` and `cost` predict it. Importing this loads nothing heavy.
"""
