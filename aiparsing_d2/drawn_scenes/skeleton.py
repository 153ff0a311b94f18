"""Body shapes and posed skeletons.

Frames and units:
    Lengths are in body units: 1 is the height of the person standing upright.
    body frame: x to the person's left, y up, z forward; the origin is the pelvis.
    camera frame: x to the image's right, y up, z towards the viewer. With yaw 0 the person faces
    the viewer, so the person's left lies on the image's right.
"""

from dataclasses import dataclass

import numpy as np

from .geometry import rotation_x, rotation_y, rotation_z
from .parts import Side

# Proportions in body units: an adult's but for larger hands, so that labels of few pixels are rare
# in small images. Heads are larger, too: see ``sample_body``.
_HEAD = 0.15
_TORSO = 0.315
_UPPER_ARM, _FOREARM, _HAND = 0.165, 0.145, 0.085
_THIGH, _SHIN, _ANKLE, _FOOT = 0.235, 0.232, 0.042, 0.135

# Half widths and half depths of the torso along the spine: 0 is the hip joints' level, 1 the base
# of the neck.
_TORSO_LEVELS = np.array([-0.15, 0.0, 0.2, 0.4, 0.62, 0.8, 0.88, 0.94, 0.99, 1.06])
_TORSO_WIDTHS = np.array([0.080, 0.097, 0.090, 0.079, 0.089, 0.099, 0.101, 0.087, 0.060, 0.041])
_TORSO_DEPTHS = np.array([0.060, 0.070, 0.062, 0.056, 0.066, 0.064, 0.056, 0.048, 0.040, 0.032])
_TABLE_LEVELS = np.linspace(-0.4, 1.1, 76)


@dataclass(frozen=True)
class BodyShape:
    """Build of a person.

    Attributes:
        head: height of the head (chin to crown); about 0.15 in life; larger as drawn: 0.185 for
            adults, 0.22 for children.
        girth: factor on the thickness of torso and limbs.
        shoulders: factor on the width of the shoulders.
        hips: factor on the width of the hips.
        waist: factor on the width of the waist.
        bust: forward bulge of the chest, in body units.
        belly: forward bulge of the waist, in body units.
        skin: RGB colour, 0..255.
    """

    head: float
    girth: float
    shoulders: float
    hips: float
    waist: float
    bust: float
    belly: float
    skin: tuple[float, float, float]


@dataclass(frozen=True)
class LimbPose:
    """Directions of a limb's two bones in the body frame.

    Each is (raise, azimuth) in degrees: raise is 0 for straight down and 180 for straight up;
    azimuth is 0 outwards to the limb's own side, 90 forward, 180 across the body, -90 backward.
    """

    upper: tuple[float, float]
    lower: tuple[float, float]


@dataclass(frozen=True)
class Pose:
    """Joint angles of a person; all angles in degrees.

    Attributes:
        name: the pose's family, such as "walking".
        arms, legs: limb poses by side.
        lean: forward bend of the spine. sway: bend towards the person's left.
        twist: turn of the chest against the pelvis towards the person's left.
        head_yaw, head_pitch, head_roll: turn of the head against the chest, to the person's left,
            upwards, and towards the left shoulder.
        seated: whether the pelvis rests on a seat.
    """

    name: str
    arms: dict[Side, LimbPose]
    legs: dict[Side, LimbPose]
    lean: float = 0.0
    sway: float = 0.0
    twist: float = 0.0
    head_yaw: float = 0.0
    head_pitch: float = 0.0
    head_roll: float = 0.0
    seated: bool = False


@dataclass(frozen=True)
class Arm:
    """Joints of an arm in the camera frame, each of shape (3,)."""

    shoulder: np.ndarray
    elbow: np.ndarray
    wrist: np.ndarray
    fingertips: np.ndarray


@dataclass(frozen=True)
class Leg:
    """Joints of a leg in the camera frame, each of shape (3,); heel and toe touch the ground."""

    hip: np.ndarray
    knee: np.ndarray
    ankle: np.ndarray
    heel: np.ndarray
    toe: np.ndarray


