"""Depth looked at: false colours, a band of it as a mask, and its values for the browser."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import SettingError, SignalError
from ..signals import Depth
from ..signals.field import percentiles, slices
from .depth_field import depth_field
from .pixels import check_choice, nth_depth

# Colours at even steps from farthest to closest, linear between them. Spectral (ColorBrewer) is turned so that, as in
# turbo (Mikhailov, 2019), what is close is red.
_STOPS = {
    "turbo": "30123b 392a73 4040a2 4456c7 466be3 4680f6 4294ff 37a8fa 28bceb 1ccdd8 18ddc2 1fe9af 32f298 4ef97d 6dfe62 "
    "8bff4b a4fc3c b9f635 cdec34 dfdf37 eecf3a f8be39 fdac34 fe962b fb7e21 f46617 eb500e df3f08 d02f05 be2102 a91601 "
    "920b01 7a0403",
    "inferno": "000004 040312 0b0724 150b37 210c4a 2f0a5b 3d0965 4a0c6b 57106e 64156e 71196e 7d1e6d 8a226a 972766 "
    "a32c61 b0315b bc3754 c73e4c d24644 db503b e45a31 eb6628 f1731d f68013 f98e09 fb9d07 fcac11 fbbc21 f9cb35 "
    "f5db4c f2ea69 f3f68a fcffa4",
    "Spectral": "5e4fa2 3387bc 66c2a5 aadca4 e6f598 ffffbe fee08b fdad60 f46d43 d43d4f 9e0142",
    "grey": "000000 ffffff",
}
PALETTES: dict[str, list[str]] = {name: stops.split() for name, stops in _STOPS.items()}


def false_colour(depth: Depth, palette: str = "turbo", scope: str = "image") -> Tensor:
    """`depth` in the colours of a palette: float32 (B,H,W,3) in 0..1; black where nothing was measured.

    palette: one of `PALETTES`; its last colour is the closest pixel. scope: as in `Depth.unit_range`. Raises
    SettingError for an unknown palette.
    """
    check_choice("palette", palette, tuple(PALETTES))
    share = depth.unit_range(scope)
    stops = share.new_tensor([list(bytes.fromhex(stop)) for stop in PALETTES[palette]]) / 255
    colours = share.new_empty(*share.shape, 3)
    for at in slices(colours):
        position = share[at] * (len(stops) - 1)
        below = position.floor().clamp_(0, len(stops) - 2)
        colours[at] = torch.lerp(stops[below.long()], stops[below.long() + 1], (position - below)[..., None])
    return colours if depth.valid is None else colours.masked_fill(~depth.valid[..., None], 0.0)


def depth_band(
    depth: Depth, near: float, far: float, softness: float = 0.0, space: str = "relative", scope: str = "image"
) -> Tensor:
    """A mask (B,H,W) of what lies between near and far: 1 between them, falling to 0 over softness beside them.

    space: "relative", 0 = farthest, 1 = closest pixel (per picture or batch: `scope`); "metres" for metric depth.
    Either end may be the larger one. Raises SignalError when metres are asked of a depth that has none.
    """
    check_choice("space", space, ("relative", "metres"))
    if space == "metres" and depth.kind != "metric":
        raise SignalError(
            f"{depth.source or 'this depth'} is {depth.kind} ({depth.unit}) and has no metres: set space to relative, "
            "or give the depth metres with Fathom Convert Depth."
        )
    return depth_field(depth, "band", far, near, softness, space=space, scope=scope)  # pyright: ignore[reportArgumentType]


def depth_samples(
    depth: Depth, picture: int = 0, scope: str = "image", side: int = 512
) -> tuple[bytes, dict[str, Any]]:
    """One picture of a depth for the browser: its values, and what they mean.

    picture: which of the batch, from 0. scope: as in `Depth.unit_range`. side: the longest side that is sent; of a
    larger depth single pixels are taken, so that every value is one that is there.

    Returns float32 little-endian values by rows, NaN where not valid, and {width, height: of what is sent, full: [w,
    h], kind, unit, source, low, high: the values that are 0 and 1 in relative depth, focal: in pixels of what is sent
    or None, picture, pictures}. Raises SettingError for a picture that is not there.
    """
    if not 0 <= picture < len(depth):
        raise SettingError(f"picture must be 0 to {len(depth) - 1} for this batch of {len(depth)}, got {picture}.")
    low, high = (float(end[picture]) for end in percentiles(depth.values, (0.0, 100.0), depth.valid, scope))
    one = nth_depth(depth, picture)
    values = _sampled(one, side)
    height, width = one.values.shape[1:]
    report = {
        "width": values.shape[1],
        "height": values.shape[0],
        "full": [width, height],
        "kind": depth.kind,
        "unit": depth.unit,
        "source": depth.source,
        "low": low,
        "high": high,
        "focal": _sampled_focal(one, values.shape[1]),
        "picture": picture,
        "pictures": len(depth),
    }
    return _bytes(values), report


def film_samples(
    depth: Depth, scope: str = "image", side: int = 512, most: int = 2**26
) -> tuple[bytes, list[tuple[int, float, float, float | None]], tuple[int, int]]:
    """The pictures of a batch for the browser, one after the other, each as in `depth_samples`.

    most: bytes for all of them. They are sent smaller so that they fit, down to a fifth of `side`; of still more
    pictures some are taken, evenly. Returns the values, (place in the batch, low, high, focal) of each picture that is
    sent, and its (width, height).
    """
    height, width = depth.values.shape[1:]
    scale = min(1.0, side / max(height, width))
    room = most / (4 * height * width * scale**2 * len(depth))
    side = max(side // 5, int(side * min(1.0, room**0.5)))
    lows, highs = percentiles(depth.values, (0.0, 100.0), depth.valid, scope)
    first = _sampled(nth_depth(depth, 0), side)
    count = max(1, min(len(depth), most // (4 * first.numel())))
    parts, reports = [], []
    for index in (round(i * (len(depth) - 1) / max(1, count - 1)) for i in range(count)):
        one = nth_depth(depth, index)
        parts.append(_bytes(_sampled(one, side)))
        reports.append((index, float(lows[index]), float(highs[index]), _sampled_focal(one, first.shape[1])))
    return b"".join(parts), reports, (first.shape[1], first.shape[0])


def _sampled(one: Depth, side: int) -> Tensor:
    """Values (h,w) of one picture, NaN where not valid: single pixels, so that every value is one that is there."""
    height, width = one.values.shape[1:]
    values = one.values[0] if one.valid is None else one.values[0].masked_fill(~one.valid[0], torch.nan)
    scale = min(1.0, side / max(height, width))
    rows, columns = (_spread(n, max(1, round(n * scale)), values.device) for n in (height, width))
    return values[rows][:, columns].cpu()


def _sampled_focal(one: Depth, width: int) -> float | None:
    """The focal length across in pixels of a picture sampled to `width`."""
    if one.focal is None:
        return None
    return float(torch.as_tensor(one.focal).reshape(-1)[0]) * width / one.values.shape[2]


def _bytes(values: Tensor) -> bytes:
    return values.contiguous().numpy().astype("<f4").tobytes()


def _spread(count: int, wanted: int, device: torch.device) -> Tensor:
    """`wanted` of `count` places, the middle of even stretches."""
    return ((torch.arange(wanted, device=device) + 0.5) * count / wanted).long().clamp_(max=count - 1)
