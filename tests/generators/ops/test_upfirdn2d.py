"""Does resampling do what its definition says, in every implementation, with gradients?"""

from __future__ import annotations

import ast
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from generators.errors import ImplUnavailable, UnknownName
from generators.ops import downsample2d, filter2d, setup_filter, upfirdn2d, upsample2d

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
IMPLS = ("reference", "auto", "triton")
TOLERANCES = {torch.float32: (1e-4, 1e-5), torch.float16: (5e-3, 5e-3), torch.bfloat16: (4e-2, 4e-2)}
"""Relative, and absolute for values of the size of 1."""


def by_definition(x, f, up, down, padding, flip, gain):
    """Insert zeros, pad or crop, convolve, decimate: in numpy and double precision."""
    x, f = x.double().cpu().numpy(), f.double().cpu().numpy()
    f = np.outer(f, f) if f.ndim == 1 else f
    f = f if flip else f[::-1, ::-1]
    left, right, top, bottom = padding
    stuffed = np.zeros((*x.shape[:2], x.shape[2] * up, x.shape[3] * up))
    stuffed[:, :, ::up, ::up] = x
    padded = np.pad(stuffed, [(0, 0), (0, 0), *[(max(a, 0), max(b, 0)) for a, b in ((top, bottom), (left, right))]])
    padded = padded[:, :, max(-top, 0) : padded.shape[2] - max(-bottom, 0), max(-left, 0) :]
    padded = padded[:, :, :, : padded.shape[3] - max(-right, 0)]
    windows = np.lib.stride_tricks.sliding_window_view(padded, f.shape, axis=(2, 3))
    return torch.tensor((windows * f).sum((4, 5))[:, :, ::down, ::down] * gain)


@pytest.mark.parametrize("impl", IMPLS)
@settings(max_examples=20)
@given(
    size=st.tuples(st.integers(1, 2), st.integers(1, 2), st.integers(1, 5), st.integers(1, 5)),
    taps=st.one_of(st.integers(1, 9), st.tuples(st.integers(1, 5), st.integers(1, 5))),
    up=st.integers(1, 3),
    down=st.integers(1, 3),
    padding=st.tuples(*[st.integers(-3, 6)] * 4),
    flip=st.booleans(),
    gain=st.floats(0.1, 4),
    channels_last=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_upfirdn2d_is_what_its_definition_says(impl, size, taps, up, down, padding, flip, gain, channels_last, seed):
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(size, generator=random).to(DEVICE)
    f = torch.randn(taps, generator=random).to(DEVICE)
    left, right, top, bottom = padding
    assume(size[2] * up + top + bottom >= f.shape[0] and size[3] * up + left + right >= f.shape[-1])
    assume(min(size[2] * up + min(top, bottom, 0), size[3] * up + min(left, right, 0)) > 0)
    x = x.contiguous(memory_format=torch.channels_last) if channels_last else x
    y = upfirdn2d(x, f, up, down, padding, flip, gain, impl).double().cpu()
    expected = by_definition(x, f, up, down, padding, flip, gain)
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4 * max(1, expected.abs().max().item()))


@pytest.mark.shared
@pytest.mark.parametrize("impl", IMPLS)
def test_upfirdn2d_matches_the_golden_file(impl, shared_folder):
    golden = np.load(shared_folder / "reference/golden/upfirdn2d.npz")
    x = torch.tensor(golden["x"], device=DEVICE)
    helpers = {"upsample2d": upsample2d, "downsample2d": downsample2d, "filter2d": filter2d}
    seen: Counter[str] = Counter()
    for key in golden.files:
        kind, *rest = key.split("|")
        if kind == "y":
            name, up, down, pad, flip, gain = rest
            f = torch.tensor(golden[f"f_{name}"], device=DEVICE)
            padding, flipped = ast.literal_eval(pad.removeprefix("pad")), flip == "flip1"
            y = upfirdn2d(x, f, int(up[2:]), int(down[4:]), padding, flipped, float(gain[4:]), impl)
        elif kind in helpers:
            y = helpers[kind](x, torch.tensor(golden[f"f_{rest[0]}"], device=DEVICE), impl=impl)
        else:
            continue
        seen[kind] += 1
        expected = torch.tensor(golden[key])
        torch.testing.assert_close(y.cpu(), expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item(), msg=key)
    assert seen == {"y": 22, "upsample2d": 4, "downsample2d": 4, "filter2d": 4}


