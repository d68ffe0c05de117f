"""Statistics of a study: plain functions on arrays. `measure` writes a study's figures; the other modules can be used by themselves."""
