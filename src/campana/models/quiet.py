"""Keep the model libraries from talking: no progress bars, no advice on stderr, no warnings. Errors still come as exceptions.

    with quiet():
        model = AutoModelForCausalLM.from_pretrained(path)

What they print is for people at a notebook; campana reports what matters itself. Their settings are put back afterwards.
"""

from __future__ import annotations

import warnings
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from typing import Any


@contextmanager
def quiet() -> Generator[None]:
    """Silence transformers, huggingface_hub, PEFT and tqdm inside the block. Not for several threads at once."""
    from transformers import modeling_gguf_pytorch_utils
    from transformers.utils import logging

    gguf_reader: Any = modeling_gguf_pytorch_utils

    verbosity, bars, bar = logging.get_verbosity(), logging.is_progress_bar_enabled(), gguf_reader.tqdm
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        gguf_reader.tqdm = partial(bar, disable=True)  # the GGUF reader calls tqdm directly, past the library's own switch
        try:
            yield
        finally:
            gguf_reader.tqdm = bar
            logging.set_verbosity(verbosity)
            if bars:
                logging.enable_progress_bar()
