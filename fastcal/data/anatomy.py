"""Anatomy for `fastcal.data.phantom`: brains, hearts and prostates as level sets.

Every structure is a level set ``phi`` in mm, positive inside, on a grid that is finer than the
voxels across slices. Structures are painted in order, and a later one covers an earlier one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fastcal.core.arrays import Floats
from fastcal.data.fields import Millimetres, smooth_field

Body = Callable[["Grid", np.random.Generator, bool], list["Structure"]]


@dataclass(frozen=True)
class Structure:
    """A structure of one tissue."""

    tissue: str
    phi: Floats
    label: int | None = None
    """Its value in the label map; None leaves the label map as it is."""


class Grid:
    """Positions in mm from the middle of the field of view; x to the left, y to the back, z up."""

    def __init__(self, shape: tuple[int, int, int], spacing: Millimetres) -> None:
        self.shape = shape
        self.spacing = spacing
        axes = [
            (np.arange(n, dtype=np.float64) - (n - 1) / 2) * step
            for n, step in zip(shape, spacing, strict=True)
        ]
        self.x, self.y, self.z = np.meshgrid(*axes, indexing="ij", sparse=True)
        self.extent: Millimetres = (
            shape[0] * spacing[0],
            shape[1] * spacing[1],
            shape[2] * spacing[2],
        )

    def ellipsoid(self, centre: Millimetres, radii: Millimetres, *, turn: float = 0.0) -> Floats:
        """Return the level set of an ellipsoid that is turned about z by ``turn`` radians."""
        dx, dy, dz = self.x - centre[0], self.y - centre[1], self.z - centre[2]
        u = (np.cos(turn) * dx + np.sin(turn) * dy) / radii[0]
        v = (-np.sin(turn) * dx + np.cos(turn) * dy) / radii[1]
        w = dz / radii[2]
        distance: Floats = np.sqrt(u * u + v * v + w * w)
        return (1.0 - distance) * min(radii)

    def cylinder(self, centre: tuple[float, float], radii: tuple[float, float]) -> Floats:
        """Return the level set of an elliptic cylinder along z."""
        distance = np.hypot((self.x - centre[0]) / radii[0], (self.y - centre[1]) / radii[1])
        return np.broadcast_to((1.0 - distance) * min(radii), self.shape)

    def field(self, rng: np.random.Generator, correlation: float) -> Floats:
        """Draw a smooth random field on the grid; see `fastcal.data.fields.smooth_field`."""
        return smooth_field(rng, self.shape, self.spacing, correlation)


def brain(grid: Grid, rng: np.random.Generator, ood: bool) -> list[Structure]:
    """Make a skull-stripped head with a glioma: necrosis (1), edema (2) and enhancing rim (3).

    The labels are those of BraTS in the order of the paper: non-enhancing, edema, enhancing.
    """
    del ood
    size = rng.uniform(0.92, 1.05)
    radii = (0.40 * grid.extent[0] * size, 0.46 * grid.extent[1] * size, 0.62 * grid.extent[2])
    centre = (rng.normal(0, 2.0), rng.normal(0, 2.0), -0.12 * grid.extent[2])
    head = grid.ellipsoid(centre, radii) + 1.5 * grid.field(rng, 14.0)
    folds = grid.field(rng, 4.0)
    cortex = np.minimum(head, 8.0 - head + 4.5 * folds)
    sulci = np.minimum(np.minimum(head + 1.0, 11.0 - head), 3.0 * grid.field(rng, 3.5) - 3.0)
    fissure = 1.2 - np.abs(grid.x - centre[0] + 1.2 * grid.field(rng, 12.0))
    horn = 0.17 * radii[0]
    ventricles = np.maximum(
        grid.ellipsoid(
            (centre[0] - horn, centre[1], 0.0), (0.10 * radii[0], 0.30 * radii[1], 18.0)
        ),
        grid.ellipsoid(
            (centre[0] + horn, centre[1], 0.0), (0.10 * radii[0], 0.30 * radii[1], 18.0)
        ),
    ) + 1.0 * grid.field(rng, 6.0)

    radius = rng.uniform(0.17, 0.25) * grid.extent[0]
    side = rng.choice((-1.0, 1.0))
    place = (
        centre[0] + side * rng.uniform(0.35, 0.6) * radii[0],
        centre[1] + rng.uniform(-0.5, 0.5) * radii[1],
        rng.uniform(-0.2, 0.2) * grid.extent[2],
    )
    stretch = rng.uniform(0.85, 1.15)
    turn = rng.uniform(0.0, np.pi)

    def lump(share: float, wobble: float) -> Floats:
        r = share * radius
        shape = grid.ellipsoid(place, (r * stretch, r / stretch, r), turn=turn)
        return shape + wobble * r * grid.field(rng, 0.45 * r)

    edema = np.minimum(np.minimum(lump(1.0, 0.28), head - 3.0), 1.5 - ventricles)
    core = np.minimum(lump(rng.uniform(0.62, 0.76), 0.18), edema - 0.5)
    rim = rng.uniform(3.0, 6.0)
    necrosis = np.minimum(core - rim, lump(0.65, 0.2))
    return [
        Structure("white matter", head),
        Structure("grey matter", cortex),
        Structure("fluid", sulci),
        Structure("fluid", np.minimum(fissure, head)),
        Structure("fluid", ventricles),
        Structure("edema", edema, 2),
        Structure("enhancing", core, 3),
        Structure("necrosis", necrosis, 1),
    ]


def heart(grid: Grid, rng: np.random.Generator, ood: bool) -> list[Structure]:
    """Make a chest in short axis: right ventricle (1), myocardium (2), left ventricle (3).

    The labels are those of ACDC.
    """
    del ood
    width, depth, height = grid.extent
    chest = grid.cylinder((0.0, 0.0), (0.62 * width, 0.52 * depth)) + 2.0 * grid.field(rng, 25.0)
    inside = chest - rng.uniform(7.0, 12.0)
    liver_top = rng.uniform(-0.35, -0.15) * height
    liver = np.minimum(
        grid.ellipsoid(
            (-0.30 * width, 0.24 * depth, liver_top), (0.32 * width, 0.22 * depth, 45.0)
        ),
        inside - 2.0,
    )
    spine = grid.cylinder((rng.normal(-4.0, 3.0), 0.47 * depth), (15.0, 13.0))

    size = rng.uniform(0.85, 1.15)
    x0, y0 = rng.normal(6.0, 3.5), rng.normal(0.0, 3.5)
    tilt = rng.uniform(-0.10, 0.10, size=2)
    base, apex = rng.uniform(0.30, 0.38) * height, -rng.uniform(0.34, 0.40) * height
    along = np.clip((base - grid.z) / (base - apex), -0.5, 1.2)
    taper = np.sqrt(np.clip(1.0 - np.clip(along, 0.0, None) ** 2.2, 0.0, None))
    below_base = base - grid.z

    cx, cy = x0 + tilt[0] * grid.z, y0 + tilt[1] * grid.z
    squeeze = rng.uniform(0.9, 1.1)
    radial = np.hypot((grid.x - cx) / squeeze, (grid.y - cy) * squeeze)
    cavity_radius = rng.uniform(18.0, 25.0) * size * 0.9
    wall = rng.uniform(7.5, 11.5)
    bumps = grid.field(rng, 9.0)
    cavity = np.minimum(cavity_radius * taper - radial + 0.7 * bumps, below_base)
    outer = (cavity_radius + wall) * np.sqrt(np.clip(taper, 0.0, None) + 0.02) - radial
    muscle = np.minimum(outer + 0.9 * bumps + 0.6 * grid.field(rng, 6.0), below_base)

    reach = cavity_radius + wall
    right_length = rng.uniform(0.72, 0.9)
    right_taper = np.sqrt(np.clip(1.0 - (np.clip(along, 0.0, None) / right_length) ** 2, 0.0, None))
    angle = rng.uniform(-0.45, 0.25)
    rx = cx - 0.72 * reach * np.cos(angle)
    ry = cy + 0.72 * reach * np.sin(angle)
    across = rng.uniform(0.95, 1.2) * reach
    u = np.cos(angle) * (grid.x - rx) - np.sin(angle) * (grid.y - ry)
    v = np.sin(angle) * (grid.x - rx) + np.cos(angle) * (grid.y - ry)
    crescent = right_taper * 0.8 * reach - np.hypot(u, v * 0.8 * reach / across)
    right = np.minimum(crescent + 1.5 * grid.field(rng, 10.0), np.minimum(-outer - 0.5, below_base))
    heart_fat = np.maximum(outer, crescent) + 4.0

    papillary = [
        grid.cylinder(
            (x0 + 0.55 * cavity_radius * np.cos(a), y0 + 0.55 * cavity_radius * np.sin(a)),
            (3.2 * size, 2.6 * size),
        )
        for a in rng.uniform((0.2, 2.0), (1.2, 3.0))
    ]
    trabeculae = np.minimum(right, grid.field(rng, 3.0) * 3.0 - 4.0)
    return [
        Structure("skin fat", chest),
        Structure("lung", inside),
        Structure("liver", liver),
        Structure("muscle", spine),
        Structure("heart fat", np.minimum(heart_fat, inside - 1.0)),
        Structure("blood", np.minimum(right, inside), 1),
        Structure("myocardium", trabeculae),
        Structure("myocardium", muscle, 2),
        Structure("blood", cavity, 3),
        *(Structure("myocardium", np.minimum(p, cavity - 1.5)) for p in papillary),
    ]


def prostate(grid: Grid, rng: np.random.Generator, ood: bool) -> list[Structure]:
    """Make a pelvis with a prostate (1); out of distribution, a coil inflates the rectum."""
    width, depth, _ = grid.extent
    size = rng.uniform(0.80, 1.18)
    radii = (
        24.0 * size * rng.uniform(0.92, 1.08),
        18.0 * size * rng.uniform(0.9, 1.1),
        21.0 * size,
    )
    centre = (rng.normal(0.0, 2.0), rng.normal(-1.0, 2.0), rng.normal(-1.0, 3.0))
    bladder_low = centre[2] + 0.72 * radii[2]
    wobble = grid.field(rng, 9.0)

    pelvis = grid.cylinder((0.0, 0.0), (0.66 * width, 0.60 * depth)) + 2.0 * grid.field(rng, 20.0)
    side = 0.40 * width
    walls = [
        grid.ellipsoid((sign * side, 2.0, 0.0), (9.0, 0.30 * depth, 80.0), turn=-0.25 * sign)
        + 1.5 * grid.field(rng, 7.0)
        for sign in (-1.0, 1.0)
    ]
    levator = [
        grid.ellipsoid(
            (centre[0] + sign * (radii[0] + 5.0), centre[1] + 8.0, centre[2] - 8.0),
            (3.0, 17.0, 26.0),
            turn=0.15 * sign,
        )
        + 0.8 * grid.field(rng, 6.0)
        for sign in (-1.0, 1.0)
    ]
    pubis = grid.ellipsoid((0.0, -0.50 * depth, centre[2] - 2.0), (22.0, 11.0, 18.0))
    bladder = grid.ellipsoid(
        (centre[0], centre[1] - 6.0, bladder_low + 17.0), (27.0, 21.0, 19.0)
    ) + 1.5 * grid.field(rng, 12.0)
    vesicles = np.minimum(
        grid.ellipsoid((centre[0], centre[1] + 11.0, bladder_low + 4.0), (24.0, 5.0, 8.0)),
        grid.field(rng, 3.0) * 3.0 + 1.5,
    )
    gland = grid.ellipsoid(centre, radii) + 1.5 * wobble + 0.8 * grid.field(rng, 5.0)
    gland = np.minimum(gland, 1.0 - bladder)
    back = centre[1] + radii[1]
    rectum_radius = rng.uniform(17.0, 20.0) if ood else rng.uniform(8.0, 12.5)
    rectum = grid.cylinder(
        (centre[0] + rng.normal(0.0, 2.5), back + 0.85 * rectum_radius),
        (1.15 * rectum_radius, rectum_radius),
    ) + 0.8 * grid.field(rng, 7.0)
    gland = np.minimum(gland, -rectum - 0.5)

    share = rng.uniform(0.62, 0.8)
    central = grid.ellipsoid(
        (centre[0], centre[1] - 0.22 * radii[1], centre[2] + 2.0),
        (share * radii[0], share * radii[1], 0.9 * radii[2]),
    ) + 1.0 * grid.field(rng, 5.0)
    nodules = np.minimum(central - 1.0, 2.5 * grid.field(rng, 4.0) - 1.5)
    lesion_at = rng.uniform(-0.7, 0.7) * radii[0]
    lesion = grid.ellipsoid(
        (centre[0] + lesion_at, centre[1] + 0.62 * radii[1], centre[2] + rng.normal(0.0, 6.0)),
        (5.5, 3.5, 6.0),
    ) + 0.8 * grid.field(rng, 3.0)
    return [
        Structure("fat", pelvis),
        *(Structure("muscle", wall) for wall in walls),
        Structure("bone", pubis),
        *(Structure("muscle", sling) for sling in levator),
        Structure("urine", bladder),
        Structure("vesicle", vesicles),
        Structure("muscle", rectum + 2.5),
        Structure("coil" if ood else "stool", rectum),
        Structure("capsule", gland + 1.0),
        Structure("peripheral zone", gland, 1),
        Structure("central gland", np.minimum(central, gland)),
        Structure("nodule", np.minimum(nodules, gland)),
        Structure("lesion", np.minimum(lesion, gland)),
    ]
