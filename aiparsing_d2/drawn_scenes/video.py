"""Videos of people who walk about and gesture, drawn frame by frame.

Persons, clothes, place and light stay the same throughout a video. What a person does is a list of
key frames; pose, turn and place change smoothly from each to the next.
"""

import bisect
import dataclasses
from dataclasses import dataclass

import numpy as np

from .background import draw_foreground
from .figure import draw_figure
from .parts import Side
from .person import Person, sample_person
from .poses import arms_crossed, arms_raised, at_ease, standing, walking, waving
from .scene import (
    DrawnScene,
    check_image_size,
    choose_framing,
    choose_placement,
    compose_scene,
    draw_place,
)
from .skeleton import LimbPose, Pose, Skeleton

_NUM_PEOPLE_FREQUENCIES = {1: 0.15, 2: 0.35, 3: 0.3, 4: 0.2}
_GESTURES = {standing: 0.3, at_ease: 0.1, waving: 0.3, arms_raised: 0.2, arms_crossed: 0.1}

# Durations in frames; a second has 25.
_STEP_FRAMES = (13, 18)
_GESTURE_FRAMES = (14, 26)
_HOLD_FRAMES = (2, 14)


@dataclass(frozen=True)
class KeyFrame:
    """A person at some point of time.

    Attributes:
        time: in frames from the beginning of the video; may be negative.
        pose: the person's pose.
        yaw: turn in degrees, as of ``Person``.
        x: column in the place.
    """

    time: float
    pose: Pose
    yaw: float
    x: float


@dataclass(frozen=True)
class Actor:
    """A person who moves.

    Attributes:
        person: who it is; pose and yaw are those of the key frames instead.
        y: image row of the ground below the pelvis.
        scale: height of the upright person in pixels.
        key_frames: by time; the first is not after the video's beginning, nor the last before its
            end.
    """

    person: Person
    y: float
    scale: float
    key_frames: tuple[KeyFrame, ...]

    def at(self, time: float) -> tuple[Person, float]:
        """Return the person as it is at some time, and its column in the place."""
        place = bisect.bisect_right(self.key_frames, time, key=lambda frame: frame.time)
        start, end = self.key_frames[place - 1 : place + 1]
        share = (time - start.time) / (end.time - start.time)
        eased = share * share * (3 - 2 * share)
        person = dataclasses.replace(
            self.person,
            pose=interpolate_poses(start.pose, end.pose, eased),
            yaw=start.yaw + eased * (end.yaw - start.yaw),
        )
        return person, start.x + share * (end.x - start.x)


class DrawnVideo:
    """A video that can be drawn frame by frame, in any order.

    At least one person is in the picture in every frame. The camera stands still or turns slowly.

    Args:
        rng: source of every choice; the same state gives the same video.
        height, width: size of the frames in pixels, at least ``scene.MIN_SIDE`` each.
        num_frames: length of the video.

    Raises:
        ValueError: the frames are too small or there are none.
    """

    def __init__(self, rng: np.random.Generator, height: int, width: int, num_frames: int) -> None:
        check_image_size(height, width)
        if num_frames < 1:
            raise ValueError(f"A video needs at least one frame, got {num_frames}.")
        self.num_frames = num_frames
        self._size = (height, width)
        self._camera_pitch, self._light = rng.uniform(-3, 12), float(rng.choice([-1, 1]))
        base, ground = choose_framing(rng, height)
        # How far the camera turns, as the columns that get into the picture or out of it.
        pan = int(rng.uniform(0.1, 0.25) * width) if rng.random() < 0.5 else 0
        self._pan = (0, pan) if rng.random() < 0.5 else (pan, 0)
        self._place = draw_place(rng, height, width + pan, ground)
        self._foreground = draw_foreground(rng, height, width + pan)

        num_people = int(
            rng.choice(list(_NUM_PEOPLE_FREQUENCIES), p=list(_NUM_PEOPLE_FREQUENCIES.values()))
        )
        self._actors: list[Actor] = []
        for depth in range(num_people):
            person = _sample_actor(rng)
            placement = choose_placement(rng, person, 0.0, base, ground, depth)
            # The nearest stays in sight of the camera, the others may come and go.
            beyond = 0.0 if depth == 0 else 0.3 * width
            reach = (pan + 0.12 * width - beyond, 0.88 * width + beyond)
            key_frames = plan(rng, person, placement.scale, reach, num_frames)
            self._actors.append(Actor(person, placement.feet[1], placement.scale, key_frames))
        self._camera_seed = int(rng.integers(1 << 31))

    def draw_frame(self, index: int) -> DrawnScene:
        """Draw frame ``index``, counted from 0.

        Raises:
            IndexError: the video has no such frame.
        """
        if not 0 <= index < self.num_frames:
            raise IndexError(f"Frame {index} is not one of {self.num_frames}.")
        height, width = self._size
        left = round(np.interp(index, (0, max(self.num_frames - 1, 1)), self._pan))
        layers = []
        for actor in reversed(self._actors):
            person, x = actor.at(index)
            feet = (x - left, actor.y)
            layer = draw_figure(
                person, feet, actor.scale, self._camera_pitch, self._size, self._light
            )
            if layer is not None and layer.solid.any():
                layers.append(layer)
        view = np.s_[:, left : left + width]
        foreground = self._foreground and tuple(pixels[view] for pixels in self._foreground)
        # The same seed for every frame: exposure, lens and sensor do not change.
        rng = np.random.default_rng(self._camera_seed)
        return compose_scene(rng, self._place[view], layers, foreground)


