"""A person as parameters: body, outfit, pose and view, apart from any drawing."""

import dataclasses
from dataclasses import dataclass

import numpy as np

from .accessories import Accessories, equip
from .poses import sample_pose
from .skeleton import BodyShape, Pose, Skeleton, sample_body
from .wardrobe import Outfit, sample_outfit

_SKINS = [
    (255, 224, 196),
    (246, 206, 172),
    (234, 188, 148),
    (216, 164, 120),
    (190, 136, 94),
    (160, 108, 72),
    (124, 82, 56),
    (92, 60, 44),
]


@dataclass(frozen=True)
class Person:
    """Everything about a person but the place in the picture.

    Attributes:
        body, outfit, pose: build, clothes and joint angles.
        yaw: turn in degrees; 0 faces the viewer, 90 the image's right, 180 is seen from behind.
        seed: for details of the drawing, such as strands of hair.
        accessories: what is worn and carried beyond the garments of CIHP.
    """

    body: BodyShape
    outfit: Outfit
    pose: Pose
    yaw: float
    seed: int
    accessories: Accessories = Accessories()

    def skeleton(self, camera_pitch: float) -> Skeleton:
        """Return the posed joints seen by a camera that looks down by ``camera_pitch`` degrees."""
        return Skeleton(self.body, self.pose, self.yaw, camera_pitch)


def _sample_yaw(rng: np.random.Generator) -> float:
    kind = rng.random()
    if kind < 0.92:
        return float(rng.normal(0, 14))
    if kind < 0.96:
        return float(rng.choice([-1, 1]) * rng.uniform(45, 115))
    return float(180 + rng.normal(0, 22))


def sample_person(rng: np.random.Generator) -> Person:
    """Draw a person at random."""
    return Person(
        body=sample_body(rng, _SKINS),
        outfit=sample_outfit(rng),
        pose=sample_pose(rng),
        yaw=_sample_yaw(rng),
        seed=int(rng.integers(1 << 31)),
    )


def sample_equipped_person(rng: np.random.Generator) -> Person:
    """Draw a person at random who may wear and carry more than CIHP has labels for."""
    person = sample_person(rng)
    outfit, accessories = equip(rng, person.outfit)
    return dataclasses.replace(person, outfit=outfit, accessories=accessories)