@dataclass(frozen=True)
class TorsoSection:
    """An elliptic cross section of the torso in the camera frame.

    Attributes:
        centre: (3,).
        lateral: half axis towards the person's left, (3,).
        forward: half axis towards the person's front, (3,).
    """

    centre: np.ndarray
    lateral: np.ndarray
    forward: np.ndarray

    def half_width(self, across: np.ndarray) -> float:
        """Half extent of the section along a unit vector ``across`` of the camera frame."""
        return float(np.hypot(self.lateral @ across, self.forward @ across))


class Skeleton:
    """A posed body seen from a direction.

    Args:
        body: build of the person.
        pose: joint angles.
        yaw: turn of the whole person in degrees; 0 faces the viewer, 90 faces the image's right,
            180 is seen from behind.
        camera_pitch: how far the camera looks down, in degrees.
    """

    def __init__(self, body: BodyShape, pose: Pose, yaw: float, camera_pitch: float) -> None:
        self.body = body
        self.pose = pose
        # A larger head leaves less of the height to the rest.
        self.limb_scale = (1 - body.head) / (1 - _HEAD)

        view = rotation_x(camera_pitch) @ rotation_y(yaw)
        self.hip_rotation = view @ rotation_x(0.25 * pose.lean)
        self.chest_rotation = (
            view @ rotation_y(pose.twist) @ rotation_z(-pose.sway) @ rotation_x(pose.lean)
        )
        self.head_rotation = (
            self.chest_rotation
            @ rotation_x(-0.6 * pose.lean)
            @ rotation_y(pose.head_yaw)
            @ rotation_x(-pose.head_pitch)
            @ rotation_z(-pose.head_roll)
        )
        self.view = view
        self.torso_length = _TORSO * self.limb_scale
        self._torso_table = self._make_torso_table()
        self.neck = self.torso_section(1.0).centre
        chest_up, chest_front = self.chest_rotation[:, 1], self.chest_rotation[:, 2]
        self.head_centre = self.neck + chest_up * (0.62 * body.head + 0.026) + chest_front * 0.016
        self.arms = {side: self._pose_arm(side) for side in Side}
        self.legs = {side: self._pose_leg(side) for side in Side}

    def torso_section(self, level: float) -> TorsoSection:
        """Cross section at a level of the spine (0: hip joints, 1: base of the neck).

        Levels below 0 hang straight down from the pelvis.
        """
        place = (level - _TABLE_LEVELS[0]) / (_TABLE_LEVELS[1] - _TABLE_LEVELS[0])
        index = min(max(int(place), 0), len(_TABLE_LEVELS) - 2)
        share = place - index
        table = self._torso_table
        return TorsoSection(*((1 - share) * table[index] + share * table[index + 1]))

    def _make_torso_table(self) -> np.ndarray:
        """Centre, lateral and forward half axis at ``_TABLE_LEVELS``, shape (levels, 3, 3)."""
        body, level = self.body, _TABLE_LEVELS
        t = np.maximum(level, 0.0)
        # The spine bends evenly from the pelvis to the chest.
        steps = np.stack([t - 0.5 * t * t, 0.5 * t * t, level - t], axis=1)
        ups = np.stack([self.hip_rotation[:, 1], self.chest_rotation[:, 1], self.view[:, 1]])
        centre = self.torso_length * steps @ ups

        mix = np.clip(level, 0, 1)[:, None]
        lateral = (1 - mix) * self.hip_rotation[:, 0] + mix * self.chest_rotation[:, 0]
        forward = (1 - mix) * self.hip_rotation[:, 2] + mix * self.chest_rotation[:, 2]
        lateral /= np.linalg.norm(lateral, axis=1, keepdims=True)
        forward /= np.linalg.norm(forward, axis=1, keepdims=True)

        def near(middle: float, reach: float) -> np.ndarray:
            return np.exp(-(((level - middle) / reach) ** 2))

        girth = np.where(level < 0.95, body.girth, 1.0)  # the neck does not follow the girth
        shape = 1 + near(0.05, 0.22) * (body.hips - 1)
        shape += near(0.4, 0.22) * (body.waist - 1) + near(0.85, 0.22) * (body.shoulders - 1)
        width = girth * shape * np.interp(level, _TORSO_LEVELS, _TORSO_WIDTHS)
        depth = girth * np.interp(level, _TORSO_LEVELS, _TORSO_DEPTHS)
        bulge = 0.5 * (body.bust * near(0.66, 0.13) + body.belly * near(0.3, 0.2))
        centre = centre + forward * bulge[:, None]
        half_axes = lateral * width[:, None], forward * (depth + bulge)[:, None]
        return np.stack([centre, *half_axes], axis=1)

    def _direction(self, rotation: np.ndarray, side: Side, angles: tuple[float, float]):
        raised, azimuth = np.radians(angles)
        return rotation @ np.array(
            [
                side * np.sin(raised) * np.cos(azimuth),
                -np.cos(raised),
                np.sin(raised) * np.sin(azimuth),
            ]
        )

    def _pose_arm(self, side: Side) -> Arm:
        pose = self.pose.arms[side]
        section = self.torso_section(0.86)
        shoulder = section.centre + side * section.lateral * 0.9
        # Arms hang by gravity, whatever the lean of the spine: their frame only follows the twist.
        rotation = self.view @ rotation_y(self.pose.twist)
        elbow = (
            shoulder + self._direction(rotation, side, pose.upper) * _UPPER_ARM * self.limb_scale
        )
        along = self._direction(rotation, side, pose.lower)
        wrist = elbow + along * _FOREARM * self.limb_scale
        return Arm(shoulder, elbow, wrist, wrist + along * _HAND * self.limb_scale)

    def _pose_leg(self, side: Side) -> Leg:
        pose = self.pose.legs[side]
        scale = self.limb_scale
        section = self.torso_section(0.0)
        hip = section.centre + side * section.lateral * 0.55
        knee = hip + self._direction(self.view, side, pose.upper) * _THIGH * scale
        shin = self._direction(self.view, side, pose.lower)
        ankle = knee + shin * _SHIN * scale
        # The foot is at a right angle to the shin, softened towards level ground.
        down = 0.35 * shin - 0.65 * self.view[:, 1]
        down /= np.linalg.norm(down)
        front = self.view @ rotation_y(side * 14.0) @ np.array([0.0, 0.0, 1.0])
        front = front - (front @ down) * down
        front /= np.linalg.norm(front)
        heel = ankle + (down * _ANKLE - front * 0.018) * scale
        return Leg(hip, knee, ankle, heel, heel + front * _FOOT * scale)

    def joints(self) -> np.ndarray:
        """All joints, shape (n, 3), camera frame."""
        points = [self.head_centre + self.head_rotation[:, 1] * 0.45 * self.body.head]
        for arm in self.arms.values():
            points += [arm.shoulder, arm.elbow, arm.wrist, arm.fingertips]
        for leg in self.legs.values():
            points += [leg.hip, leg.knee, leg.ankle, leg.heel, leg.toe]
        return np.stack(points)


def sample_body(rng: np.random.Generator, skins: list[tuple[int, int, int]]) -> BodyShape:
    """Draw a body shape at random, with a skin near one of ``skins``."""
    child = rng.random() < 0.06
    feminine = rng.uniform(0, 1)
    heavy = rng.beta(1.6, 3.0)
    skin = np.clip(np.array(skins[rng.integers(len(skins))]) + rng.normal(0, 5, 3), 25, 250)
    return BodyShape(
        head=rng.uniform(0.21, 0.23) if child else rng.uniform(0.175, 0.195),
        girth=(1.0 if child else 0.95) + 0.4 * heavy,
        shoulders=1.1 - 0.2 * feminine,
        hips=0.93 + 0.14 * feminine,
        waist=1.04 - 0.14 * feminine + 0.15 * heavy,
        bust=0.0 if child else 0.035 * max(feminine - 0.4, 0),
        belly=0.05 * max(heavy - 0.4, 0),
        skin=tuple(float(c) for c in skin),
    )