def _sample_actor(rng: np.random.Generator) -> Person:
    person = sample_person(rng)
    # A bag is only drawn on an arm that hangs down: it would come and go.
    outfit = dataclasses.replace(person.outfit, handbag=None)
    return dataclasses.replace(person, outfit=outfit, pose=standing(rng))


def interpolate_poses(start: Pose, end: Pose, share: float) -> Pose:
    """Return the pose on the way from one to another, both seated or both not; limbs turn
    evenly.
    """

    def between(a: float, b: float) -> float:
        return a + share * (b - a)

    def limbs(a: dict[Side, LimbPose], b: dict[Side, LimbPose]) -> dict[Side, LimbPose]:
        return {
            side: LimbPose(
                _turn(a[side].upper, b[side].upper, share),
                _turn(a[side].lower, b[side].lower, share),
            )
            for side in Side
        }

    angles = ("lean", "sway", "twist", "head_yaw", "head_pitch", "head_roll")
    return dataclasses.replace(
        end,
        arms=limbs(start.arms, end.arms),
        legs=limbs(start.legs, end.legs),
        **{angle: between(getattr(start, angle), getattr(end, angle)) for angle in angles},
    )


def _turn(
    start: tuple[float, float], end: tuple[float, float], share: float
) -> tuple[float, float]:
    """Return the direction on the way from one to another along the great circle (see
    ``LimbPose``).

    The angles themselves cannot be interpolated: a leg would swing around, not below the hip.
    """
    a, b = _unit_vector(start), _unit_vector(end)
    angle = np.arccos(np.clip(a @ b, -1, 1))
    if angle < 1e-6:
        return end
    x, y, z = (np.sin((1 - share) * angle) * a + np.sin(share * angle) * b) / np.sin(angle)
    return float(np.degrees(np.arccos(np.clip(-y, -1, 1)))), float(np.degrees(np.arctan2(z, x)))


def _unit_vector(direction: tuple[float, float]) -> np.ndarray:
    raised, azimuth = np.radians(direction)
    outward = np.sin(raised)
    return np.array([outward * np.cos(azimuth), -np.cos(raised), outward * np.sin(azimuth)])


def plan(
    rng: np.random.Generator,
    person: Person,
    scale: float,
    reach: tuple[float, float],
    num_frames: int,
) -> tuple[KeyFrame, ...]:
    """Make up what a person does: walk and stay by turns.

    Args:
        rng: source of every choice.
        person: who it is, in the pose it begins with.
        scale: height of the upright person in pixels.
        reach: first and last column of the place that the person gets to.
        num_frames: length of the video.

    Returns:
        Key frames, as many as an ``Actor`` needs.
    """
    yaw = rng.normal(0, 20) + (180 if rng.random() < 0.08 else 0)
    start = KeyFrame(-rng.uniform(0, 40), person.pose, yaw, rng.uniform(*reach))
    key_frames, walks = [start], rng.random() < 0.6
    while key_frames[-1].time < num_frames:
        if walks:
            key_frames += walk(rng, person, scale, reach, key_frames[-1])
        else:
            key_frames += stay(rng, key_frames[-1])
        walks = not walks
    return tuple(key_frames)


def walk(
    rng: np.random.Generator,
    person: Person,
    scale: float,
    reach: tuple[float, float],
    start: KeyFrame,
) -> list[KeyFrame]:
    """Make steps towards the side where there is more room; none if there is no room for one.

    Args:
        rng, person, scale, reach: as of ``plan``.
        start: the key frame before.

    Returns:
        One key frame for each step, at whose end both feet are on the ground.
    """
    low, high = reach
    room = high - start.x if high - start.x > start.x - low else low - start.x
    yaw = np.sign(room) * rng.uniform(50, 90)
    stride = walking(rng)
    skeleton = Skeleton(person.body, stride, 0.0, 0.0)
    ankles = [leg.ankle[2] for leg in skeleton.legs.values()]
    # As long as the feet are apart, so that they do not slide over the ground.
    step = abs(ankles[0] - ankles[1]) * scale * np.sin(np.radians(yaw))
    num_steps = int(rng.uniform(0.5, 1.0) * room / step)
    duration = rng.uniform(*_STEP_FRAMES)
    strides = stride, _other_foot_first(stride)
    return [
        KeyFrame(start.time + i * duration, strides[i % 2], yaw, start.x + i * step)
        for i in range(1, num_steps + 1)
    ]


def _other_foot_first(pose: Pose) -> Pose:
    """Return the same stride with left and right exchanged; the head looks where it did."""
    return dataclasses.replace(
        pose,
        arms={side: pose.arms[Side(-side)] for side in Side},
        legs={side: pose.legs[Side(-side)] for side in Side},
        sway=-pose.sway,
        twist=-pose.twist,
    )


def stay(rng: np.random.Generator, start: KeyFrame) -> list[KeyFrame]:
    """Make one gesture after another on the spot, after the key frame ``start``."""
    makers, frequencies = list(_GESTURES), list(_GESTURES.values())
    yaw, time, legs = rng.normal(0, 25), start.time, None
    key_frames = []
    for _ in range(rng.integers(1, 4)):
        pose = makers[rng.choice(len(makers), p=frequencies)](rng)
        # The feet stay where they first were put.
        legs = pose.legs if legs is None else legs
        pose = dataclasses.replace(pose, legs=legs)
        for duration in (rng.uniform(*_GESTURE_FRAMES), rng.uniform(*_HOLD_FRAMES)):
            time += duration
            key_frames.append(KeyFrame(time, pose, yaw, start.x))
    return key_frames
