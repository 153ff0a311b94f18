"""A library of poses; every call of a pose gives a fresh variation of it."""

from collections.abc import Callable

import numpy as np

from .parts import Side
from .skeleton import LimbPose, Pose

PoseMaker = Callable[[np.random.Generator], Pose]


def _both(maker: Callable[[], LimbPose]) -> dict[Side, LimbPose]:
    return {side: maker() for side in Side}


def _hanging_arm(rng: np.random.Generator) -> LimbPose:
    outward = rng.uniform(6, 20)
    return LimbPose(
        (outward, rng.uniform(-25, 25)), (outward * rng.uniform(0.3, 1.1), rng.uniform(0, 90))
    )


def _arm_on_hip(rng: np.random.Generator) -> LimbPose:
    return LimbPose(
        (rng.uniform(42, 56), rng.uniform(-25, 0)), (rng.uniform(58, 76), rng.uniform(132, 152))
    )


def _raised_arm(rng: np.random.Generator) -> LimbPose:
    upper = rng.uniform(100, 160)
    return LimbPose(
        (upper, rng.uniform(-5, 35)), (rng.uniform(145, 178), rng.choice([0, 180]) + 20.0)
    )


def _spread_arm(rng: np.random.Generator) -> LimbPose:
    upper = rng.uniform(60, 100)
    return LimbPose((upper, rng.uniform(-10, 30)), (upper + rng.uniform(-30, 40), 15.0))


def _forward_arm(rng: np.random.Generator) -> LimbPose:
    return LimbPose(
        (rng.uniform(20, 50), rng.uniform(40, 90)), (rng.uniform(70, 120), rng.uniform(80, 120))
    )


def _hand_at_face(rng: np.random.Generator) -> LimbPose:
    return LimbPose(
        (rng.uniform(30, 45), rng.uniform(10, 50)), (rng.uniform(145, 160), rng.uniform(110, 160))
    )


def _crossing_arm(rng: np.random.Generator) -> LimbPose:
    return LimbPose((rng.uniform(22, 32), 45.0), (rng.uniform(84, 100), rng.uniform(148, 160)))


def _pocket_arm(rng: np.random.Generator) -> LimbPose:
    return LimbPose(
        (rng.uniform(20, 30), rng.uniform(-40, -10)), (rng.uniform(18, 28), rng.uniform(120, 170))
    )


_ARM_FREQUENCIES = {
    _hanging_arm: 0.56,
    _arm_on_hip: 0.24,
    _pocket_arm: 0.08,
    _raised_arm: 0.03,
    _spread_arm: 0.03,
    _forward_arm: 0.03,
    _hand_at_face: 0.03,
}


def _any_arm(rng: np.random.Generator) -> LimbPose:
    makers = list(_ARM_FREQUENCIES)
    return makers[rng.choice(len(makers), p=list(_ARM_FREQUENCIES.values()))](rng)


def _straight_leg(rng: np.random.Generator, spread: float = 6.0) -> LimbPose:
    outward = abs(rng.normal(spread, 2))
    return LimbPose((outward, rng.uniform(-10, 30)), (outward * 0.7, rng.uniform(-40, 20)))


def _head(rng: np.random.Generator, turn: float = 18.0) -> dict[str, float]:
    return {
        "head_yaw": rng.normal(0, turn),
        "head_pitch": rng.normal(-2, 6),
        "head_roll": rng.normal(0, 6),
    }


def standing(rng: np.random.Generator) -> Pose:
    """Upright on both legs, each arm doing anything."""
    return Pose(
        "standing",
        arms=_both(lambda: _any_arm(rng)),
        legs=_both(lambda: _straight_leg(rng)),
        sway=rng.normal(0, 3),
        twist=rng.normal(0, 8),
        **_head(rng),
    )


def at_ease(rng: np.random.Generator) -> Pose:
    """Weight on one leg, the other knee bent, arms hanging or on the hips."""
    bent = Side.LEFT if rng.random() < 0.5 else Side.RIGHT
    legs = {
        side: LimbPose((rng.uniform(14, 24), rng.uniform(30, 70)), (rng.uniform(4, 14), 0.0))
        if side is bent
        else _straight_leg(rng, 2.0)
        for side in Side
    }
    makers = [_hanging_arm, _arm_on_hip, _pocket_arm]
    return Pose(
        "at ease",
        arms=_both(lambda: makers[rng.integers(3)](rng)),
        legs=legs,
        sway=float(bent) * rng.uniform(-8, 2),
        twist=rng.normal(0, 10),
        **_head(rng),
    )


def walking(rng: np.random.Generator) -> Pose:
    """Return a stride; the arms swing against the legs."""
    ahead = Side.LEFT if rng.random() < 0.5 else Side.RIGHT
    stride, swing = rng.uniform(16, 30), rng.uniform(14, 32)
    behind = Side(-ahead)
    return Pose(
        "walking",
        arms={
            ahead: LimbPose((swing, -75.0), (swing * rng.uniform(0.2, 0.8), -70.0)),
            behind: LimbPose((swing, 75.0), (swing + rng.uniform(10, 35), 88.0)),
        },
        legs={
            ahead: LimbPose((stride, 88.0), (rng.uniform(0, 12), 90.0)),
            behind: LimbPose((stride * 0.6, -86.0), (stride + rng.uniform(8, 22), -88.0)),
        },
        lean=rng.uniform(0, 6),
        twist=rng.normal(0, 4),
        **_head(rng, 12.0),
    )


