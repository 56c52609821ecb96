from __future__ import annotations

import pytest
import torch

from micraframe.runtime.device import exact_float32

PARTS = {"convolutions": torch.backends.cudnn.conv, "products": torch.backends.cuda.matmul}


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("before", ["tf32", "ieee"])
def test_float32_is_exact_within_and_what_it_was_after(name, before):
    part, default = PARTS[name], PARTS[name].fp32_precision
    part.fp32_precision = before
    try:
        with exact_float32():
            assert part.fp32_precision == "ieee"
            with exact_float32():
                pass
            assert part.fp32_precision == "ieee"
        assert part.fp32_precision == before
    finally:
        part.fp32_precision = default


def test_an_error_ends_it_too():
    before = torch.backends.cudnn.conv.fp32_precision

    def fails() -> None:
        with exact_float32():
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    assert torch.backends.cudnn.conv.fp32_precision == before
    assert torch.backends.cudnn.allow_tf32  # torch raises where its switches disagree
    assert torch.backends.cudnn.enabled


def test_older_switches_keep_working():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        with exact_float32():
            assert torch.backends.cuda.matmul.fp32_precision == "ieee"
        assert torch.get_float32_matmul_precision() == "high"
        assert torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.set_float32_matmul_precision(before)
