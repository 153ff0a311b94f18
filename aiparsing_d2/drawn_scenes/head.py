"""Drawing of heads: skull, face, hair, hats and sunglasses.

The head frame has its origin in the middle of the cranium, x to the person's left, y up, z
forward, and the head's height (chin to crown) as its unit.
"""

from collections.abc import Callable

import cv2
import numpy as np

from .canvas import FigureCanvas, fabric_paint
from .fabric import Colour, shaded
from .geometry import Outline, disc, hull, ribbon, smooth_curve, unit_circle
from .parts import Part, Side
from .projection import Projection
from .skeleton import Skeleton
from .wardrobe import HairStyle, HatStyle, Outfit

_CRANIUM = np.array([0.36, 0.43, 0.42])
_JAW_CENTRE, _JAW = np.array([0.0, -0.27, 0.09]), np.array([0.27, 0.33, 0.28])
_EYE = np.array([0.155, -0.02, 0.385])


class HeadArtist:
    """Draws the head of one figure.

    Args:
        canvas: where to draw.
        skeleton: the posed body.
        outfit: hair, hat and glasses.
        projection: from the camera frame to canvas pixels.
        rng: for strands of hair and the like.
    """

    def __init__(
        self,
        canvas: FigureCanvas,
        skeleton: Skeleton,
        outfit: Outfit,
        projection: Projection,
        rng: np.random.Generator,
    ) -> None:
        self._canvas = canvas
        self._skeleton = skeleton
        self._outfit = outfit
        self._projection = projection
        self._rng = rng
        self._unit = skeleton.body.head
        self._rotation = skeleton.head_rotation
        self._pixels = self._unit * projection.scale  # canvas pixels per head height
        self._skin = skeleton.body.skin

    @property
    def faces_viewer(self) -> bool:
        """Whether hair that hangs down behind the head lies behind the neck, too."""
        return bool(self._rotation[2, 2] > -0.15)

    def draw_hair_behind(self) -> None:
        """Draw the hair that hangs down behind the head and neck.

        ``draw`` does so itself for a head that is turned away from the viewer.
        """
        hair = self._outfit.hair
        if hair.style is HairStyle.AFRO:
            self._hair([self._ellipsoid((0, 0.06, -0.06), (0.56, 0.54, 0.54))])
        elif hair.style is HairStyle.PONYTAIL:
            root, sway = (0, 0.16, -0.44), self._rng.uniform(-0.2, 0.2)
            tail = [root, (0.3 * sway, 0.0, -0.66), (sway, -0.35, -0.66), (sway, -0.75, -0.52)]
            self._hair([self._band(tail, (0.08, 0.15, 0.16, 0.05))])
        elif hair.style in (HairStyle.LONG, HairStyle.BOB):
            length = -0.62 if hair.style is HairStyle.BOB else -1.15
            curtain = [
                self._ellipsoid((0, 0.05, -0.05), (0.42, 0.45, 0.42)),
                self._ellipsoid((0.2, length + 0.22, -0.12), (0.2, 0.22, 0.2)),
                self._ellipsoid((-0.2, length + 0.22, -0.12), (0.2, 0.22, 0.2)),
            ]
            self._hair([hull(curtain)])
            self._strands((-0.3, 0.3), 0.1, length + 0.1, -0.35)

    def draw(self) -> None:
        """Draw skull, face, hair, glasses and hat."""
        self._draw_skull()
        self._draw_features()
        self._draw_hair()
        if self._outfit.sunglasses is not None:
            self._draw_sunglasses()
        self._draw_locks()
        if not self.faces_viewer:
            self.draw_hair_behind()
        if self._outfit.hat is not None:
            self._draw_hat()

    # Places on the canvas

    def _at(self, point) -> np.ndarray:
        """Canvas position (..., 2) of a point (..., 3) of the head frame."""
        camera = (
            self._skeleton.head_centre
            + (np.asarray(point, dtype=np.float64) * self._unit) @ self._rotation.T
        )
        return self._projection.to_canvas(camera)

    def _towards_viewer(self, direction) -> float:
        """Cosine between a direction of the head frame and the line of sight."""
        direction = np.asarray(direction, dtype=np.float64)
        return float(self._rotation[2] @ direction / np.linalg.norm(direction))

    def _ellipsoid(self, centre, radii) -> Outline:
        """Outline of an ellipsoid whose axes are those of the head."""
        axes = self._rotation[:2] * np.asarray(radii, dtype=np.float64)
        half = np.linalg.cholesky(axes @ axes.T + 1e-9 * np.eye(2)) * self._pixels
        points = unit_circle(28) @ half.T
        return self._at(centre) + points * (1, -1)

    def _patch(self, centre, across, up) -> Outline:
        """Outline of a flat ellipse spanned by two half axes of the head frame."""
        circle = unit_circle(16)
        return self._at(
            np.asarray(centre) + circle[:, :1] * np.asarray(across) + circle[:, 1:] * np.asarray(up)
        )

    def _band(self, points, radii) -> Outline:
        """Return a smooth band through points of the head frame."""
        curve = smooth_curve(np.column_stack([self._at(points), radii]), 5)
        return ribbon(curve[:, :2], np.maximum(curve[:, 2], 0.01) * self._pixels)

    def _hair(self, outlines: list[Outline]) -> None:
        self._canvas.fill(outlines, self._outfit.hair.colour, Part.HAIR, relief=0.1 * self._pixels)

    def _strands(self, across: tuple[float, float], top: float, bottom: float, z: float) -> None:
        """Fine darker and lighter lines down the hair."""
        if self._pixels < 24:
            return
        xs = self._rng.uniform(*across, 8)
        strands = [
            self._band(
                [(0.7 * x, top, z), (x, 0.5 * (top + bottom), z), (1.05 * x, bottom, z)],
                (0.008, 0.014, 0.004),
            )
            for x in xs
        ]
        colour = self._outfit.hair.colour
        self._canvas.decorate(strands[:4], shaded(colour, 0.72), Part.HAIR)
        self._canvas.decorate(strands[4:], shaded(colour, 1.2), Part.HAIR)

    # Skull and face

    def _draw_skull(self) -> None:
        # Seen from behind there is no face: what hair leaves bare belongs to the neck.
        part = Part.FACE if self._towards_viewer((0, 0, 1)) > -0.45 else Part.TORSO_SKIN
        relief = 0.13 * self._pixels
        for side in Side:
            if self._towards_viewer((side, 0, 0)) > -0.35:
                ear = self._patch((side * 0.36, -0.06, -0.02), (side * 0.03, 0, -0.07), (0, 0.1, 0))
                knob = disc(self._at((side * 0.37, -0.06, -0.02)), 0.05 * self._pixels)
                self._canvas.fill([ear, knob], self._skin, part, relief=relief)
        skull = hull([self._ellipsoid((0, 0, -0.02), _CRANIUM), self._ellipsoid(_JAW_CENTRE, _JAW)])
        outlines = [skull]
        if self._towards_viewer((0, 0, 1)) < 0.85:  # the nose stands out from the outline
            nose = [(0, 0.03, 0.38), (0, -0.13, 0.53), (0, -0.19, 0.36)]
            outlines.append(hull([disc(self._at(p), 0.025 * self._pixels) for p in nose]))
        self._canvas.fill(outlines, self._skin, part, relief=relief)

    def _detail(self, outlines: list[Outline], colour: Colour) -> None:
        self._canvas.decorate(outlines, colour, Part.FACE)

    def _draw_features(self) -> None:
        if self._towards_viewer((0, 0, 1)) < -0.25:
            return
        rng, skin, hair = self._rng, self._skin, self._outfit.hair
        brow_colour = shaded(hair.colour, 0.8) if sum(hair.colour) < 480 else shaded(skin, 0.6)
        iris = [(60, 40, 26), (40, 30, 24), (62, 92, 120), (70, 96, 60)][rng.integers(4)]
        smile, open_mouth = rng.uniform(-0.01, 0.05), rng.random() < 0.35

        if hair.beard:
            beard = self._surface(_JAW * 1.03, _JAW_CENTRE, lambda s: (s[1] < 0.05) & (s[2] > -0.4))
            self._canvas.decorate_mask(*beard, shaded(hair.colour, 0.95), Part.FACE)
        for side in Side:
            if self._towards_viewer((side * 0.55, 0, 0.83)) < 0.12:
                continue
            x, y, z = _EYE * (side, 1, 1)
            turn = np.array([1.0, 0.0, -0.35 * side])
            cheek = self._patch((x * 1.15, y - 0.17, z - 0.03), 0.075 * turn, (0, 0.05, 0))
            self._detail([cheek], tuple(0.9 * np.array(skin) + (22, -2, -2)))
            self._detail([self._patch((x, y, z), 0.075 * turn, (0, 0.05, 0))], (246, 244, 240))
            self._detail([self._patch((x, y, z + 0.01), 0.034 * turn, (0, 0.045, 0))], iris)
            self._detail([self._patch((x, y, z + 0.01), 0.016 * turn, (0, 0.02, 0))], (12, 10, 10))
            lid = [(x - 0.08, y + 0.03, z - 0.01), (x, y + 0.06, z), (x + 0.08, y + 0.03, z - 0.02)]
            self._detail([self._band(lid, (0.012, 0.016, 0.012))], shaded(skin, 0.4))
            brow = [(x - 0.095, y + 0.1, z), (x, y + 0.135, z), (x + 0.095, y + 0.095, z - 0.03)]
            self._detail([self._band(brow, (0.018, 0.024, 0.014))], brow_colour)

        if self._towards_viewer((0, 0, 1)) > 0.1:
            nose = [
                (0.02, 0.0, 0.42),
                (0.035, -0.13, 0.47),
                (0.0, -0.16, 0.47),
                (-0.04, -0.15, 0.45),
            ]
            self._detail([self._band(nose, (0.008, 0.013, 0.016, 0.012))], shaded(skin, 0.74))
            lips = tuple(0.72 * np.array(skin) + (34, -6, -2))
            mouth = [(-0.1, -0.31 + smile, 0.32), (0, -0.335, 0.37), (0.1, -0.31 + smile, 0.32)]
            if open_mouth:
                self._detail([self._band(mouth, (0.016, 0.045, 0.016))], lips)
                self._detail([self._band(mouth, (0.004, 0.026, 0.004))], (250, 246, 240))
            else:
                self._detail([self._band(mouth, (0.012, 0.026, 0.012))], lips)

    # Hair

    def _surface(
        self, radii, centre, chosen: Callable[[np.ndarray], np.ndarray]
    ) -> tuple[int, int, np.ndarray]:
        """Mask of the visible surface of an ellipsoid where ``chosen`` holds.

        Args:
            radii, centre: the ellipsoid in the head frame, (3,) each.
            chosen: given positions (3, h, w) on the unit sphere (the ellipsoid before scaling),
                says which of them belong to the mask.

        Returns:
            left, top, mask: a mask for ``FigureCanvas.fill_mask``.
        """
        radii = np.asarray(radii, dtype=np.float64)
        outline = self._ellipsoid(centre, radii)
        height, width = self._canvas.label.shape
        left, top = np.maximum(np.floor(outline.min(0)).astype(int) - 4, 0)
        right, bottom = np.minimum(np.ceil(outline.max(0)).astype(int) + 4, (width, height))
        if right <= left or bottom <= top:
            return 0, 0, np.zeros((1, 1), dtype=np.uint8)
        origin = self._at(centre)
        x = ((np.arange(left, right) + 0.5 - origin[0]) / self._pixels).astype(np.float32)
        y = ((origin[1] - np.arange(top, bottom) - 0.5) / self._pixels).astype(np.float32)
        # camera frame -> unit sphere
        to_sphere = (self._rotation / radii).T.astype(np.float32)
        flat = (
            to_sphere[:, 0, None, None] * x[None, None, :]
            + to_sphere[:, 1, None, None] * y[None, :, None]
        )
        sight = to_sphere[:, 2]
        half_b = np.tensordot(sight, flat, 1)
        inside = half_b**2 - (sight @ sight) * ((flat**2).sum(0) - 1)
        depth = (-half_b + np.sqrt(np.maximum(inside, 0))) / (sight @ sight)
        sphere = flat + sight[:, None, None] * depth
        mask = (inside >= 0) & chosen(sphere)
        return int(left), int(top), mask.astype(np.uint8) * 255

    def _draw_hair(self) -> None:
        hair = self._outfit.hair
        style = hair.style
        if style is HairStyle.BALD and self._towards_viewer((0, 0, 1)) > -0.3:
            return
        volume = {
            HairStyle.BALD: 1.04,
            HairStyle.BUZZ: 1.08,
            HairStyle.CURLY: 1.2,
            HairStyle.AFRO: 1.3,
            HairStyle.LONG: 1.18,
            HairStyle.BOB: 1.2,
        }.get(style, 1.15)
        covers_ears = style in (HairStyle.LONG, HairStyle.BOB, HairStyle.AFRO)
        # Edges of the face, as seen from the middle of the head: forehead height and half width.
        forehead = 0.62 - 0.3 * hair.fringe
        if style in (HairStyle.BUZZ, HairStyle.QUIFF):
            forehead = 0.62
        temple = np.radians(58 if covers_ears else 72)
        waves = self._rng.uniform(0, 2 * np.pi, 2)
        rough = 0.05 if style in (HairStyle.CURLY, HairStyle.AFRO) else 0.025

        def is_hair(s: np.ndarray) -> np.ndarray:
            azimuth = np.arctan2(s[0], s[2])
            off = np.abs(azimuth) / temple
            line = forehead - 0.28 * np.clip(off, 0, 1) ** 3
            line = line + 0.16 * hair.parting * azimuth * (1 - hair.fringe)
            line = line + rough * (np.sin(9 * azimuth + waves[0]) + np.sin(23 * azimuth + waves[1]))
            nape = np.where(np.abs(azimuth) > 1.9, -0.85, -0.25)
            if covers_ears:
                nape = np.full_like(azimuth, -0.95)
            return np.where(off < 1, s[1] > line, s[1] > nape)

        centre = (0, 0.02, -0.03)
        radii = _CRANIUM * volume
        self._canvas.fill_mask(
            *self._surface(radii, centre, is_hair),
            hair.colour,
            Part.HAIR,
            relief=0.12 * self._pixels,
            shadow=0.25,
        )
        if style in (HairStyle.CURLY, HairStyle.AFRO):
            ring = self._ellipsoid(centre, radii * 0.98)
            middle = self._at((0, -0.25, -0.1))
            curls = [
                disc(p, self._rng.uniform(0.07, 0.13) * self._pixels)
                for p in ring[self._rng.integers(0, len(ring), 16)]
                if p[1] < middle[1] and self._is_hair_near(p)
            ]
            if curls:
                self._hair(curls)
        elif style is HairStyle.QUIFF:
            tufts = [(-0.14, 0.38, 0.22), (0.02, 0.43, 0.25), (0.16, 0.38, 0.2)]
            self._hair(
                [
                    self._ellipsoid((x + 0.1 * hair.parting, y, z), (0.17, 0.11, 0.18))
                    for x, y, z in tufts
                ]
            )
        elif style is HairStyle.BUN:
            self._hair([self._ellipsoid((0, 0.46, -0.26), (0.2, 0.18, 0.2))])
        if style is not HairStyle.BUZZ:
            for z in (0.3, -0.38):
                if self._towards_viewer((0, 0, z)) > 0:
                    self._strands((-0.34, 0.34), 0.44, 0.1, z)

    def _is_hair_near(self, point: np.ndarray) -> bool:
        x, y = int(point[0]), int(point[1])
        window = self._canvas.label[max(y - 3, 0) : y + 4, max(x - 3, 0) : x + 4]
        return bool((window == Part.HAIR).any())

    def _draw_locks(self) -> None:
        """Hair that falls over the shoulders in front."""
        style = self._outfit.hair.style
        if style is HairStyle.BRAIDS:
            for side in Side:
                if self._towards_viewer((side, 0, 0)) < -0.75:
                    continue
                braid = [
                    (0.36, -0.1, -0.1),
                    (0.44, -0.45, 0.05),
                    (0.4, -0.85, 0.2),
                    (0.38, -1.15, 0.2),
                ]
                points = np.array(braid) * (side, 1, 1)
                curve = smooth_curve(self._at(points), 3)
                beads = [
                    disc(p, r * self._pixels)
                    for p, r in zip(curve, np.linspace(0.1, 0.06, len(curve)), strict=True)
                ]
                self._hair([self._band(points, (0.07, 0.08, 0.07, 0.03)), *beads])
        elif style in (HairStyle.LONG, HairStyle.BOB) and self.faces_viewer:
            end = -0.9 if style is HairStyle.LONG else -0.52
            for side in Side:
                if self._towards_viewer((side, 0, 0.2)) < -0.55:
                    continue
                lock = [
                    (0.33, 0.16, 0.12),
                    (0.41, -0.15, 0.08),
                    (0.42, 0.55 * end, 0.05),
                    (0.36, end, 0.12),
                ]
                self._hair([self._band(np.array(lock) * (side, 1, 1), (0.06, 0.09, 0.11, 0.03))])

    # Accessories

    def _draw_sunglasses(self) -> None:
        glasses = self._outfit.sunglasses
        shown = [s for s in Side if self._towards_viewer((s * 0.5, 0, 0.86)) > 0.08]
        if not shown:
            return
        frame: list[Outline] = []
        lenses: list[Outline] = []
        circle = unit_circle(24)
        squared = circle / np.abs(circle).max(axis=1, keepdims=True)
        shape = glasses.roundness * circle + (1 - glasses.roundness) * (
            0.4 * circle + 0.55 * squared
        )
        for side in shown:
            centre = _EYE * (side, 1, 1) + (side * 0.01, -0.01, 0.035)
            turn = np.array([1.0, 0.0, -0.3 * side])
            for outlines, size in ((frame, 1.0), (lenses, 0.82)):
                rim = (
                    centre
                    + shape[:, :1] * 0.18 * size * turn
                    + shape[:, 1:] * np.array([0, 0.155 * size, 0])
                )
                outlines.append(self._at(rim))
        if self._towards_viewer((0, 0, 1)) > 0.1:
            bridge = [(-0.07, 0.02, 0.46), (0, 0.035, 0.47), (0.07, 0.02, 0.46)]
            frame.append(self._band(bridge, (0.025, 0.025, 0.025)))
        for side in Side:
            if self._towards_viewer((side, 0, 0)) > 0.05:
                temple = [
                    (side * 0.3, 0.02, 0.33),
                    (side * 0.37, 0.01, 0.15),
                    (side * 0.38, 0, -0.02),
                ]
                frame.append(self._band(temple, (0.035, 0.03, 0.025)))
        holes = lenses if glasses.clear else []
        self._canvas.fill(frame, glasses.frame, Part.SUNGLASSES, holes=holes, relief=2, shadow=0.2)
        if glasses.clear:
            return
        self._canvas.decorate(lenses, glasses.colour, Part.SUNGLASSES)
        for side in shown:
            glint = self._patch(
                _EYE * (side, 1, 1) + (-0.05, 0.045, 0.04), (0.04, 0, 0), (0.02, 0.022, 0)
            )
            self._canvas.decorate([glint], shaded(glasses.colour, 2.0), Part.SUNGLASSES)

    def _ring(self, level: float, radius: float, start: float = -180, end: float = 180):
        """Points of the head frame on a level ring around the cranium; azimuths in degrees."""
        angles = np.radians(np.linspace(start, end, 25))
        x, z = _CRANIUM[0] * radius * np.sin(angles), _CRANIUM[2] * radius * np.cos(angles)
        return np.column_stack([x, np.full_like(x, level), z - 0.02])

    def _cloth(self, outlines: list[Outline], colour: Colour | None = None) -> None:
        fabric = self._outfit.hat.fabric
        up = self._rotation[:2, 1] * (-1, 1)
        paint = fabric_paint(fabric, self._at((0, 0.6, 0)), up, self._projection.scale)
        self._canvas.fill(
            outlines, paint if colour is None else colour, Part.HAT, relief=0.1 * self._pixels
        )

    def _draw_hat(self) -> None:
        hat = self._outfit.hat
        fabric = hat.fabric
        bulk = 1.2 if self._outfit.hair.style in (HairStyle.AFRO, HairStyle.CURLY) else 1.1
        band = shaded(fabric.accent, 0.9)

        if hat.style is HatStyle.BEANIE:
            left, top, mask = self._surface(
                _CRANIUM * (bulk, bulk * 1.12, bulk), (0, 0.03, -0.03), lambda s: s[1] > 0.2
            )
            contour = _contours(left, top, mask)
            if contour:
                self._cloth(contour)
            self._cloth(
                [hull([self._at(self._ring(0.12, bulk)), self._at(self._ring(0.23, bulk * 1.02))])],
                fabric.accent,
            )
            self._cloth([disc(self._at((0, 0.56, -0.04)), 0.1 * self._pixels)], fabric.accent)
        elif hat.style is HatStyle.HELMET:
            shell = self._surface(
                _CRANIUM * (bulk * 1.08),
                (0, 0.05, -0.03),
                lambda s: s[1] > 0.12 - 0.35 * (s[2] < 0),
            )
            for contour in _contours(*shell):
                self._cloth([contour], fabric.accent)
            comb = self._band(
                [(0, 0.45, 0.36), (0, 0.58, 0.0), (0, 0.45, -0.42)], (0.05, 0.08, 0.05)
            )
            self._cloth([comb], band)
        elif hat.style is HatStyle.CAP:
            front = -1 if hat.backwards else 1
            inner = self._ring(0.2, bulk * 0.98, -75, 75) * (1, 1, front)
            outer = self._ring(0.13, bulk * 1.0, -75, 75) * (1, 1, front)
            reach = np.cos(np.radians(np.linspace(-90, 90, 25)))[:, None] * (0, -0.02, 0.36 * front)
            visor = np.concatenate([self._at(inner), self._at(outer + reach)[::-1]])
            crown = [
                hull(
                    [
                        self._at(self._ring(0.17, bulk)),
                        self._at(self._ring(0.4, bulk * 0.86)),
                        self._at(self._ring(0.53, bulk * 0.5)),
                    ]
                )
            ]
            if self._towards_viewer((0, 0, front)) > 0:
                self._cloth(crown)
                self._cloth([hull([visor])], shaded(fabric.accent, 0.85))
            else:
                self._cloth([hull([visor])], shaded(fabric.accent, 0.85))
                self._cloth(crown)
        else:
            brim, flare, height, top_size, brim_level = {
                HatStyle.SUN_HAT: (2.0, 0.0, 0.5, 0.75, 0.2),
                HatStyle.FEDORA: (1.62, 0.0, 0.6, 0.8, 0.22),
                HatStyle.BUCKET: (1.4, -0.14, 0.5, 0.85, 0.26),
            }[hat.style]
            rim = self._ring(brim_level + flare, bulk * brim)
            # Brims rise behind: from eye level they are seen as an ellipse, not as a line.
            rim[:, 1] -= 0.13 * rim[:, 2]
            base_ring = self._ring(brim_level, bulk * 1.02)
            self._cloth([hull([self._at(rim), self._at(base_ring)])])
            self._cloth(
                [
                    hull(
                        [
                            self._at(base_ring),
                            self._at(self._ring(height - 0.06, bulk * top_size)),
                            self._at(self._ring(height, bulk * top_size * 0.8)),
                        ]
                    )
                ]
            )
            if hat.style is not HatStyle.BUCKET:
                ribbon_top = self._ring(brim_level + 0.09, bulk * 0.98)
                self._cloth([hull([self._at(base_ring), self._at(ribbon_top)])], band)


def _contours(left: int, top: int, mask: np.ndarray) -> list[Outline]:
    found, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return [c.reshape(-1, 2) + (left + 0.5, top + 0.5) for c in found]
