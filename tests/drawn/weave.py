"""A texture: plain-woven cloth, its phase and stretch different in every picture."""

import numpy as np

from tests.drawn.draw import OVER, SIDE, Float, Rng, blot, grain, stroke, wander

S = SIDE * OVER


def draw(rng: Rng, defect: str | None) -> Float:
    """Cloth `[S, S, 1]`."""
    turn, period = np.deg2rad(rng.normal(0, 2.0)), 22 * rng.normal(1, 0.02, 2)
    phase, fuzz, slub = rng.uniform(0, 2, 2), grain(rng, 1.5), grain(rng, 12)
    bend = 2.5 * np.stack([grain(rng, 40), grain(rng, 40)])
    y, x = np.mgrid[:S, :S].astype(np.float32)
    u = (x * np.cos(turn) + y * np.sin(turn) + bend[0]) / period[0] + phase[0]
    v = (y * np.cos(turn) - x * np.sin(turn) + bend[1]) / period[1] + phase[1]
    where = rng.uniform(0.15, 0.85, 2) * S
    weft_up = (np.floor(u) + np.floor(v)) % 2
    gap = np.zeros((S, S), dtype=np.float32)
    if defect == "thread":  # one warp thread is missing over some length
        column = np.floor(u[int(where[1]), int(where[0])])
        gap = ((np.floor(u) == column) & (np.abs(y - where[1]) < rng.uniform(30, 110))).astype(np.float32)
    elif defect == "float":  # threads pass over several others instead of every second
        weft_up = np.where(blot(rng, where, rng.uniform(22, 44)) > 0.5, 1.0, weft_up)
    warp = np.abs(np.sin(np.pi * u)) ** 0.7 * (0.75 + 0.25 * np.abs(np.sin(np.pi * v)))
    weft = np.abs(np.sin(np.pi * v)) ** 0.7 * (0.75 + 0.25 * np.abs(np.sin(np.pi * u)))
    cloth = np.where((weft_up > 0.5) | (gap > 0), 0.66 * weft, 0.58 * warp * (1 - gap))
    cloth = cloth * (1 + 0.06 * fuzz + 0.05 * slub) + 0.06
    if defect == "hole":
        cloth = cloth * (1 - 0.85 * blot(rng, where, rng.uniform(7, 16)))
    elif defect == "stain":
        cloth = cloth * (1 - rng.uniform(0.15, 0.35) * blot(rng, where, rng.uniform(16, 50)))
    elif defect == "hair":
        cloth = cloth * (1 - 0.7 * stroke(wander(rng, where, rng.uniform(60, 200), 0.12), 2))
    return np.asarray(cloth[:, :, None], dtype=np.float32)
