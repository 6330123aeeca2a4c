"""The gradient penalty on a GPU: fast kernels, which have no second derivative, are not taken."""

from __future__ import annotations

import pytest
import torch

from tests.unit.test_second_derivative import update

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


@pytest.mark.parametrize(("packed", "checkpointed"), [(False, False), (False, True), (True, False), (True, True)])
def test_the_penalty_is_that_of_the_cpu(packed: bool, checkpointed: bool) -> None:
    expected, loss = update(False, False)
    found, same = update(packed, checkpointed, "cuda")
    assert same == pytest.approx(loss, rel=1e-3)
    for name, value in expected.items():
        assert float((found[name].cpu() - value).abs().max()) <= 1e-2 * float(value.abs().max()), name