@pytest.mark.shared
def test_setup_filter_matches_the_golden_file(shared_folder):
    golden = np.load(shared_folder / "reference/golden/upfirdn2d.npz")
    for name, taps in (("1331", [1, 3, 3, 1]), ("121", [1, 2, 1]), ("1to9_separable", list(range(1, 10)))):
        assert torch.equal(setup_filter(taps), torch.tensor(golden[f"f_{name}"])), name


CASES = [
    ((4, 4), 1, 1, (0, 0, 0, 0)),
    ((4, 4), 2, 1, (2, 1, 2, 1)),
    ((4, 4), 1, 2, (1, 1, 1, 1)),
    ((3, 2), 3, 2, (2, -1, 4, 1)),
    ((2, 3), 1, 3, (-1, 2, 0, -1)),
    ((9,), 2, 1, (5, 4, 5, 4)),
    ((9,), 1, 2, (4, 4, 4, 4)),
]


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize(("taps", "up", "down", "padding"), CASES)
def test_upfirdn2d_has_first_and_second_gradients(impl, taps, up, down, padding):
    random = torch.Generator().manual_seed(0)
    f = torch.randn(taps, generator=random).to(DEVICE)
    # As small as it can be: the interpreter is slow.
    x = torch.randn(1, 1, 4, 4, dtype=torch.float64, generator=random).to(DEVICE).requires_grad_()

    def resample(x):
        return upfirdn2d(x, f, up, down, padding, gain=1.5, impl=impl)

    assert torch.autograd.gradgradcheck(resample, x, fast_mode=True)
    assert torch.autograd.gradcheck(lambda x: resample(x).square(), x, fast_mode=True)


@pytest.mark.parametrize("impl", ["auto", "triton"])
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize(("taps", "up", "down", "padding"), CASES)
def test_upfirdn2d_matches_the_reference_in_every_precision(impl, dtype, taps, up, down, padding):
    random = torch.Generator().manual_seed(0)
    f = torch.rand(taps, generator=random).to(DEVICE)
    f = f / f.sum()
    x = torch.randn(2, 3, 6, 5, generator=random).to(DEVICE, dtype)
    outcomes = []
    for chosen, precision in (("reference", torch.float32), (impl, dtype)):
        leaf = x.detach().to(precision).requires_grad_()
        y = upfirdn2d(leaf, f, up, down, padding, impl=chosen)
        (grad,) = torch.autograd.grad(y.float().square().sum(), leaf, create_graph=True)
        (double,) = torch.autograd.grad(grad.float().square().sum(), leaf)
        assert {y.dtype, grad.dtype, double.dtype} == {precision}
        outcomes.append([y.float(), grad.float(), double.float()])
    rtol, atol = TOLERANCES[dtype]
    for expected, actual in zip(*outcomes, strict=True):
        torch.testing.assert_close(actual, expected, rtol=rtol, atol=atol * max(1, expected.abs().max().item()))


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_upfirdn2d_reads_strided_images_and_keeps_their_layout(impl, layout, device):
    random = torch.Generator().manual_seed(0)
    f = setup_filter([1, 3, 3, 1]).to(device)
    x = torch.randn(2, 8, 12, 12, generator=random).to(device)
    y = upsample2d(x.contiguous(memory_format=layout), f, impl=impl)
    torch.testing.assert_close(y, upsample2d(x, f, impl="reference"))
    if impl != "reference":
        assert y.is_contiguous(memory_format=layout)
    sliced = upsample2d(x[:, 1::3, ::2, 1:], f, impl=impl)
    torch.testing.assert_close(sliced, upsample2d(x[:, 1::3, ::2, 1:].contiguous(), f, impl="reference"))


@pytest.mark.parametrize("impl", IMPLS)
def test_up_and_down_sampling_keep_brightness_and_give_exact_sizes(impl, device):
    flat = torch.ones(1, 1, 16, 12, device=device)
    for taps in ([1, 3, 3, 1], [1, 2, 1], list(range(1, 10))):
        f = setup_filter(taps).to(device)
        for factor in (2, 3):
            larger = upsample2d(flat, f, factor, impl=impl)
            assert larger.shape[2:] == (16 * factor, 12 * factor)
        smaller = downsample2d(flat, f, 2, impl=impl)
        assert smaller.shape[2:] == (8, 6)
        assert filter2d(flat, f, impl=impl).shape == flat.shape
        inner = upsample2d(flat, f, 2, impl=impl)[:, :, 10:-10, 10:-10]
        torch.testing.assert_close(inner.mean(), torch.ones((), device=device))


