"""Two processes with two images each train as one with four does, whoever is in the images."""

from collections import Counter
from datetime import timedelta

import pytest
import torch
from detectron2.config import instantiate
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from tiny_models import make_input, tiny_lazy_model
from torch.nn.parallel import DistributedDataParallel

from aiparsing_d2.engine.launch import leave_process_group
from aiparsing_d2.modeling import collectives
from aiparsing_d2.modeling.roi_heads.parsing_losses import lovasz_softmax_loss

LOSSES = (
    "loss_fcos_cls",
    "loss_fcos_box",
    "loss_fcos_centerness",
    "loss_parsing",
    "loss_edge",
    "loss_miou",
    "loss_miou_score",
)
TALL, WIDE = [10.0, 5.0, 50.0, 90.0], [20.0, 30.0, 110.0, 80.0]
# The process of the last two images has few people, or none.
PEOPLE = {
    "few": [[TALL, WIDE], [WIDE, [60.0, 20.0, 80.0, 70.0]], [], [TALL]],
    "none": [[TALL], [TALL, WIDE], [], []],
    "none at all": [[], [], [], []],
}
# Of two RoIs, each in a process of its own: one without a pixel to count; fewer classes than
# processes.
TARGETS = torch.tensor(
    [
        [[[0, 1, 1, 0], [0, 1, 2, 255]], [[255] * 4] * 2],
        [[[1, 1, 1, 1], [1, 255, 1, 1]], [[1, 1, 255, 1]] * 2],
    ]
)


def build(over_processes):
    cfg = tiny_lazy_model()
    cfg.proposal_generator.losses_over_processes = over_processes
    cfg.roi_heads.parsing_head.losses_over_processes = over_processes
    torch.manual_seed(0)
    model = instantiate(cfg).train()
    # So that parts are told apart and errors differ.
    torch.nn.init.normal_(model.roi_heads.parsing_head.parsing_predictor.weight, std=0.2)
    return model


def inputs(people):
    return [make_input(96, 128, boxes, seed=i) for i, boxes in enumerate(PEOPLE[people])]


def gradients(model, images):
    """Return the gradient of each loss by all parameters, a mean over the processes."""
    with EventStorage():
        losses = model(images)
    parameters = [p for p in model.parameters() if p.requires_grad]
    found = {}
    for name in LOSSES:
        parts = torch.autograd.grad(
            losses[name], parameters, retain_graph=True, materialize_grads=True
        )
        found[name] = torch.cat([part.flatten() for part in parts])
        if comm.get_world_size() > 1:
            torch.distributed.all_reduce(found[name])
            found[name] /= comm.get_world_size()
    return found


def gradient_of_a_step(model, images):
    """As a training computes it, by DistributedDataParallel in several processes."""
    with EventStorage():
        sum(model(images).values()).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad])


def small_lovasz(rois):
    """Gradients of the loss for both targets, by the logits of some of the two RoIs."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 2, 4, generator=generator)[rois].requires_grad_()
    losses = [lovasz_softmax_loss(logits, target[rois], over_processes=True) for target in TARGETS]
    return torch.stack([torch.autograd.grad(loss, logits)[0] for loss in losses])


def one_of_two(rank, folder):
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=2,
        timeout=timedelta(minutes=5),
    )
    comm._LOCAL_PROCESS_GROUP = torch.distributed.group.WORLD
    share = slice(2 * rank, 2 * rank + 2)
    found = {}
    for people in PEOPLE:
        found[people] = gradients(build(True), inputs(people)[share])
        found[people]["a step"] = gradient_of_a_step(
            DistributedDataParallel(build(True)), inputs(people)[share]
        )
    found["own losses"] = gradients(build(False), inputs("few")[share])
    found["lovasz"] = small_lovasz(slice(rank, rank + 1))

    calls = Counter()
    for name in ("all_reduce", "all_gather", "all_to_all_single"):
        count(collectives.dist, name, calls)
    with EventStorage():
        build(True)(inputs("few")[share])
    found["calls"] = dict(calls)
    if rank == 0:
        torch.save(found, folder / "found.pt")
    torch.distributed.barrier()  # nobody leaves while another may still be receiving
    leave_process_group()


def count(module, name, calls):
    original = getattr(module, name)

    def counted(*args, **kwargs):
        calls[name] += 1
        return original(*args, **kwargs)

    setattr(module, name, counted)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two_processes")
    torch.multiprocessing.spawn(one_of_two, (folder,), nprocs=2)
    return torch.load(folder / "found.pt", weights_only=True)


@pytest.fixture(scope="module")
def one():
    found = {people: gradients(build(True), inputs(people)) for people in PEOPLE}
    for people in PEOPLE:
        found[people]["a step"] = gradient_of_a_step(build(True), inputs(people))
    return found


def difference(gradient, other):
    return float((gradient - other).norm() / gradient.norm().clamp(min=1e-12))


@pytest.mark.parametrize("loss", [*LOSSES, "a step"])
@pytest.mark.parametrize("people", PEOPLE)
def test_two_processes_have_the_gradients_of_one(two, one, people, loss):
    has_gradient = people != "none at all" or loss in ("loss_fcos_cls", "a step")
    assert (one[people][loss].norm() > 0) == has_gradient
    assert difference(one[people][loss], two[people][loss]) < 1e-5


@pytest.mark.parametrize("loss", LOSSES)
def test_by_a_key_each_process_has_losses_of_its_own(two, one, loss):
    assert difference(one["few"][loss], two["own losses"][loss]) > 0.05


def test_lovasz_loss_of_processes_without_pixels_and_of_few_classes(two):
    # Of the first process; its gradients are averaged with the other's, which do not reach it.
    torch.testing.assert_close(two["lovasz"] / 2, small_lovasz(slice(0, 2))[:, :1])


def test_processes_exchange_little_and_seldom(two):
    assert two["calls"] == {"all_reduce": 2, "all_gather": 1, "all_to_all_single": 2}
