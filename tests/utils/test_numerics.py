import math

import numpy as np
import pytest
import torch

from mmvanilla.utils.numerics import largest, relative_difference


def test_it_is_relative_to_the_largest_expected_value():
    expected = torch.tensor([1.0, -4.0])
    assert relative_difference(expected, torch.tensor([1.0, -3.0])) == 0.25
    assert relative_difference(expected.numpy(), np.array([1.0, -3.0], np.float32)) == 0.25
    assert relative_difference(expected, expected) == 0.0
    assert relative_difference(torch.empty(0, 3), torch.empty(0, 3)) == 0.0
    assert relative_difference(torch.zeros(2), torch.tensor([0.0, 1e-6])) > 1e6
    with pytest.raises(ValueError, match=r"expected shape \(2,\), found \(3,\)"):
        relative_difference(torch.ones(2), torch.ones(3))


@pytest.mark.parametrize("place", [0, 1])
def test_a_nan_is_never_a_small_difference(place):
    broken = torch.ones(2)
    broken[place] = math.nan
    assert math.isnan(relative_difference(torch.ones(2), broken))
    assert math.isnan(relative_difference(broken, torch.ones(2)))
    assert math.isnan(largest([0.0, math.nan] if place else [math.nan, 0.0]))
