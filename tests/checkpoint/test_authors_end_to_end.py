"""From an image to people with the authors' weights and conventions, against their network."""

import numpy as np
import pytest
import torch
from authors_forward import STRIDES, AuthorsNetwork
from authors_layout import TINY, authors_shapes, random_weights, tiny_authors_config
from detectron2.config import instantiate
from naive_conventions import detections, paste
from torch import nn

from aiparsing_d2.checkpoint import WeightFile, convert_authors

MEAN = torch.tensor([102.9801, 115.9465, 122.7717])[:, None, None]


@pytest.fixture(scope="module", params=[0.5, -2.0], ids=["", "negative mIoUs"])
def both(request):
    """Our model and their network, which predicts mIoUs of about the parameter's value."""
    tensors = random_weights(authors_shapes(**TINY))
    tensors["ParsingHead.ParsingIoU.Output.parsingiou.bias"].fill_(request.param)
    model = instantiate(tiny_authors_config(**TINY).model).eval()
    conversion, _ = convert_authors(WeightFile("theirs.pth", tensors), model)
    model.load_state_dict(conversion.weights)
    model.proposal_generator.post_nms_topk = (100, 4)
    return model, AuthorsNetwork(tensors)


@torch.no_grad()
def test_people_of_an_image(both):
    model, theirs = both
    height, width, original = 131, 170, (90, 120)
    coarse = torch.rand(1, 3, 8, 11, generator=torch.Generator().manual_seed(5)) * 255
    image = nn.functional.interpolate(coarse, size=(height, width), mode="bicubic")[0]
    features = theirs.features(image[None] - MEAN)
    levels = [[x[0].squeeze(0).numpy() for x in level] for level in theirs.detector(features)]
    boxes, box_scores = detections(levels, STRIDES, height, width, per_image=4)
    part_logits, edge_logits, mious = theirs.parse(
        theirs.pool(features[0], torch.tensor(boxes).float())
    )

    record = {"image": image, "height": original[0], "width": original[1]}
    people = model([record])[0]["instances"]
    assert len(people) == 4
    boxes *= np.array([original[1] / width, original[0] / height] * 2)
    # Inclusive inside of the network, ends where its last pixels do outside.
    ends = boxes + [0, 0, 1, 1]
    np.testing.assert_allclose(people.pred_boxes.tensor, ends, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(people.box_scores, box_scores, rtol=1e-3)
    # Not clamped. The authors' score of a negative mIoU is not a number, ours is 0.
    torch.testing.assert_close(people.pred_mious, mious, rtol=1e-4, atol=1e-4)
    expected = np.sqrt(box_scores * np.maximum(mious.numpy(), 0))
    np.testing.assert_allclose(people.scores, expected, rtol=1e-3)
    for maps, logits in ((people.pred_part_maps, part_logits), (people.pred_edges, edge_logits)):
        for pasted, probabilities, box in zip(
            maps.to_full().numpy(), logits.softmax(1).numpy(), boxes.tolist()
        ):
            labels, leads = paste(probabilities, box, *original)
            # Where rounding of network outputs cannot decide.
            clear = leads > 1e-3
            assert clear.mean() > 0.98
            np.testing.assert_array_equal(pasted[clear], labels[clear])
