"""A single object in any rotation on a plain background: a machined gear."""

import numpy as np

from tests.drawn.draw import OVER, SIDE, Float, Rng, blot, grain, stroke, wander

S = SIDE * OVER
TEETH, OUTER, ROOT, BORE = 18, 0.80, 0.68, 0.16


def draw(rng: Rng, defect: str | None) -> Float:
    """A gear `[S, S, 1]`, turned and moved at random."""
    turn, shift = rng.uniform(0, 2 * np.pi), rng.uniform(-0.05, 0.05, 2)
    tone, brushed, floor = rng.normal(0.58, 0.03), grain(rng, 1.2), grain(rng, 50)
    axis = np.linspace(-1, 1, S, dtype=np.float32)
    x, y = np.meshgrid(axis - shift[0], axis - shift[1])
    radius, angle = np.hypot(x, y), np.arctan2(y, x) - turn
    tooth = int(rng.integers(TEETH))
    phase = (angle * TEETH / (2 * np.pi)) % TEETH
    edge = ROOT + (OUTER - ROOT) * np.clip(1.6 * np.cos(2 * np.pi * phase) + 0.5, 0, 1)
    mine = np.minimum(np.abs(phase - tooth), TEETH - np.abs(phase - tooth)) < 0.5
    if defect == "tooth":
        edge = np.where(mine, ROOT, edge)
    elif defect == "chip":
        tip = OUTER * np.array(
            [np.cos(turn + 2 * np.pi * tooth / TEETH), np.sin(turn + 2 * np.pi * tooth / TEETH)]
        )
        gone = blot(rng, ((tip + shift + 1) / 2 * S).astype(np.float64), rng.uniform(0.03, 0.055) * S)
        edge = edge - 0.3 * gone
    metal = tone + 0.02 * brushed + 0.05 * np.cos(2 * np.arctan2(y, x))  # the light does not turn with it
    metal = (
        metal
        + 0.10 * np.exp(-(((radius - 0.42) / 0.02) ** 2))
        - 0.12 * np.exp(-(((radius - BORE) / 0.03) ** 2))
    )
    cover = np.clip(0.5 + (edge - radius) * S / 4, 0, 1) * np.clip(0.5 + (radius - BORE) * S / 4, 0, 1)
    for k in range(3):
        a = turn + 2 * np.pi * k / 3
        away = np.hypot(x - 0.55 * np.cos(a), y - 0.55 * np.sin(a))
        size = 0.055 if not (defect == "hole" and k == 0) else 0.0
        cover = cover * np.clip(0.5 + (away - size) * S / 4, 0, 1)
    at = turn + rng.uniform(0, 2 * np.pi)
    spot = (np.array([np.cos(at), np.sin(at)]) * rng.uniform(0.28, 0.62) + shift + 1) / 2 * S
    if defect == "scratch":
        line = stroke(wander(rng, spot, rng.uniform(40, 140), 0.05), 2)
        metal = metal + rng.choice([-0.22, 0.22]) * line
    elif defect == "rust":
        metal = metal - rng.uniform(0.10, 0.22) * blot(rng, spot, rng.uniform(10, 30)) * (
            1 + 0.3 * grain(rng, 3)
        )
    floor = 0.12 + 0.015 * floor
    return np.asarray((metal * cover + floor * (1 - cover))[:, :, None], dtype=np.float32)
