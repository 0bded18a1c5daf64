"""What the tests of the losses share beside batches and terms."""

import pytest


@pytest.fixture(scope="module", params=["fused", "torch"])
def backend(request):
    """Every test that uses this runs with the fused kernels, and again in plain torch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROVE_LOSSES", request.param)
        yield request.param
