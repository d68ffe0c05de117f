"""What tests of several rooms need."""

from __future__ import annotations

import pytest

from campana.models.cache import default_cache_dir
from campana.native.build import Unavailable
from campana.native.compiled import Compiled


@pytest.fixture(scope="session")
def compiled() -> Compiled:
    """The compiled code of this machine, or a skip that says why there is none."""
    try:
        return Compiled.load(default_cache_dir())
    except Unavailable as error:
        pytest.skip(f"no compiled code here: {error}")
