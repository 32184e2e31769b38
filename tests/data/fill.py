"""Deterministic synthetic checkpoints and inputs.  Self-contained: Python + numpy only.

The checkpoints that belong to these references cannot be downloaded: every tensor is computed
from (seed, tensor name, shape, rule) alone.  A manifest (manifests/*.json) lists name, shape,
dtype and rule of every tensor of one checkpoint file; the SAME manifest is used for every seed.

Rules (JSON lists)
  ["n", mean, std]   mean + std * N(0,1)
  ["a", mean, std]   mean + std * |N(0,1)|      (positive: BatchNorm running_var)
  ["z", mean, std]   as "n" on x minus its mean over all axes but the first (zero-sum filters)
  ["d", mean, std, gain, k]   as "n", then gain is added to the first k elements of the diagonal of the first two
                     axes (at the centre of the kernel for convolutions): passes channels 0..k-1 through
  ["c", value]       constant, float32
  ["i", value]       constant, int64            (num_batches_tracked)
  ["keep"]           not filled: a buffer the network computes itself; optionally with a recipe,
  ["keep", "beit_rpi", h, w]  relative_position_index of a BEiT with an h x w patch grid
  ["keep", "swin_rpi", w]     relative_position_index of a Swin with window w
  ["keep", "range", n]        0, 1, ..., n-1 (reshaped)
  ["keep", "value", v]        constant v
  ["keep", "list", [v, ...]]  these values (reshaped)
  ["keep", "sincos", n, d]    AnimateDiff position table [1, n, d]: sin in even, cos in odd columns (float32)
N(0,1): numpy Generator(PCG64(int(sha256(f"{seed}:{name}")))).standard_normal(n, dtype=float32), C order.
mean + std * x is float32 arithmetic.  All values are then cast to the manifest's dtype.

Inputs of raw/*.npz:  field(seed, name, h, w) -> float32 [3, h, w], exactly representable in float16.
"""

import hashlib
import json

import numpy as np


def normal(seed, name, shape):
    """float32 standard normal array that depends only on (seed, name, shape)."""
    s = int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest(), "big")
    n = int(np.prod(shape, dtype=np.int64)) if len(shape) else 1
    return np.random.Generator(np.random.PCG64(s)).standard_normal(n, dtype=np.float32).reshape(shape)


def swin_rpi(w):
    y, x = (a.ravel() for a in np.mgrid[0:w, 0:w])
    return (y[:, None] - y[None] + w - 1) * (2 * w - 1) + (x[:, None] - x[None] + w - 1)


def beit_rpi(h, w):
    """Patch-to-patch as Swin; the last three table rows are cls->patch, patch->cls, cls->cls."""
    y, x = (a.ravel() for a in np.mgrid[0:h, 0:w])
    n = (2 * h - 1) * (2 * w - 1) + 3
    out = np.zeros((h * w + 1, h * w + 1), np.int64)
    out[1:, 1:] = (y[:, None] - y[None] + h - 1) * (2 * w - 1) + (x[:, None] - x[None] + w - 1)
    out[0, 0:] = n - 3
    out[0:, 0] = n - 2
    out[0, 0] = n - 1
    return out


def fill(seed, name, shape, rule, dtype=None):
    """One tensor.  Returns None for a bare ["keep"]."""
    shape = tuple(shape)
    k = rule[0]
    if k == "keep":
        if len(rule) == 1:
            return None
        if rule[1] == "beit_rpi":
            out = beit_rpi(rule[2], rule[3])
        elif rule[1] == "swin_rpi":
            out = swin_rpi(rule[2])
        elif rule[1] == "range":
            out = np.arange(rule[2])
        elif rule[1] == "value":
            out = np.full(shape, rule[2])
        elif rule[1] == "list":
            out = np.array(rule[2])
        elif rule[1] == "sincos":
            f = np.float32
            step = np.exp(np.arange(0, rule[3], 2, dtype=f) * f(-np.log(10000.0) / rule[3]))
            angle = np.arange(rule[2], dtype=f)[:, None] * step
            out = np.zeros((rule[2], rule[3]), f)
            out[:, 0::2], out[:, 1::2] = np.sin(angle), np.cos(angle)
        else:
            raise ValueError(rule)
        out = out.reshape(shape)
        return out.astype(dtype) if dtype else out
    if k == "i":
        return np.full(shape, int(rule[1]), np.int64)
    if k == "c":
        out = np.full(shape, rule[1], np.float32)
    else:
        x = normal(seed, name, shape)
        if k == "a":
            x = np.abs(x)
        elif k == "z":
            x = x - x.reshape(shape[0], -1).mean(1, dtype=np.float32).reshape((-1,) + (1,) * (len(shape) - 1))
        elif k not in ("n", "d"):
            raise ValueError(rule)
        out = (np.float32(rule[1]) + np.float32(rule[2]) * x).astype(np.float32)
        if k == "d":
            for i in range(rule[4]):
                out[(i, i) + tuple(n // 2 for n in shape[2:])] += np.float32(rule[3])
    return out.astype(dtype) if dtype else out


def load_manifest(path):
    with open(path) as f:
        return json.load(f)


def state_dict(manifest, seed):
    """{key: numpy array} for the whole checkpoint, in file order (bare ["keep"] tensors left out)."""
    out = {}
    for k, t in manifest["tensors"].items():
        a = fill(seed, k, t["shape"], t["rule"], t["dtype"])
        if a is not None:
            out[k] = np.asarray(a)  # 0-d stays 0-d: do not use np.ascontiguousarray on it
    return out


def _up(a, cell, h, w):
    """Bilinear enlargement of a [c, gh, gw] grid, a grid point every `cell` pixels (float32, elementwise only)."""
    f = np.float32
    y = np.arange(h)
    x = np.arange(w)
    y0 = y // cell
    x0 = x // cell
    ty = ((y % cell).astype(f) / f(cell))[None, :, None]
    tx = ((x % cell).astype(f) / f(cell))[None, None, :]
    top = a[:, y0][:, :, x0] * (f(1) - tx) + a[:, y0][:, :, x0 + 1] * tx
    bot = a[:, y0 + 1][:, :, x0] * (f(1) - tx) + a[:, y0 + 1][:, :, x0 + 1] * tx
    return top * (f(1) - ty) + bot * ty


def field(seed, name, h, w, lo=-2.0, hi=2.0):
    """Image-like input [3, h, w]: four octaves of smooth noise (cells of 96, 32, 8, 2 pixels, partly shared
    by the channels), clipped to [lo, hi] and rounded to float16 (returned as float32)."""
    f = np.float32
    out = np.zeros((3, h, w), f)
    for cell, wt in ((96, 0.7), (32, 0.5), (8, 0.3), (2, 0.1)):
        gh, gw = h // cell + 2, w // cell + 2
        grey = normal(seed, f"{name}/grey{cell}", (1, gh, gw))
        col = normal(seed, f"{name}/col{cell}", (3, gh, gw))
        out = out + f(wt) * (_up(grey, cell, h, w) * f(0.8) + _up(col, cell, h, w) * f(0.6))
    return np.clip(out, f(lo), f(hi)).astype(np.float16).astype(f)


def sha(a):
    """sha256 of the float16 bytes: compare with "input_sha256" in a raw npz's meta."""
    return hashlib.sha256(np.ascontiguousarray(a, dtype=np.float16).tobytes()).hexdigest()
