"""The clipped norm by hand: gradients (3, 4) and 12 have the norm 13."""

import pytest
import torch

from aiparsing_d2.engine import clip_gradients


def stepped(max_norm, gradients=((3.0, 4.0), (12.0,)), **arguments):
    """Minus each parameter after a step of rate 1 from 0: the gradients that the step used."""
    parameters = [torch.nn.Parameter(torch.zeros(len(g))) for g in gradients]
    unused = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([*parameters, unused], lr=1.0)
    clip_gradients(optimizer, max_norm, **arguments)
    for parameter, gradient in zip(parameters, gradients):
        parameter.grad = torch.tensor(gradient)
    optimizer.step()
    assert unused.item() == 1
    return torch.cat([-p.detach() for p in parameters]).tolist()


def test_all_gradients_are_scaled_together():
    assert stepped(1.3) == pytest.approx([0.3, 0.4, 1.2], rel=1e-5)
    assert stepped(6.0, norm_type=float("inf")) == pytest.approx([1.5, 2.0, 6.0], rel=1e-5)


def test_smaller_gradients_stay():
    assert stepped(14.0) == [3, 4, 12]


def test_scaled_gradients_of_a_fused_optimizer():
    """In mixed precision it divides them by their scale itself: 13 x 8 are clipped to 1.3 x 8."""
    parameter = torch.nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    clip_gradients(optimizer, 1.3)
    optimizer.grad_scale = torch.tensor(8.0)
    parameter.grad = 8 * torch.tensor([3.0, 4.0, 12.0])
    torch.testing.assert_close(parameter.grad.norm(), torch.tensor(104.0))
    # Only what happens before the step.
    for hook in optimizer._optimizer_step_pre_hooks.values():
        hook(optimizer, (), {})
    torch.testing.assert_close(parameter.grad, 8 * torch.tensor([0.3, 0.4, 1.2]))


@pytest.mark.parametrize("max_norm", [0, -1.0, float("nan")])
def test_a_wrong_norm(max_norm):
    with pytest.raises(ValueError, match="max_norm must be positive"):
        stepped(max_norm)
