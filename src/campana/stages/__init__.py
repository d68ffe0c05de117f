"""The kinds of stages, one file each: a spec and a thin `run` that calls the libraries."""
