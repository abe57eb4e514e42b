"""CIEDE2000 against the numbers of those who published how to compute it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from colordaemon.evaluation.metrics import delta_e_2000

# Sharma, Wu & Dalal 2005, table 1: two Lab colors and their difference.
PUBLISHED = """
50.0000   2.6772 -79.7751  50.0000   0.0000 -82.7485   2.0425
50.0000   3.1571 -77.2803  50.0000   0.0000 -82.7485   2.8615
50.0000   2.8361 -74.0200  50.0000   0.0000 -82.7485   3.4412
50.0000  -1.3802 -84.2814  50.0000   0.0000 -82.7485   1.0000
50.0000  -1.1848 -84.8006  50.0000   0.0000 -82.7485   1.0000
50.0000  -0.9009 -85.5211  50.0000   0.0000 -82.7485   1.0000
50.0000   0.0000   0.0000  50.0000  -1.0000   2.0000   2.3669
50.0000  -1.0000   2.0000  50.0000   0.0000   0.0000   2.3669
50.0000   2.4900  -0.0010  50.0000  -2.4900   0.0009   7.1792
50.0000   2.4900  -0.0010  50.0000  -2.4900   0.0010   7.1792
50.0000   2.4900  -0.0010  50.0000  -2.4900   0.0011   7.2195
50.0000   2.4900  -0.0010  50.0000  -2.4900   0.0012   7.2195
50.0000  -0.0010   2.4900  50.0000   0.0009  -2.4900   4.8045
50.0000  -0.0010   2.4900  50.0000   0.0010  -2.4900   4.8045
50.0000  -0.0010   2.4900  50.0000   0.0011  -2.4900   4.7461
50.0000   2.5000   0.0000  50.0000   0.0000  -2.5000   4.3065
50.0000   2.5000   0.0000  73.0000  25.0000 -18.0000  27.1492
50.0000   2.5000   0.0000  61.0000  -5.0000  29.0000  22.8977
50.0000   2.5000   0.0000  56.0000 -27.0000  -3.0000  31.9030
50.0000   2.5000   0.0000  58.0000  24.0000  15.0000  19.4535
50.0000   2.5000   0.0000  50.0000   3.1736   0.5854   1.0000
50.0000   2.5000   0.0000  50.0000   3.2972   0.0000   1.0000
50.0000   2.5000   0.0000  50.0000   1.8634   0.5757   1.0000
50.0000   2.5000   0.0000  50.0000   3.2592   0.3350   1.0000
60.2574 -34.0099  36.2677  60.4626 -34.1751  39.4387   1.2644
63.0109 -31.0961  -5.8663  62.8187 -29.7946  -4.0864   1.2630
61.2901   3.7196  -5.3901  61.4292   2.2480  -4.9620   1.8731
35.0831 -44.1164   3.7933  35.0232 -40.0716   1.5901   1.8645
22.7233  20.0904 -46.6940  23.0331  14.9730 -42.5619   2.0373
36.4612  47.8580  18.3852  36.2715  50.5065  21.2231   1.4146
90.8027  -2.0831   1.4410  91.1528  -1.6435   0.0447   1.4441
90.9257  -0.5406  -0.9208  88.6381  -0.8985  -0.7239   1.5381
 6.7747  -0.2908  -2.4247   5.8714  -0.0985  -2.2286   0.6377
 2.0776   0.0795  -1.1350   0.9033  -0.0636  -0.5514   0.9082
"""
PAIRS = [tuple(map(float, line.split())) for line in PUBLISHED.strip().splitlines()]


def pixel(*lab: float) -> Tensor:
    return torch.tensor(lab, dtype=torch.float32).view(3, 1, 1)


@pytest.mark.parametrize("numbers", PAIRS, ids=range(1, 35))
def test_differences_are_the_published_ones(numbers: tuple[float, ...]) -> None:
    one, other, expected = pixel(*numbers[:3]), pixel(*numbers[3:6]), numbers[6]
    assert delta_e_2000(one, other).item() == pytest.approx(expected, abs=1e-4)
    assert delta_e_2000(other, one).item() == pytest.approx(expected, abs=1e-4)


def test_whole_pictures_and_single_pixels_agree() -> None:
    labs = torch.tensor(PAIRS, dtype=torch.float32)
    one, other = (labs[:, i : i + 3].T.reshape(3, 2, 17) for i in (0, 3))
    expected = labs[:, 6].reshape(2, 17)
    for shape in ((), (1,), (2, 3)):
        found = delta_e_2000(one.expand(*shape, 3, 2, 17), other.expand(*shape, 3, 2, 17))
        assert found.shape == (*shape, 2, 17)
        torch.testing.assert_close(found, expected.expand(found.shape), atol=1e-4, rtol=0)


def test_equal_colors_do_not_differ() -> None:
    lab = torch.randn(3, 16, 16) * 40 + torch.tensor([50.0, 0, 0]).view(3, 1, 1)
    assert delta_e_2000(lab, lab).max() == 0


def test_gray_differs_from_gray_by_lightness_alone() -> None:
    # At a mean lightness of 50 nothing is weighed: S_L is 1.
    assert delta_e_2000(pixel(47, 0, 0), pixel(53, 0, 0)).item() == pytest.approx(6)
    assert delta_e_2000(pixel(47, -0.0, 0), pixel(53, 0, -0.0)).item() == pytest.approx(6)


def test_it_is_never_nan() -> None:
    line = torch.tensor([-110, -50, -1e-6, -0.0, 0, 1e-30, 1e-3, 2.5, 110])
    colors = torch.cartesian_prod(torch.tensor([0.0, 50, 100]), line, line).T  # (3, 243)
    found = delta_e_2000(colors[:, :, None], colors[:, None, :])
    assert found.isfinite().all()
    torch.testing.assert_close(found, found.T, atol=2e-3, rtol=0)
