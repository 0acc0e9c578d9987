"""Where NxD's real source is, for the tests that need it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

VARIABLE = "NXD_SOURCE"
HOW = f"needs neuronx-distributed's source: make test-nxd {VARIABLE}=<checkout>/src (or set {VARIABLE} for pytest)"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked nxd skip where the source is not named."""
    if not os.environ.get(VARIABLE):
        for item in items:
            if item.get_closest_marker("nxd"):
                item.add_marker(pytest.mark.skip(reason=HOW))


@pytest.fixture(scope="session")
def nxd_source() -> Path:
    """The directory that holds the real package neuronx_distributed. A path without one is an error, not a skip."""
    source = Path(os.environ[VARIABLE]).resolve()
    assert (source / "neuronx_distributed" / "__init__.py").exists(), (
        f"{VARIABLE}={source} holds no neuronx_distributed"
    )
    return source
