"""Rooms: people as jointed capsules, with named keypoints."""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, pi, sin

import numpy as np
from numpy.typing import NDArray

from edgeseg.data.rooms_look import Colour, Texture
from edgeseg.data.rooms_shapes import Ball, Capsule, Solid
from edgeseg.data.rooms_view import Floats
from edgeseg.manifest import KeypointSpec

KEYPOINTS = KeypointSpec(
    names=["head", "hips", "left_shoulder", "right_shoulder", "left_hand", "right_hand", "left_foot", "right_foot"],
    flip=[0, 1, 3, 2, 5, 4, 7, 6],
    # COCO's deviations of ears, hips, shoulders, wrists and ankles.
    sigmas=[0.035, 0.107, 0.079, 0.079, 0.062, 0.062, 0.089, 0.089],
)
Vector = NDArray[np.floating]
_SKIN: tuple[Colour, ...] = ((0.58, 0.70, 0.87), (0.45, 0.57, 0.77), (0.26, 0.37, 0.56), (0.17, 0.24, 0.38))
_HAIR: tuple[Colour, ...] = ((0.07, 0.08, 0.10), (0.12, 0.20, 0.32), (0.35, 0.5, 0.66))


@dataclass(frozen=True)
class Figure:
    """A person's solids with their textures, and keypoints (8, 3) in the world with the depth (8) of flesh around each."""

    solids: list[tuple[Solid, Texture]]
    keypoints: Floats
    flesh: Floats


def make_figure(rng: np.random.Generator, x: float, z: float, facing: float) -> Figure:
    """A person standing at (x, z).

    Args:
        facing: radians; 0 looks at the camera's side of the room (-z), pi away from it, pi/2 to the left of the picture (-x).
    """
    tall = rng.uniform(1.45, 1.9) if rng.random() < 0.75 else rng.uniform(1.0, 1.35)
    forward = np.array([-sin(facing), 0.0, -cos(facing)])
    left = np.array([cos(facing), 0.0, -sin(facing)])
    joints = _pose(rng, tall, forward, left)
    lowest = min(joints["left_foot"][1], joints["right_foot"][1]) - 0.028 * tall
    placed = {name: (point + np.array([x, -lowest, z])).astype(np.float32) for name, point in joints.items()}
    names = KEYPOINTS.names
    flesh = np.array([0.07, 0.1, 0.05, 0.05, 0.03, 0.03, 0.03, 0.03], np.float32) * tall
    return Figure(_dress(rng, placed, tall, forward), np.stack([placed[name] for name in names]), flesh)


def _pose(rng: np.random.Generator, tall: float, forward: Vector, left: Vector) -> dict[str, Vector]:
    """Joints in metres about the place where the person stands."""
    up = np.array([0.0, 1.0, 0.0])
    lean = rng.uniform(-0.08, 0.15)
    spine = up * cos(lean) + forward * sin(lean)
    joints: dict[str, Vector] = {"hips": up * 0.51 * tall}
    joints["neck"] = joints["hips"] + spine * 0.31 * tall
    joints["head"] = joints["neck"] + spine * 0.105 * tall
    pace = rng.uniform(-0.55, 0.55) if rng.random() < 0.6 else 0.0
    for name, side in (("left", 1.0), ("right", -1.0)):
        shoulder = joints["neck"] + left * side * 0.115 * tall - spine * 0.02 * tall
        hip = joints["hips"] + left * side * 0.055 * tall
        joints[f"{name}_shoulder"] = shoulder
        joints[f"{name}_elbow"], joints[f"{name}_hand"] = _arm(rng, shoulder, tall, (forward, left * side, up))
        joints[f"{name}_hip"] = hip
        swing, spread, bend = pace * side, rng.uniform(0.02, 0.22), rng.uniform(0, 0.45) * (pace * side < 0)
        out = left * side * sin(spread)
        thigh = forward * sin(swing) - up * cos(swing) + out
        shank = forward * sin(swing - bend) - up * cos(swing - bend) + out * 0.5
        joints[f"{name}_knee"] = hip + thigh * 0.245 * tall
        joints[f"{name}_foot"] = joints[f"{name}_knee"] + shank * 0.235 * tall
    return joints


