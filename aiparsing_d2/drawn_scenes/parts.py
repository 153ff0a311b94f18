"""CIHP's part labels, what they do not tell apart, and the sides of a body, by name."""

from enum import IntEnum


class Part(IntEnum):
    """Label ids of CIHP. Left and right are the drawn person's own."""

    BACKGROUND = 0
    HAT = 1
    HAIR = 2
    GLOVE = 3
    SUNGLASSES = 4
    UPPER_CLOTHES = 5
    DRESS = 6
    COAT = 7
    SOCKS = 8
    PANTS = 9
    TORSO_SKIN = 10
    SCARF = 11
    SKIRT = 12
    FACE = 13
    LEFT_ARM = 14
    RIGHT_ARM = 15
    LEFT_LEG = 16
    RIGHT_LEG = 17
    LEFT_SHOE = 18
    RIGHT_SHOE = 19


class Detail(IntEnum):
    """What is drawn where CIHP has no label of its own; the label sets of others may have one."""

    NONE = 0
    HAND = 1
    FOOT = 2
    BELT = 3
    HANDBAG = 4
    WATCH = 5
    WRISTBAND = 6
    TIE = 7
    KNEE_PAD = 8
    BACKPACK = 9
    BALL = 10
    BAT = 11
    BOTTLE = 12
    CASE = 13
    PURSE = 14
    UMBRELLA = 15


class Side(IntEnum):
    """A side of the body; the value is the sign of the body frame's x axis (x points left)."""

    LEFT = 1
    RIGHT = -1

    @property
    def arm(self) -> Part:
        """Label of the arm on this side."""
        return Part.LEFT_ARM if self is Side.LEFT else Part.RIGHT_ARM

    @property
    def leg(self) -> Part:
        """Label of the leg on this side."""
        return Part.LEFT_LEG if self is Side.LEFT else Part.RIGHT_LEG

    @property
    def shoe(self) -> Part:
        """Label of the shoe on this side."""
        return Part.LEFT_SHOE if self is Side.LEFT else Part.RIGHT_SHOE