def running(rng: np.random.Generator) -> Pose:
    """Return a long stride with bent elbows and the rear shin kicked up."""
    ahead = Side.LEFT if rng.random() < 0.5 else Side.RIGHT
    behind = Side(-ahead)
    return Pose(
        "running",
        arms={
            ahead: LimbPose((rng.uniform(40, 62), -80.0), (rng.uniform(25, 50), 95.0)),
            behind: LimbPose((rng.uniform(25, 50), 80.0), (rng.uniform(95, 130), 100.0)),
        },
        legs={
            ahead: LimbPose((rng.uniform(45, 70), 90.0), (rng.uniform(0, 20), -80.0)),
            behind: LimbPose((rng.uniform(15, 30), -88.0), (rng.uniform(60, 95), -90.0)),
        },
        lean=rng.uniform(8, 18),
        **_head(rng, 8.0),
    )


def sitting(rng: np.random.Generator) -> Pose:
    """On a seat; the hands in the lap, on the knees or elsewhere."""
    apart = rng.uniform(70, 86)
    legs = {}
    for side in Side:
        shin = rng.uniform(0, 20)
        legs[side] = LimbPose(
            (rng.uniform(80, 90), apart + rng.normal(0, 5)), (shin, rng.choice([90.0, -90.0]))
        )

    def arm() -> LimbPose:
        if rng.random() < 0.65:
            return LimbPose(
                (rng.uniform(12, 30), rng.uniform(40, 90)),
                (rng.uniform(55, 80), rng.uniform(90, 125)),
            )
        return _any_arm(rng)

    return Pose(
        "sitting",
        arms=_both(arm),
        legs=legs,
        lean=rng.uniform(-6, 14),
        twist=rng.normal(0, 6),
        seated=True,
        **_head(rng),
    )


def arms_raised(rng: np.random.Generator) -> Pose:
    """Both arms up, cheering or stretching."""
    return Pose(
        "arms raised",
        arms=_both(lambda: _raised_arm(rng)),
        legs=_both(lambda: _straight_leg(rng, 8.0)),
        sway=rng.normal(0, 6),
        **_head(rng),
    )


def arms_crossed(rng: np.random.Generator) -> Pose:
    """Upright with folded arms."""
    return Pose(
        "arms crossed",
        arms=_both(lambda: _crossing_arm(rng)),
        legs=_both(lambda: _straight_leg(rng)),
        **_head(rng),
    )


def waving(rng: np.random.Generator) -> Pose:
    """One arm up, the other hanging, on the hip or in a pocket."""
    up = Side.LEFT if rng.random() < 0.5 else Side.RIGHT
    others = [_hanging_arm, _arm_on_hip, _pocket_arm]
    return Pose(
        "waving",
        arms={up: _raised_arm(rng), Side(-up): others[rng.integers(3)](rng)},
        legs=_both(lambda: _straight_leg(rng)),
        sway=float(up) * rng.uniform(-8, 4),
        **_head(rng),
    )


def jumping(rng: np.random.Generator) -> Pose:
    """In the air: arms spread or raised, legs apart or tucked."""
    arm = _raised_arm if rng.random() < 0.5 else _spread_arm

    def leg() -> LimbPose:
        raised = rng.uniform(15, 50)
        return LimbPose((raised, rng.uniform(10, 60)), (rng.uniform(10, 60), rng.uniform(-90, -20)))

    return Pose(
        "jumping",
        arms=_both(lambda: arm(rng)),
        legs=_both(leg),
        lean=rng.uniform(-5, 8),
        sway=rng.normal(0, 6),
        **_head(rng),
    )


def crouching(rng: np.random.Generator) -> Pose:
    """Knees bent deeply, the trunk leaning forward."""
    thigh = rng.uniform(70, 95)

    def arm() -> LimbPose:
        return LimbPose((rng.uniform(25, 50), 70.0), (rng.uniform(50, 90), rng.uniform(90, 140)))

    return Pose(
        "crouching",
        arms=_both(arm),
        legs=_both(lambda: LimbPose((thigh, rng.uniform(60, 82)), (rng.uniform(25, 38), -85.0))),
        lean=rng.uniform(15, 30),
        **_head(rng),
    )


_FREQUENCIES: dict[PoseMaker, float] = {
    standing: 0.5,
    at_ease: 0.34,
    walking: 0.06,
    running: 0.01,
    sitting: 0.03,
    arms_raised: 0.01,
    arms_crossed: 0.01,
    waving: 0.03,
    jumping: 0.01,
    crouching: 0.01,
}


def sample_pose(rng: np.random.Generator) -> Pose:
    """Draw a pose at random."""
    makers = list(_FREQUENCIES)
    weights = np.array(list(_FREQUENCIES.values()))
    return makers[rng.choice(len(makers), p=weights / weights.sum())](rng)
