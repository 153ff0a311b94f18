"""Drawing of one whole figure: limbs, trunk and garments in their order of depth."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from .canvas import FigureCanvas, Paint, fabric_paint
from .fabric import Colour, Fabric, shaded
from .geometry import Outline, disc, hull, ribbon, smooth_curve, straight_ribbon, unit_circle
from .head import HeadArtist
from .parts import Detail, Part, Side
from .person import Person
from .projection import Projection
from .skeleton import Arm, Leg, Skeleton
from .wardrobe import ShoeStyle, Skirt

SUPERSAMPLING = 2
"""Canvas pixels per image pixel."""

# Radii along the bones, in body units.
_UPPER_ARM = (0.036, 0.042, 0.039, 0.035)
_FOREARM = (0.034, 0.037, 0.033, 0.027)
_THIGH = (0.057, 0.055, 0.048, 0.038)
_SHIN = (0.038, 0.042, 0.034, 0.024)


@dataclass(frozen=True)
class FigureLayer:
    """One drawn figure over a window of the image, before anything in front hides it.

    Attributes:
        person: who is drawn.
        left, top: image pixel of the window's upper left corner.
        rgb: float32 (h, w, 3), colours 0..255, already multiplied by ``alpha``.
        alpha: float32 (h, w), share of the pixel that the figure (with props) covers.
        label: uint8 (h, w), part labels; 0 where the figure is not, and on props.
        detail: uint8 (h, w), what part labels do not tell apart; also on props.
        solid: bool (h, w), whether the figure or its props hold the pixel.
    """

    person: Person
    left: int
    top: int
    rgb: np.ndarray
    alpha: np.ndarray
    label: np.ndarray
    detail: np.ndarray
    solid: np.ndarray

    @property
    def window(self) -> tuple[slice, slice]:
        """Where the layer lies in the image, as an index of image arrays."""
        height, width = self.label.shape
        return np.s_[self.top : self.top + height, self.left : self.left + width]


def draw_figure(
    person: Person,
    feet: tuple[float, float],
    scale: float,
    camera_pitch: float,
    image_size: tuple[int, int],
    light: float,
) -> FigureLayer | None:
    """Draw a person.

    Args:
        person: whom to draw.
        feet: image position (x, y) of the ground below the pelvis.
        scale: height of the upright person in image pixels.
        camera_pitch: how far the camera looks down, in degrees.
        image_size: (height, width) of the image.
        light: -1 for light from the left, 1 for light from the right.

    Returns:
        The layer, cut to the image, or None if the figure lies outside of it.
    """
    skeleton = person.skeleton(camera_pitch)
    joints = skeleton.joints()
    lowest = joints[:, 1].min()
    pelvis = np.array([feet[0], feet[1] + lowest * scale])
    margin = 0.19
    corners = np.stack([joints[:, :2].min(0) - margin, joints[:, :2].max(0) + margin])
    corners = pelvis + corners * (scale, -scale)
    height, width = image_size
    left, right = np.clip(np.sort(corners[:, 0]), 0, width).astype(int)
    top, bottom = np.clip(np.sort(corners[:, 1]), 0, height).astype(int)
    if right - left < 2 or bottom - top < 2:
        return None

    size = ((right - left) * SUPERSAMPLING, (bottom - top) * SUPERSAMPLING)
    canvas = FigureCanvas(*size, light, (person.seed % 512, person.seed // 512 % 512))
    projection = Projection(
        tuple((pelvis - (left, top)) * SUPERSAMPLING), float(scale * SUPERSAMPLING)
    )
    FigureArtist(canvas, person, skeleton, projection).draw()

    small = (right - left, bottom - top)
    rgb = cv2.resize(canvas.rgb, small, interpolation=cv2.INTER_AREA)
    alpha = cv2.resize(canvas.covered, small, interpolation=cv2.INTER_AREA)
    sample = np.s_[::SUPERSAMPLING, ::SUPERSAMPLING]
    return FigureLayer(
        person=person,
        left=int(left),
        top=int(top),
        rgb=rgb.astype(np.float32),
        alpha=alpha.astype(np.float32) / 255,
        label=canvas.label[sample].copy(),
        detail=canvas.detail[sample].copy(),
        solid=canvas.covered[sample] > 0,
    )


class FigureArtist:
    """Draws one figure on a canvas.

    Args:
        canvas: where to draw.
        person: whom to draw.
        skeleton: the person's joints in the camera frame.
        projection: from the camera frame to canvas pixels.
    """

    def __init__(
        self, canvas: FigureCanvas, person: Person, skeleton: Skeleton, projection: Projection
    ) -> None:
        self._canvas = canvas
        self._outfit = person.outfit
        self._accessories = person.accessories
        self._body = person.body
        self._skeleton = skeleton
        self._projection = projection
        self._rng = np.random.default_rng(person.seed)
        self._scale = projection.scale
        self._relief = 0.035 * self._scale
        self._thickness = person.body.girth**0.8 * skeleton.limb_scale
        self._skin = person.body.skin
        self._front = float(skeleton.chest_rotation[2, 2])  # 1 faces the viewer, -1 turned away
        self._head = HeadArtist(canvas, skeleton, person.outfit, projection, self._rng)

    def draw(self) -> None:
        """Draw everything from back to front."""
        outfit, skeleton = self._outfit, self._skeleton
        pelvis_covers_top = outfit.is_dress or outfit.top.hem > 0.05
        legs_in_front = np.mean([leg.knee[2] - leg.hip[2] for leg in skeleton.legs.values()]) > 0.09
        chest = skeleton.torso_section(0.7).centre
        arms_behind = [
            side
            for side, arm in skeleton.arms.items()
            if np.mean([arm.elbow[2], arm.wrist[2], arm.fingertips[2]]) - chest[2] < -0.04
        ]

        seat_behind = skeleton.view[2, 2] > -0.2
        if skeleton.pose.seated and seat_behind:
            self._draw_seat()
        if self._head.faces_viewer:
            self._head.draw_hair_behind()
        back_shows = self._front < 0
        if self._accessories.backpack is not None and not back_shows:
            self._draw_backpack()
        for side in arms_behind:
            self._draw_arm(side)
        if not legs_in_front:
            self._draw_legs()
            if skeleton.pose.seated and not seat_behind:
                self._draw_seat()
        self._draw_trunk()
        if legs_in_front or pelvis_covers_top:
            self._draw_top()
            if legs_in_front:
                self._draw_legs()
            self._draw_pelvis()
        else:
            self._draw_pelvis()
            self._draw_top()
        if outfit.coat is not None:
            self._draw_coat()
        if self._accessories.backpack is not None:
            if back_shows:
                self._draw_backpack()
            else:
                self._draw_backpack_straps()
        self._head.draw()
        if outfit.scarf is not None:
            self._draw_scarf()
        for side in sorted(set(Side) - set(arms_behind), key=lambda s: skeleton.arms[s].wrist[2]):
            self._draw_arm(side)

    # Helpers

    def _at(self, point: np.ndarray) -> np.ndarray:
        return self._projection.to_canvas(point)

    def _disc(self, point: np.ndarray, radius: float) -> Outline:
        return disc(self._at(point), radius * self._scale)

    def _bone(self, start: np.ndarray, end: np.ndarray, radii: Sequence[float]) -> Outline:
        """Band from one joint to the next; radii in body units."""
        return straight_ribbon(self._at(start), self._at(end), np.asarray(radii) * self._scale)

    def _sleeve(
        self,
        joints: tuple[np.ndarray, np.ndarray, np.ndarray],
        radii: tuple[Sequence[float], Sequence[float]],
        length: float,
        ease: float,
    ) -> list[Outline]:
        """Return a tube of cloth down a limb; ``length`` is 1 at the middle joint and 2 at the
        end.
        """
        root, middle, end = joints
        upper = np.asarray(radii[0]) * ease
        lower = np.asarray(radii[1]) * ease
        outlines = [self._disc(root, upper[0])]
        share = min(length, 1.0)
        stops = np.linspace(0, share, 4) * (len(upper) - 1)
        tube = np.interp(stops, np.arange(len(upper)), upper)
        hem = root + share * (middle - root)
        outlines.append(self._bone(root, hem, tube))
        if length > 1:
            # Cloth does not follow the narrowing of the limb.
            stops = np.linspace(0, length - 1, 4) * (len(lower) - 1)
            tube = np.maximum(np.interp(stops, np.arange(len(lower)), lower), 0.75 * lower[0])
            outlines.append(self._disc(middle, max(upper[-1], lower[0])))
            hem = middle + (length - 1) * (end - middle)
            outlines.append(self._bone(middle, hem, tube))
        outlines.append(self._opening(hem, end - middle if length > 1 else middle - root, tube[-1]))
        return outlines

    def _opening(self, centre: np.ndarray, axis: np.ndarray, radius: float) -> Outline:
        """Outline of a circle at a right angle to an axis, such as the end of a sleeve."""
        axis = axis / np.linalg.norm(axis)
        first = np.cross(axis, (0.0, 0.0, 1.0))
        length = np.linalg.norm(first)
        first = first / length if length > 1e-6 else np.array([1.0, 0.0, 0.0])
        second = np.cross(axis, first)
        circle = radius * unit_circle()
        return self._at(centre + circle[:, :1] * first + circle[:, 1:] * second)

    def _fill(self, outlines: Sequence[Outline], paint: Paint, part: Part, **options) -> None:
        options.setdefault("relief", self._relief)
        self._canvas.fill(outlines, paint, part, **options)

    def _crease(
        self, lines: Sequence[np.ndarray], part: Part, paint: Paint, width: float = 0.004
    ) -> None:
        """Lines on a garment, each given by points (n, 2) on the canvas; width in body units."""
        half = max(width * self._scale, 0.7)
        self._canvas.decorate(
            [ribbon(line, np.full(len(line), half)) for line in lines], paint, part
        )

    def _fabric(self, fabric: Fabric, start: np.ndarray, end: np.ndarray) -> Paint:
        origin = self._at(start)
        return fabric_paint(fabric, origin, self._at(end) - origin, self._scale)

    # Trunk

    def _sides(self, levels: Sequence[float], ease: float, widen=None):
        """Canvas points of the trunk's two sides (image left, image right), each (n, 2)."""
        sections = [self._skeleton.torso_section(level) for level in levels]
        centres = np.stack([s.centre for s in sections])
        tangents = np.gradient(centres[:, :2], axis=0)
        tangents /= np.maximum(np.hypot(tangents[:, 0], tangents[:, 1]), 1e-6)[:, None]
        if levels[0] > levels[-1]:
            tangents = -tangents
        across = np.column_stack([tangents[:, 1], -tangents[:, 0], np.zeros(len(levels))])
        widths = np.array([s.half_width(a) for s, a in zip(sections, across, strict=True)]) * ease
        if widen is not None:
            widths = widths * widen
        offsets = across * widths[:, None]
        return self._at(centres - offsets), self._at(centres + offsets)

    def _trunk_outline(self, levels: Sequence[float], ease: float = 1.0, widen=None) -> Outline:
        left, right = self._sides(levels, ease, widen)
        return np.concatenate([smooth_curve(left), smooth_curve(right)[::-1]])

    def _front_point(self, level: float, lateral: float, ease: float = 1.0) -> np.ndarray:
        """Return a point of the trunk's front in the camera frame; lateral -1 (right) .. 1
        (left).
        """
        section = self._skeleton.torso_section(level)
        depth = np.sqrt(max(1 - lateral * lateral, 0))
        return section.centre + ease * (lateral * section.lateral + depth * section.forward)

    def _front_curve(self, points: Sequence[tuple[float, float]], ease: float = 1.0) -> np.ndarray:
        return np.stack([self._at(self._front_point(t, x, ease)) for t, x in points])

    def _trunk_paint(self, fabric: Fabric) -> Paint:
        return self._fabric(fabric, self._skeleton.neck, self._skeleton.torso_section(0).centre)

    def _draw_trunk(self) -> None:
        skeleton = self._skeleton
        throat = skeleton.head_centre - skeleton.head_rotation[:, 1] * 0.35 * self._body.head
        radius = 0.036 * self._body.girth**0.5
        neck = [
            self._disc(skeleton.neck, radius),
            self._bone(skeleton.neck, throat, (radius * 1.1, radius, radius)),
        ]
        trunk = self._trunk_outline((-0.1, 0.1, 0.25, 0.42, 0.62, 0.8, 0.92, 0.985, 1.05))
        self._fill([trunk, *neck], self._skin, Part.TORSO_SKIN)
        if self._front > 0.2 and self._outfit.top.hem > 0.35:
            navel = self._front_curve([(0.3, 0.0), (0.27, 0.0)])
            self._crease([navel], Part.TORSO_SKIN, shaded(self._body.skin, 0.6))

    def _draw_top(self) -> None:
        outfit, top = self._outfit, self._outfit.top
        part = Part.DRESS if outfit.is_dress else Part.UPPER_CLOTHES
        paint = self._trunk_paint(top.fabric)
        hem = top.hem
        levels = np.array(
            [hem, *[t for t in (0.12, 0.3, 0.45, 0.62) if t > hem + 0.06], 0.78, 0.9, 0.975]
        )
        widen = np.ones(len(levels))
        if top.sleeves == 0:
            widen[-2:] = 0.84
        widen[0] *= 1.03
        outline = self._trunk_outline(levels, top.looseness, widen)
        self._fill([outline], paint, part, shadow=0.3)

        if self._front > 0.12:
            bottom = 1 - top.neckline
            round_bottom = [(bottom + 0.1 * top.neckline, x) for x in (0.3, -0.3)]
            round_bottom.insert(1, (bottom, 0.0))
            edge = [(1.03, 0.95), (0.985, 0.8)]
            edge += [(bottom, 0.0)] if top.v_neck else round_bottom
            edge += [(0.985, -0.8), (1.03, -0.95)]
            curve = self._front_curve(edge)
            if not top.v_neck:
                curve = smooth_curve(curve)
            collar = shaded(top.fabric.accent, 0.9)
            self._fill([curve], self._skin, Part.TORSO_SKIN, shadow=0.0)
            self._crease([curve], part, collar, 0.006)
        if self._front > 0.15 and top.buttons:
            rows = np.linspace(max(top.hem, 0.05) + 0.05, 0.95 - top.neckline, 6)
            line = self._front_curve([(level, 0.0) for level in rows], 1.04)
            self._crease([line], part, shaded(top.fabric.base, 0.6), 0.003)
            buttons = [disc(point, 0.007 * self._scale) for point in line]
            self._canvas.decorate(buttons, shaded(top.fabric.accent, 1.3), part)
        if self._front > 0.2:
            folds = []
            for _ in range(3):
                level, x = self._rng.uniform(max(hem, 0.1), 0.6), self._rng.uniform(-0.8, 0.8)
                fold = [(level, x), (level + 0.05, 0.7 * x), (level + 0.07, 0.4 * x)]
                folds.append(self._front_curve(fold))
            self._crease(folds, part, shaded(top.fabric.base, 0.78), 0.0025)
            if self._accessories.tie is not None:
                self._draw_tie(self._accessories.tie, part)

    def _draw_tie(self, colour: Colour, part: Part) -> None:
        knot = [(1.0, 0.13), (0.93, 0.08), (0.93, -0.08), (1.0, -0.13)]
        blade = [(0.93, 0.07), (0.45, 0.19), (0.36, 0.0), (0.45, -0.19), (0.93, -0.07)]
        for outline, shade in ((blade, 1.0), (knot, 0.8)):
            curve = self._front_curve(outline, 1.04)
            self._fill([curve], shaded(colour, shade), part, detail=Detail.TIE, relief=2)

    def _draw_backpack(self) -> None:
        outlines = []
        for level in (0.25, 0.95):
            section = self._skeleton.torso_section(level)
            for depth in (1.0, 2.1):
                behind = section.centre - depth * section.forward
                outlines += [self._disc(behind + s * 0.8 * section.lateral, 0.03) for s in Side]
        paint = self._accessories.backpack
        self._fill([hull(outlines)], paint, Part.BACKGROUND, detail=Detail.BACKPACK)

    def _draw_backpack_straps(self) -> None:
        colour = shaded(self._accessories.backpack, 0.75)
        for side in Side:
            points = [
                (1.0, 0.66 * side),
                (0.85, 0.62 * side),
                (0.65, 0.72 * side),
                (0.5, 0.95 * side),
            ]
            line = smooth_curve(self._front_curve(points, 1.08))
            strap = ribbon(line, np.full(len(line), 0.014 * self._scale))
            self._fill([strap], colour, Part.BACKGROUND, detail=Detail.BACKPACK, relief=2)

    def _leg_points(self, length: float) -> list[np.ndarray]:
        """Points of both legs at some length (1: knee, 2: ankle)."""
        return [
            leg.hip + length * (leg.knee - leg.hip)
            if length <= 1
            else leg.knee + (length - 1) * (leg.ankle - leg.knee)
            for leg in self._skeleton.legs.values()
        ]

    def _hem(self, length: float, radius: float) -> list[Outline]:
        """Outlines of the lower end of cloth that hangs around both legs."""
        legs = self._skeleton.legs.values()
        axes = [leg.knee - leg.hip if length <= 1 else leg.ankle - leg.knee for leg in legs]
        # A hem hangs: it leans less than the leg does.
        down = -0.12 * self._skeleton.view[:, 1]
        return [
            self._opening(point, axis + (0 if self._skeleton.pose.seated else down), radius)
            for point, axis in zip(self._leg_points(length), axes, strict=True)
        ]

    def _hanging_cloth(self, rise: float, length: float, flare: float, ease: float) -> Outline:
        """Outline of cloth that hangs from the waist around both legs."""
        pieces = list(self._sides((0.0, 0.5 * rise, rise), ease))
        thickness = self._thickness * ease
        for stop in (0.5 * min(length, 1.0), min(0.9 * length, 1.0)):
            pieces += [self._disc(p, 0.055 * thickness) for p in self._leg_points(stop)]
        pieces += self._hem(length, (0.056 + 0.05 * (flare - 1)) * thickness)
        return hull(pieces)

    def _draw_pelvis(self) -> None:
        outfit = self._outfit
        if outfit.skirt is not None:
            skirt = outfit.skirt
            part = Part.DRESS if outfit.is_dress else Part.SKIRT
            ease = outfit.top.looseness if outfit.is_dress else 1.05
            outline = self._hanging_cloth(skirt.rise, skirt.length, skirt.flare, ease)
            self._fill([outline], self._trunk_paint(skirt.fabric), part)
            self._draw_folds(skirt, part)
            belt = self._trunk_outline((skirt.rise - 0.035, skirt.rise + 0.035), ease)
            self._fill([belt], shaded(skirt.fabric.accent, 0.85), part, relief=3)
        else:
            pants = outfit.pants
            outline = self._trunk_outline((-0.15, -0.05, 0.08, pants.rise), 1.05)
            discs = [
                self._disc(leg.hip, 0.056 * self._thickness) for leg in self._skeleton.legs.values()
            ]
            self._fill([outline, *discs], self._trunk_paint(pants.fabric), Part.PANTS, shadow=0.15)
            tone = shaded(pants.fabric.base, 0.65)
            if self._front > 0.2:
                fly = self._front_curve([(pants.rise - 0.03, 0.0), (0.0, 0.0), (-0.1, 0.0)])
                self._crease([fly], Part.PANTS, tone, 0.003)
            if pants.belt is not None:
                belt = self._trunk_outline((pants.rise - 0.08, pants.rise), 1.06)
                self._fill([belt], pants.belt, Part.PANTS, detail=Detail.BELT, relief=2)
                if self._front > 0.2:
                    buckle = self._front_curve(
                        [
                            (pants.rise - t, x)
                            for t, x in ((0, 0.15), (0, -0.15), (0.08, -0.15), (0.08, 0.15))
                        ]
                    )
                    self._canvas.decorate([buckle], (214, 190, 110), Part.PANTS)

    def _draw_folds(self, skirt: Skirt, part: Part) -> None:
        """Lines that fan out from a skirt's waist to its hem."""
        hem = np.concatenate(self._hem(skirt.length, 0.05 * skirt.flare * self._thickness))
        left, right = hem[hem[:, 0].argmin()], hem[hem[:, 0].argmax()]
        waist = self._sides((skirt.rise - 0.01, skirt.rise), 0.9)
        folds = []
        for share in np.linspace(0.1, 0.9, 6) + self._rng.uniform(-0.05, 0.05, 6):
            top = waist[0][-1] + share * (waist[1][-1] - waist[0][-1])
            end = left + share * (right - left)
            start = self._rng.uniform(0.3, 0.65)
            folds.append(np.stack([top + start * (end - top), end]))
        self._crease(folds, part, shaded(skirt.fabric.base, 0.74), 0.0025)

    def _draw_coat(self) -> None:
        coat = self._outfit.coat
        skeleton = self._skeleton
        length = min(coat.length, 0.12) if skeleton.pose.seated else coat.length
        ease = self._outfit.top.looseness * 1.1
        outlines = [self._trunk_outline((-0.12, 0.1, 0.3, 0.5, 0.7, 0.86, 0.935, 0.99), ease)]
        if length > 0:
            outlines.append(self._hanging_cloth(0.3, length, 1.25, ease))
        opening = self._coat_opening(coat.opening, ease)
        self._fill(
            outlines,
            self._trunk_paint(coat.fabric),
            Part.COAT,
            holes=[] if opening is None else [opening],
        )
        if opening is None:
            seam = self._at(np.stack([skeleton.torso_section(t).centre for t in (0.9, 0.5, 0.0)]))
            self._crease([seam], Part.COAT, shaded(coat.fabric.base, 0.7), 0.003)
            return
        if self._front > 0.15:
            lapel = shaded(coat.fabric.base, 0.78)
            for side in Side:
                x = side * coat.opening
                points = [
                    (1.0, 0.6 * side),
                    (0.86, 0.5 * side + x),
                    (0.7, 0.32 * side + x),
                    (0.48, x),
                ]
                points += [(0.75, 0.7 * x)]
                points = [(t, float(np.clip(u, -0.95, 0.95))) for t, u in points]
                self._canvas.decorate([self._front_curve(points, ease)], lapel, Part.COAT)

    def _coat_opening(self, half_width: float, ease: float) -> Outline | None:
        """Outline of the gap between a coat's two fronts; None where it is out of sight."""
        levels = np.linspace(1.05, 0.0, 7)
        widths = half_width * np.array([0.9, 0.85, 0.8, 0.85, 0.95, 1.05, 1.1])
        middle = self._skeleton.torso_section(0.6)
        edges = []
        for sign in (-1, 1):
            x = sign * half_width
            normal = x * middle.lateral / (middle.lateral @ middle.lateral)
            normal = normal + np.sqrt(1 - x * x) * middle.forward / (
                middle.forward @ middle.forward
            )
            if normal[2] > 0:
                edges.append(
                    self._front_curve(
                        [
                            (t, float(np.clip(sign * w, -1, 1)))
                            for t, w in zip(levels, widths, strict=True)
                        ],
                        ease,
                    )
                )
            else:
                edges.append(None)
        if edges[0] is None and edges[1] is None:
            return None
        if edges[0] is None or edges[1] is None:
            # The other front is out of sight: the gap runs to the outline on the front's side.
            seen = edges[0] if edges[1] is None else edges[1]
            beyond = 0.2 * self._scale * np.sign(middle.forward[0])
            other = seen + np.array([beyond, 0.0])
            edges = [seen, other]
        down = self._at(np.mean(self._leg_points(1.0), axis=0)) - self._at(
            self._skeleton.torso_section(0).centre
        )
        spread = 0.35 * (edges[1][-1] - edges[0][-1])
        ends = [edges[0][-1] + 1.5 * down - spread, edges[1][-1] + 1.5 * down + spread]
        return np.concatenate([edges[0], ends, edges[1][::-1]])

    def _draw_scarf(self) -> None:
        scarf, skeleton = self._outfit.scarf, self._skeleton
        chest = skeleton.chest_rotation
        base = skeleton.neck + chest[:, 1] * 0.008
        angles = np.linspace(0, 2 * np.pi, 16, endpoint=False)
        ring = (
            base
            + 0.048 * np.cos(angles)[:, None] * chest[:, 0]
            + 0.046 * np.sin(angles)[:, None] * chest[:, 2]
            - 0.016 * np.sin(angles)[:, None] * chest[:, 1]
        )
        paint = self._trunk_paint(scarf.fabric)
        if self._front > 0.05 and scarf.tail > 0:
            x = scarf.tail_side
            top = 0.97
            low = top - scarf.tail / skeleton.torso_length
            tail = [
                self._front_point(t, x * s, 1.15)
                for t, s in ((top, 0.5), (0.5 * (top + low), 0.8), (low, 1.0))
            ]
            points = self._at(np.stack(tail))
            radius = np.array([0.026, 0.032, 0.036]) * self._scale
            self._fill([ribbon(points, radius)], paint, Part.SCARF)
        elif scarf.tail > 0:
            tail = [
                skeleton.torso_section(t).centre - 1.1 * skeleton.torso_section(t).forward
                for t in (0.97, 0.8, 0.62)
            ]
            radius = np.array([0.026, 0.03, 0.034]) * self._scale
            self._fill([ribbon(self._at(np.stack(tail)), radius)], paint, Part.SCARF)
        wrap = hull([self._disc(p, 0.023) for p in ring])
        self._fill([wrap], paint, Part.SCARF, shadow=0.5)
        tone = shaded(scarf.fabric.base, 0.68)
        front = ring[np.argsort(-ring[:, 2])[:7]]
        front = front[np.argsort(front[:, 0])]
        folds = [self._at(front + (0, lift, 0)) for lift in (0.008, -0.012)]
        self._crease(folds, Part.SCARF, tone, 0.003)

    # Limbs

    def _draw_arm(self, side: Side) -> None:
        outfit, arm = self._outfit, self._skeleton.arms[side]
        upper = np.array(_UPPER_ARM) * self._thickness
        lower = np.array(_FOREARM) * self._thickness
        hangs = arm.wrist[1] < arm.elbow[1]
        if self._accessories.held_item is not None and side is Side.RIGHT and hangs:
            self._draw_held_item(arm)
        skin = [
            self._disc(arm.shoulder, upper[0]),
            self._bone(arm.shoulder, arm.elbow, upper),
            self._disc(arm.elbow, upper[-1]),
            self._bone(arm.elbow, arm.wrist, lower),
        ]
        hand = self._hand(arm, side, 1.0)
        self._fill([*skin, *hand], self._skin, side.arm)
        self._canvas.mark(hand, side.arm, Detail.HAND)
        if outfit.gloves is None:
            self._draw_fingers(arm, side)
        if outfit.handbag is not None and side is Side.LEFT and hangs:
            self._draw_handbag(arm)

        joints = (arm.shoulder, arm.elbow, arm.wrist)
        radii = (upper, lower)
        if outfit.top.sleeves > 0:
            part = Part.DRESS if outfit.is_dress else Part.UPPER_CLOTHES
            paint = self._fabric(outfit.top.fabric, arm.shoulder, arm.elbow)
            sleeve = self._sleeve(joints, radii, 2 * outfit.top.sleeves * 0.97, 1.18)
            self._fill(sleeve, paint, part)
        if outfit.coat is not None:
            paint = self._fabric(outfit.coat.fabric, arm.shoulder, arm.elbow)
            self._fill(self._sleeve(joints, radii, 1.93, 1.34), paint, Part.COAT)
        if outfit.gloves is not None:
            cuff = self._bone(
                arm.wrist + 0.3 * (arm.elbow - arm.wrist), arm.wrist, lower[[1, 2, 3]] * 1.3
            )
            paint = self._fabric(outfit.gloves, arm.elbow, arm.wrist)
            self._fill([cuff, *self._hand(arm, side, 1.3)], paint, Part.GLOVE)
        self._draw_wrist_wear(arm, side, lower[-1])

    def _draw_wrist_wear(self, arm: Arm, side: Side, radius: float) -> None:
        watch = side is Side.LEFT
        colour = self._accessories.watch if watch else self._accessories.wristband
        if colour is None:
            return
        start, end = (arm.wrist + share * (arm.elbow - arm.wrist) for share in (0.18, 0.04))
        outlines = [self._bone(start, end, np.full(2, 1.25 * radius))]
        if watch:
            outlines.append(self._disc(0.5 * (start + end), 0.016))
        detail = Detail.WATCH if watch else Detail.WRISTBAND
        self._fill(outlines, colour, side.arm, detail=detail, relief=2)

    def _draw_held_item(self, arm: Arm) -> None:
        item, colour = self._accessories.held_item, self._accessories.held_colour
        grip = arm.wrist + 0.6 * (arm.fingertips - arm.wrist)
        for discs, shade in item.pieces:
            outline = hull([self._disc(grip + (x, y, 0), radius) for x, y, radius in discs])
            self._fill([outline], shaded(colour, shade), Part.BACKGROUND, detail=item.detail)

    def _hand(self, arm: Arm, side: Side, size: float) -> list[Outline]:
        along = arm.fingertips - arm.wrist
        radius = size * self._skeleton.limb_scale
        palm = hull(
            [
                self._disc(arm.wrist, 0.021 * radius),
                self._disc(arm.wrist + 0.42 * along, 0.03 * radius),
                self._disc(arm.wrist + (0.62 + 0.2 * size) * along, 0.018 * radius),
            ]
        )
        start, end = self._thumb(arm, side)
        return [
            palm,
            hull(
                [disc(start, 0.012 * radius * self._scale), disc(end, 0.009 * radius * self._scale)]
            ),
        ]

    def _thumb(self, arm: Arm, side: Side) -> tuple[np.ndarray, np.ndarray]:
        along = arm.fingertips - arm.wrist
        # Thumbs point forward when the arms hang, and inwards when they are seen from the front.
        inward = self._skeleton.view @ np.array([-0.8 * side, 0.0, 0.6])
        inward -= (inward @ along) * along / (along @ along)
        inward /= max(np.linalg.norm(inward), 1e-6)
        start = self._at(arm.wrist + 0.25 * along + 0.012 * inward)
        return start, self._at(arm.wrist + 0.55 * along + 0.032 * inward)

    def _draw_fingers(self, arm: Arm, side: Side) -> None:
        along = arm.fingertips - arm.wrist
        start, end = self._at(arm.wrist + 0.6 * along), self._at(arm.fingertips)
        normal = np.array([-(end - start)[1], (end - start)[0]])
        length = np.hypot(*normal)
        if length < 1:
            return
        normal *= 0.006 * self._scale / length
        gaps = [np.stack([start + k * normal, end + k * normal]) for k in (-1, 0, 1)]
        self._crease(gaps, side.arm, shaded(self._body.skin, 0.72), 0.0015)

    def _draw_handbag(self, arm: Arm) -> None:
        grip = arm.wrist + 0.6 * (arm.fingertips - arm.wrist)
        down = np.array([0.0, -1.0, 0.0])
        colour = self._outfit.handbag
        corners = [
            grip + 0.07 * down + (x, y, 0)
            for x, y in ((-0.055, 0), (0.055, 0), (0.07, -0.1), (-0.07, -0.1))
        ]
        strap = [self._bone(grip, c, (0.005, 0.005)) for c in corners[:2]]
        bag = hull([self._disc(c, 0.012) for c in corners])
        detail = Detail.HANDBAG
        self._fill(strap, shaded(colour, 0.7), Part.BACKGROUND, detail=detail, relief=1)
        self._fill([bag], colour, Part.BACKGROUND, detail=detail)

    def _draw_legs(self) -> None:
        legs = self._skeleton.legs
        for side in sorted(Side, key=lambda s: legs[s].knee[2] + legs[s].ankle[2]):
            self._draw_leg(legs[side], side)

    def _draw_leg(self, leg: Leg, side: Side) -> None:
        outfit = self._outfit
        upper = np.array(_THIGH) * self._thickness
        lower = np.array(_SHIN) * self._thickness
        skin = [
            self._disc(leg.hip, upper[0]),
            self._bone(leg.hip, leg.knee, upper),
            self._disc(leg.knee, upper[-1]),
            self._bone(leg.knee, leg.ankle, lower),
            self._disc(leg.ankle, lower[-1]),
        ]
        if outfit.pants is None or outfit.pants.length < 2:
            self._fill(skin, self._skin, side.leg)
        if outfit.socks is not None:
            top = leg.ankle + outfit.sock_height * (leg.knee - leg.ankle)
            stops = np.linspace(1 - outfit.sock_height, 1, 4) * 3
            radii = np.interp(stops, np.arange(4), lower) * 1.1 + 0.002
            paint = self._fabric(outfit.socks, leg.knee, leg.ankle)
            sock = [self._bone(top, leg.ankle, radii), self._disc(leg.ankle, radii[-1])]
            self._fill(sock, paint, Part.SOCKS)
        boots = outfit.shoes is ShoeStyle.BOOTS
        if not boots:
            self._draw_shoe(leg, side, lower)
        if outfit.pants is not None:
            pants = outfit.pants
            joints = (leg.hip, leg.knee, leg.ankle)
            paint = self._fabric(pants.fabric, leg.hip, leg.knee)
            cloth = self._sleeve(joints, (upper, lower), pants.length, pants.looseness)
            self._fill(cloth, paint, Part.PANTS)
            tone = shaded(pants.fabric.base, 0.74)
            if pants.length > 1.1:
                across = (
                    self._at(leg.knee)
                    + np.array([[-0.02, 0.004], [0.0, 0.008], [0.018, 0.0]]) * self._scale
                )
                self._crease([across], Part.PANTS, tone, 0.0025)
        if self._accessories.knee_pads is not None:
            ends = [leg.knee + 0.2 * (joint - leg.knee) for joint in (leg.hip, leg.ankle)]
            pad = self._bone(*ends, np.array([1.2, 1.4, 1.2]) * lower[0])
            colour = self._accessories.knee_pads
            self._fill([pad], colour, side.leg, detail=Detail.KNEE_PAD)
        if boots:
            self._draw_shoe(leg, side, lower)

    def _draw_shoe(self, leg: Leg, side: Side, shin: np.ndarray) -> None:
        outfit = self._outfit
        scale = self._skeleton.limb_scale
        up = leg.ankle - leg.heel
        up = up / max(np.linalg.norm(up), 1e-6)
        foot = leg.toe - leg.heel
        if outfit.shoes in (ShoeStyle.SANDALS, ShoeStyle.BAREFOOT):
            self._draw_bare_foot(leg, side, up)
            if outfit.shoes is ShoeStyle.SANDALS:
                self._draw_sandal(leg, side, up, shin[-1])
            return
        lift = 0.03 if outfit.shoes is ShoeStyle.HIGH_HEELS else 0.0
        shoe = [
            self._disc(leg.heel + (0.024 + lift) * up, 0.03 * scale),
            self._disc(leg.heel + 0.66 * foot + 0.024 * up, 0.036 * scale),
            self._disc(leg.heel + 0.92 * foot + 0.02 * up, 0.03 * scale),
        ]
        outlines = [hull(shoe)]
        if lift:
            outlines.append(self._bone(leg.heel + lift * up, leg.heel, (0.02, 0.009)))
        if outfit.shoes in (ShoeStyle.SNEAKERS, ShoeStyle.BOOTS):
            outlines.append(hull([shoe[0], self._disc(leg.ankle, 0.027 * scale), shoe[1]]))
        if outfit.shoes is ShoeStyle.BOOTS:
            top = leg.ankle + 0.6 * (leg.knee - leg.ankle)
            outlines.append(
                self._bone(top, leg.ankle, np.array([shin[1], shin[2], shin[3]]) * 1.25)
            )
        self._fill(outlines, outfit.shoe_colour, side.shoe)
        sole = self._sole(leg, up, lift)
        self._canvas.decorate([sole], outfit.sole_colour, side.shoe)
        if outfit.shoes is ShoeStyle.SNEAKERS:
            lace = np.array([[-0.012, 0.0], [0.012, 0.0]]) * self._scale
            laces = [self._at(leg.heel + t * foot + 0.045 * up) + lace for t in (0.42, 0.55)]
            self._crease(laces, side.shoe, outfit.sole_colour, 0.003)

    def _sole(self, leg: Leg, up: np.ndarray, lift: float = 0.0) -> Outline:
        ends = leg.heel + (lift - 0.004) * up, leg.toe - 0.004 * up
        return hull([self._disc(end, 0.012) for end in ends])

    def _draw_bare_foot(self, leg: Leg, side: Side, up: np.ndarray) -> None:
        scale, foot = self._skeleton.limb_scale, leg.toe - leg.heel
        heel = self._disc(leg.heel + 0.022 * up, 0.022 * scale)
        ball = self._disc(leg.heel + 0.7 * foot + 0.016 * up, 0.023 * scale)
        toes = self._disc(leg.heel + 0.92 * foot + 0.012 * up, 0.016 * scale)
        instep = hull([heel, self._disc(leg.ankle, 0.022 * scale), ball])
        self._fill([hull([heel, ball, toes]), instep], self._skin, side.leg, detail=Detail.FOOT)

    def _draw_sandal(self, leg: Leg, side: Side, up: np.ndarray, ankle_radius: float) -> None:
        foot, shin = leg.toe - leg.heel, leg.knee - leg.ankle
        over_toes = [leg.heel + share * foot + 0.028 * up for share in (0.55, 0.75)]
        around_ankle = [leg.ankle + share * shin for share in (0.0, 0.08)]
        straps = [
            self._bone(*over_toes, (0.026, 0.022)),
            self._bone(*around_ankle, np.full(2, 1.2 * ankle_radius)),
        ]
        self._fill([self._sole(leg, up), *straps], self._outfit.shoe_colour, side.shoe, relief=2)

    def _draw_seat(self) -> None:
        """Return a block to sit on; it is no part of the person."""
        skeleton = self._skeleton
        hips = np.mean([leg.hip for leg in skeleton.legs.values()], axis=0)
        floor = min(min(leg.heel[1], leg.toe[1]) for leg in skeleton.legs.values())
        top = hips[1] - 0.055
        corners = [
            skeleton.view @ np.array([x, 0.0, z]) + (hips[0], 0, 0)
            for x, z in ((-0.17, -0.16), (0.17, -0.16), (0.17, 0.14), (-0.17, 0.14))
        ]
        upper = [np.array([c[0], c[1] + top, 0]) for c in corners]
        lower = [np.array([c[0], c[1] + floor + 0.02, 0]) for c in corners]
        colour = tuple(self._rng.uniform(50, 200, 3))
        body = hull([self._at(np.stack(upper)), self._at(np.stack(lower))])
        self._fill([body], shaded(colour, 0.8), Part.BACKGROUND)
        self._fill([hull([self._at(np.stack(upper))])], colour, Part.BACKGROUND, relief=2)
