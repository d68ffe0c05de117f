"""campana: comparative studies of how to tune a language model, answered with intervals and costs."""

__version__ = "0.1.0"
__all__ = ["__version__"]
