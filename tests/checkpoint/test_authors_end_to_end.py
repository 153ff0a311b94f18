"""From an image to people with the authors' weights and conventions, against their network."""

import numpy as np
import pytest
import torch
from authors_forward import STRIDES, AuthorsNetwork
from authors_layout import TINY, authors_shapes, random_weights, tiny_authors_config
from detectron2.config import instantiate
from naive_conventions import detections, merge, paste, resize_image
from torch import nn

from aiparsing_d2.checkpoint import WeightFile, convert_authors
from aiparsing_d2.modeling import AIParsingWithTTA
from aiparsing_d2.structures.part_labels import PartLabels, distinct_colors

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


def turned(boxes, width):
    """In a mirror image: the last pixel becomes the first."""
    return np.stack(
        [width - 1 - boxes[:, 2], boxes[:, 1], width - 1 - boxes[:, 0], boxes[:, 3]], axis=1
    )


@torch.no_grad()
def test_people_of_augmented_views(both):
    """Two sizes and their mirror images; the sides of none are in the ratio of the image's."""
    model, theirs = both
    original, num_people = (60, 83), 8
    coarse = torch.rand(1, 3, 6, 8, generator=torch.Generator().manual_seed(5)) * 255
    image = nn.functional.interpolate(coarse, size=original, mode="bicubic")[0]
    image = image.clamp(0, 255).to(torch.uint8)
    pixels = image.permute(1, 2, 0).numpy()
    model.proposal_generator.post_nms_topk = (100, 4)

    passes, boxes, scores = [], [], []
    for short_side in (97, 131):
        for mirrored in (False, True):
            view = resize_image(pixels[:, ::-1] if mirrored else pixels, short_side / 60)
            view = torch.from_numpy(view.transpose(2, 0, 1)).float()
            height, width = view.shape[1:]
            features = theirs.features(view[None] - MEAN)
            levels = [[x[0].squeeze(0).numpy() for x in y] for y in theirs.detector(features)]
            found, found_scores = detections(levels, STRIDES, height, width, per_image=4)
            passes.append((features[0], width, height, mirrored))
            first = np.array([passes[0][1], passes[0][2]] * 2)
            found = turned(found, width) if mirrored else found
            boxes.append(found * first / np.array([width, height] * 2))
            scores.append(found_scores)
    assert [(width, height) for _, width, height, _ in passes[::2]] == [(134, 97), (181, 131)]
    boxes, box_scores = merge(np.concatenate(boxes), np.concatenate(scores), 0.1)
    boxes, box_scores = boxes[:num_people], box_scores[:num_people]
    probabilities, person_scores = [], []
    for features, width, height, mirrored in passes:
        given = boxes / first * np.array([width, height] * 2)
        given = turned(given, width) if mirrored else given
        logits, _, mious = theirs.parse(theirs.pool(features, torch.tensor(given).float()))
        parts = logits.softmax(1).numpy()
        probabilities.append(parts[:, [0, 1, 3, 2, 4], :, ::-1] if mirrored else parts)
        person_scores.append(np.sqrt(box_scores * np.maximum(mious.numpy(), 0)))
    boxes = boxes / first * np.array([original[1], original[0]] * 2)

    names = ("Background", "Hat", "Left-arm", "Right-arm", "Coat")
    config = tiny_authors_config(**TINY).test_time_augmentation.wrapper
    config.mapper.min_sizes = [97, 131]
    wrapper = AIParsingWithTTA(
        model,
        mapper=instantiate(config.mapper),
        part_labels=PartLabels(names, distinct_colors(5), ((2, 3),)),
        score_thresh=0.05,
        nms_thresh=0.1,
        max_people=num_people,
    )
    people = wrapper([{"image": image}])[0]["instances"]
    assert people.image_size == original and len(people) == num_people
    np.testing.assert_allclose(people.pred_boxes.tensor, boxes + [0, 0, 1, 1], atol=2e-3)
    np.testing.assert_allclose(people.box_scores, box_scores, rtol=1e-3)
    np.testing.assert_allclose(people.scores, np.mean(person_scores, axis=0), rtol=2e-3)
    for pasted, mean, box in zip(
        people.pred_part_maps.to_full().numpy(), np.mean(probabilities, axis=0), boxes.tolist()
    ):
        labels, leads = paste(mean, box, *original)
        clear = leads > 2e-3
        assert clear.mean() > 0.95
        np.testing.assert_array_equal(pasted[clear], labels[clear])
