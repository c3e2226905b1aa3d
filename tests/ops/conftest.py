"""The libraries that the operators' tests run: the CPU twins, and the kernels on the host."""

from __future__ import annotations

import pytest

from edgeseg.ops import launch
from tests.ops import host_cuda


@pytest.fixture(scope="session")
def twin() -> launch.Library:
    try:
        return launch.cpu_library()
    except OSError:
        pytest.skip("the CPU twins are not built: no libedgeseg_ops.so")


@pytest.fixture(scope="module")
def kernel(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> launch.Library:
    """The launchers of the test module's ``KERNEL``, a ``.cu`` file."""
    return host_cuda.build(request.module.KERNEL, tmp_path_factory.mktemp("kernel"))