def _arm(rng: np.random.Generator, shoulder: Vector, tall: float, frame: tuple[Vector, Vector, Vector]) -> tuple[Vector, Vector]:
    """Elbow and hand: hanging, spread or raised."""
    forward, out, up = frame
    kind = rng.random()
    lift = rng.uniform(0.1, 0.5) if kind < 0.5 else rng.uniform(1.1, 1.8) if kind < 0.75 else rng.uniform(2.2, 2.9)
    reach = rng.uniform(-0.3, 0.8)
    upper = out * sin(lift) - up * cos(lift) + forward * 0.5 * reach
    upper /= np.linalg.norm(upper)
    fold = rng.uniform(0, 1.2)
    lower = upper * cos(fold) + (forward if kind < 0.5 else up) * sin(fold)
    lower /= np.linalg.norm(lower)
    elbow = shoulder + upper * 0.165 * tall
    return elbow, elbow + lower * 0.165 * tall


def _dress(rng: np.random.Generator, joints: dict[str, Floats], tall: float, forward: Vector) -> list[tuple[Solid, Texture]]:
    skin = Texture(_SKIN[rng.integers(len(_SKIN))], grain=0.04)
    hair = Texture(_HAIR[rng.integers(len(_HAIR))], grain=0.2)
    shirt_colour, trousers_colour = (_cloth(rng) for _ in range(2))
    shirt = Texture(shirt_colour, _cloth(rng), "bands" if rng.random() < 0.3 else "plain", 0.14, 0.08)
    trousers, shoes = Texture(trousers_colour, grain=0.08), Texture((0.08, 0.08, 0.1), grain=0.1)
    # A light patch on the chest and the face tell front from back.
    patch = Texture((0.92, 0.94, 0.95), grain=0.03)
    ahead = forward.astype(np.float32)
    head, neck, hips = joints["head"], joints["neck"], joints["hips"]
    up = np.array([0, 1, 0], np.float32)
    chest = neck + (hips - neck) * np.float32(0.3) + ahead * np.float32(0.062 * tall)
    solids: list[tuple[Solid, Texture]] = [
        (Ball(head, 0.068 * tall, up), hair),
        (Ball(head + ahead * np.float32(0.022 * tall) - up * np.float32(0.012 * tall), 0.06 * tall, up), skin),
        (Capsule(neck - up * np.float32(0.055 * tall), hips, 0.088 * tall), shirt),
        (Ball(chest, 0.04 * tall, up), patch),
        (Capsule(joints["left_shoulder"], joints["right_shoulder"], 0.05 * tall), shirt),
    ]
    for name in ("left", "right"):
        at = {part: joints[f"{name}_{part}"] for part in ("shoulder", "elbow", "hand", "hip", "knee", "foot")}
        toe = at["foot"] + ahead * np.float32(0.06 * tall)
        solids += [
            (Capsule(at["shoulder"], at["elbow"], 0.036 * tall), shirt),
            (Capsule(at["elbow"], at["hand"], 0.029 * tall), skin),
            (Capsule(at["hip"], at["knee"], 0.053 * tall), trousers),
            (Capsule(at["knee"], at["foot"], 0.04 * tall), trousers),
            (Capsule(at["foot"], toe, 0.03 * tall), shoes),
        ]
    return solids


def _cloth(rng: np.random.Generator) -> Colour:
    level = rng.uniform(0.1, 0.75)
    b, g, r = np.clip(level + rng.normal(0, 0.18, 3), 0.04, 0.9)
    return float(b), float(g), float(r)


def random_facing(rng: np.random.Generator) -> float:
    """Mostly towards the camera, sometimes away."""
    return float(rng.normal(0, 0.7)) if rng.random() < 0.8 else float(rng.normal(pi, 0.6))
