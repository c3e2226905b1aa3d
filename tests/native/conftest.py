"""Every kernel test runs on each instruction set of this CPU."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from edgeseg.native import _kernels


@pytest.fixture(params=_kernels.isa_names())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    before = _kernels.isa()
    _kernels.select_isa(request.param)
    yield request.param
    _kernels.select_isa(before)