@pytest.mark.parametrize("impl", IMPLS)
def test_no_filter_only_inserts_pads_and_drops(impl, device):
    x = torch.randn(2, 3, 4, 5, device=device)
    torch.testing.assert_close(upfirdn2d(x, None, impl=impl), x)
    torch.testing.assert_close(upfirdn2d(x, None, (2, 1), (2, 1), impl=impl), x)
    torch.testing.assert_close(upfirdn2d(x, None, 1, 2, gain=3.0, impl=impl), 3 * x[:, :, ::2, ::2])


@pytest.mark.parametrize("impl", IMPLS)
def test_factors_and_padding_may_differ_between_the_axes(impl, device):
    x, f = torch.randn(1, 2, 6, 5, device=device), torch.randn(2, 3, device=device)
    wide = upfirdn2d(x, f, (2, 1), (1, 3), (1, 2), impl=impl)
    expected = upfirdn2d(upfirdn2d(x, f, (2, 1), 1, (1, 1, 2, 2), impl="reference"), None, 1, (1, 3), impl="reference")
    torch.testing.assert_close(wide, expected)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("up", [1, 2])
@pytest.mark.parametrize("taps", [(1, 1), (2, 3), (5,)])
def test_more_may_be_cropped_than_there_was_before_padding(impl, up, taps, device):
    random = torch.Generator().manual_seed(0)
    x, f = torch.randn(1, 2, 3, 2, generator=random).to(device), torch.randn(taps, generator=random).to(device)
    padding = (-5, 12, 14, -7)
    expected = by_definition(x, f, up, 1, padding, False, 1.0)
    torch.testing.assert_close(upfirdn2d(x, f, up, 1, padding, impl=impl).double().cpu(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("impl", IMPLS)
def test_an_empty_batch_stays_empty(impl, device):
    f = setup_filter([1, 3, 3, 1]).to(device)
    assert upsample2d(torch.zeros(0, 3, 4, 4, device=device), f, impl=impl).shape == (0, 3, 8, 8)


def test_mistakes_are_named():
    x, f = torch.zeros(1, 1, 4, 4), setup_filter([1, 3, 3, 1])
    with pytest.raises(ValueError, match="up=0"):
        upfirdn2d(x, f, up=0)
    with pytest.raises(ValueError, match=r"down=\(1, 2, 3\)"):
        upfirdn2d(x, f, down=(1, 2, 3))
    with pytest.raises(ValueError, match=r"padding=\(1, 2, 3\)"):
        upfirdn2d(x, f, padding=(1, 2, 3))
    with pytest.raises(ValueError, match="nothing is left of an image of 4x4"):
        upfirdn2d(x, f, padding=-1)
    with pytest.raises(ValueError, match=r"f\.detach"):
        upfirdn2d(x, f.requires_grad_())
    with pytest.raises(UnknownName, match="did you mean triton"):
        upfirdn2d(x, f.detach(), impl="tritn")
    with pytest.raises(ValueError, match="sum to 0"):
        setup_filter([1, -1])
    with pytest.raises(ValueError, match="one axis"):
        setup_filter([[1, 2], [3, 4]], separable=True)
    with pytest.raises(ValueError, match="along one axis or two"):
        setup_filter(torch.zeros(2, 2, 2))


def test_an_unavailable_kernel_is_refused_and_never_replaced(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ImplUnavailable, match=r"the tensor is on the device 'cpu'.*use impl='auto'"):
        upfirdn2d(torch.zeros(1, 1, 4, 4), None, impl="triton")
    monkeypatch.setattr("generators.ops._triton.is_installed", lambda: False)
    with pytest.raises(ImplUnavailable, match="pip install triton"):
        upfirdn2d(torch.zeros(1, 1, 4, 4), None, impl="triton")


def test_setup_filter_separates_scales_and_flips():
    assert setup_filter([1, 3, 3, 1]).shape == (4, 4)
    assert setup_filter(range(1, 9)).shape == (8,)
    assert setup_filter(range(1, 9), separable=False).shape == (8, 8)
    assert setup_filter(None).tolist() == [[1.0]]
    assert setup_filter([1, 2], normalize=False).tolist() == [[1.0, 2.0], [2.0, 4.0]]
    torch.testing.assert_close(setup_filter([1, 2, 3], gain=4.0), 4 * setup_filter([1, 2, 3]))
    wide = setup_filter(range(1, 9), gain=4.0)
    torch.testing.assert_close(wide.outer(wide), 4 * setup_filter(range(1, 9), separable=False))
    assert torch.equal(setup_filter([[1, 2], [3, 4]], flip_filter=True), setup_filter([[4, 3], [2, 1]]))
