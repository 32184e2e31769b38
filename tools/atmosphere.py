"""Air and light between the viewer and the scene: fog, halo, blends and bands by depth. All of it in linear light."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from ..annotator.pictures import as_pixels
from ..errors import SettingError
from ..signals import Depth
from ..signals.field import Scope
from .depth_field import depth_field
from .pixels import (
    Colour,
    check_choice,
    check_range,
    colour,
    each_picture,
    match_depth,
    match_mask,
    match_pixels,
    nth,
    nth_depth,
    to_linear,
    to_srgb,
    together,
)

Spacing = Literal["distance", "area"]

_FIELD_OF_VIEW = 60.0  # degrees across, where a depth has no focal length
_FARTHEST = 1e30
_GREY = (0.2126, 0.7152, 0.0722)  # Rec. 709 luminance of linear light


def distance(depth: Depth, scope: Scope = "image") -> Tensor:
    """How far each pixel is: float32 (B,H,W). Metres for a metric depth; otherwise 0 = closest to 1 = farthest, linear
    in the values."""
    if depth.kind == "metric":
        return depth.metres()
    return 1 - depth.unit_range(scope)


# ---------------------------------------------------------------------------------------------- fog


def fog(
    image: Any,
    depth: Depth,
    density: float = 1.0,
    colour_of_fog: Colour = "#c8d2dc",
    height_falloff: float = 0.0,
    horizon: float = 0.5,
    scope: Scope = "image",
) -> tuple[Tensor, Tensor]:
    """A picture seen through fog: (IMAGE (B,H,W,3), amount of fog as MASK (B,H,W)).

    Light that survives distance z is exp(-density * z), the rest has the fog's colour (Beer-Lambert). density:
    extinction per metre of a metric depth (`to_metric` makes one); for any other, over the whole range from the closest
    to the farthest pixel (see `distance`). Where a metric depth has a focal length, light goes along the ray of its
    pixel, which is longer towards the corners than the distance along the optical axis. height_falloff: the fog thins
    out with height by exp(-falloff * height), its density being that at the camera; 0 = the same everywhere. The height
    follows from the focal length (60 degrees across where it is unknown) and `horizon`, the row of the horizon as a
    share of the height from the top. Below the camera the fog grows denser. Pixels whose depth is not valid stay as
    they are.

    Source of the integral over height: https://iquilezles.org/articles/fog/
    """
    check_range("density", density, 0, 1e6)
    check_range("height_falloff", height_falloff, 0, 1e6)
    check_range("horizon", horizon, -10, 10)
    pixels = as_pixels(image)
    depth = match_depth(depth, pixels)
    count = together(image=len(pixels), depth=len(depth))
    air = to_linear(pixels.new_tensor(colour(colour_of_fog)))[:, None, None]
    far_off = distance(depth, scope)
    picture = pixels.new_empty(count, *pixels.shape[-2:], 3)
    amount = pixels.new_empty(count, *pixels.shape[-2:])
    for i in each_picture(count, "Fog"):
        here = nth_depth(depth, i)
        path = nth(far_off, i)[0]
        if here.kind == "metric" and here.focal is not None:
            path = path * _slant(here)
        path = path.clamp(max=_FARTHEST)
        if height_falloff:
            path = _through_layers(path, here, height_falloff, horizon)
        thick = -torch.expm1(-density * path) if density else torch.zeros_like(path)
        if here.valid is not None:
            thick = thick.masked_fill(~here.valid[0], 0.0)
        light = torch.lerp(to_linear(nth(pixels, i)[0]), air, thick)
        picture[i] = to_srgb(light).permute(1, 2, 0)
        amount[i] = thick
    return picture, amount


def _slant(depth: Depth) -> Tensor:
    """How much longer than its distance along the optical axis the ray of each pixel is: (H,W), at least 1."""
    camera = depth.camera()
    assert camera is not None  # noqa: S101 - for the type checker; asked for where there is a focal length
    height, width = depth.values.shape[1:]
    fx, fy, cx, cy = camera[0]
    x = (torch.arange(width, device=depth.values.device) - cx) / fx
    y = (torch.arange(height, device=depth.values.device) - cy) / fy
    return (1 + x.square() + y.square()[:, None]).sqrt()


def _through_layers(path: Tensor, depth: Depth, falloff: float, horizon: float) -> Tensor:
    """The way through even fog that absorbs as much as `path` (H,W) through fog that thins out with height."""
    height, width = path.shape
    camera = depth.camera()
    lens = width / 2 / math.tan(math.radians(_FIELD_OF_VIEW / 2)) if camera is None else float(camera[0, 1])
    rows = torch.arange(height, device=path.device, dtype=path.dtype) + 0.5
    climb = falloff * ((horizon * height - rows) / lens)[:, None]  # per unit of distance
    if camera is not None and depth.kind == "metric":
        climb = climb / _slant(depth)  # per unit of the ray
    # Going up, the integral of exp(-climb * t) over 0..path is (1 - exp(-climb * path)) / climb.
    steep = climb * path
    level = steep.abs() < 1e-3
    bent = -torch.expm1(-steep) / torch.where(climb.abs() < 1e-30, torch.ones_like(climb), climb)
    return torch.where(level, path * (1 - steep / 2), bent).clamp(0, _FARTHEST)


# ---------------------------------------------------------------------------------------------- blend


def blend_by_depth(
    near_image: Any, far_image: Any, depth: Depth | None = None, field: Tensor | None = None, linear: bool = True
) -> Tensor:
    """`near_image` where it is close and `far_image` where it is far: IMAGE (B,H,W,3) at the size of `near_image`.

    field: MASK, 1 = near_image, such as `depth_field` gives; None = how close each pixel of `depth` is, 0..1. linear:
    blend light, as lenses do; False blends the stored values, as layers in paint programs do. The other picture and a
    field of another size are resized. Raises SettingError when neither depth nor field is given.
    """
    if (depth is None) == (field is None):
        raise SettingError("give either depth or field: one of them says what is near.")
    close = as_pixels(near_image)
    away = match_pixels(as_pixels(far_image), close)
    if field is None:
        assert depth is not None  # noqa: S101 - for the type checker; tested above
        weight = match_depth(depth, close).unit_range()
    else:
        weight = match_mask(field, *_size(close), close.device)
    count = together(near_image=len(close), far_image=len(away), field=len(weight))
    picture = close.new_empty(count, *close.shape[-2:], 3)
    for i in each_picture(count, "Blend by depth"):
        a, b, w = nth(close, i)[0], nth(away, i)[0], nth(weight, i)[0]
        mixed = to_srgb(torch.lerp(to_linear(b), to_linear(a), w)) if linear else torch.lerp(b, a, w)
        # Where one picture has all the weight it comes through as it is, to the last bit.
        mixed = torch.where(w == 1, a, torch.where(w == 0, b, mixed))
        picture[i] = mixed.permute(1, 2, 0)
    return picture


# ---------------------------------------------------------------------------------------------- halo


def dream_halo(
    image: Any,
    depth: Depth,
    strength: float = 0.8,
    radius: float = 3.0,
    threshold: float = 0.4,
    subject: float = 0.7,
    tint: Colour = "#ffffff",
    scope: Scope = "image",
) -> Tensor:
    """A glow of the bright parts that grows with the distance behind the subject: IMAGE (B,H,W,3).

    strength: how much light the glow adds at the farthest pixel. radius: how wide it spreads there, percent of the
    picture's longer side; closer it is narrower. threshold: the light (linear, 0..1) from which a pixel glows.
    subject: relative depth, 0 = farthest and 1 = closest, from which the picture stays as it is, as it does where the
    depth is not valid.
    """
    check_range("strength", strength, 0, 10)
    check_range("radius", radius, 0, 25)
    check_range("threshold", threshold, 0, 1)
    check_range("subject", subject, 0, 1)
    pixels = as_pixels(image)
    depth = match_depth(depth, pixels)
    count = together(image=len(pixels), depth=len(depth))
    shine = to_linear(pixels.new_tensor(colour(tint)))[:, None, None]
    behind = depth_field(depth, "ramp", subject, 0.0 if subject else -1.0, easing="smoothstep", scope=scope)
    sigma = radius / 100 * max(pixels.shape[-2:]) / 2
    picture = pixels.new_empty(count, *pixels.shape[-2:], 3)
    for i in each_picture(count, "Dream halo"):
        light = to_linear(nth(pixels, i)[0])
        weight = nth(behind, i)[0]
        bright = (_luminance(light) - threshold).clamp_min(0) / max(1 - threshold, 1e-6)
        glow = torch.zeros_like(light)
        # From a narrow glow just behind the subject to a wide one far away.
        source = light * bright
        for index, share in enumerate((0.25, 0.5, 1.0)):
            near_this = (1 - (weight * 2 - index).abs()).clamp_min(0)
            glow += gaussian(source, sigma * share) * near_this
        glow = (glow * shine * (strength * weight)).clamp_max(1)
        lit = to_srgb(1 - (1 - light) * (1 - glow))
        picture[i] = torch.where(weight > 0, lit, nth(pixels, i)[0]).permute(1, 2, 0)
    return picture


def gaussian(planes: Tensor, sigma: float) -> Tensor:
    """Planes (C,H,W) blurred by a Gaussian of `sigma` pixels; the border repeats. Wide blurs work on a smaller copy."""
    if sigma < 0.1:
        return planes
    height, width = planes.shape[-2:]
    shrink = min(int(sigma / 4), height, width)
    if shrink > 1:
        # Whole squares, so that every pixel counts once.
        even = F.pad(planes[None], (0, -width % shrink, 0, -height % shrink), mode="replicate")
        spread = gaussian(F.avg_pool2d(even, shrink)[0], sigma / shrink)
        return F.interpolate(spread[None], scale_factor=shrink, mode="bilinear")[0, :, :height, :width]
    reach = max(1, math.ceil(3 * sigma))
    at = torch.arange(-reach, reach + 1, device=planes.device, dtype=planes.dtype)
    kernel = torch.exp(-0.5 * (at / sigma) ** 2)
    kernel = (kernel / kernel.sum())[None, None]
    rows = F.pad(planes[:, None], (reach, reach, 0, 0), mode="replicate")
    rows = F.conv2d(rows, kernel[:, :, None, :])
    columns = F.pad(rows, (0, 0, reach, reach), mode="replicate")
    return F.conv2d(columns, kernel[:, :, :, None])[:, 0]


# ---------------------------------------------------------------------------------------------- bands

TREATMENTS = {
    "keep": "as it is",
    "flat": "one colour: flat #rrggbb",
    "tint": "towards a colour: tint #rrggbb 0.5",
    "grey": "without colour: grey, or grey 0.5",
    "brightness": "light times a factor: brightness 0.5",
    "posterise": "few levels: posterise 4",
    "blur": "Gaussian of so many pixels: blur 8",
    "pixelate": "squares of so many pixels: pixelate 16",
    "negative": "inverted",
}


def band_style(
    image: Any,
    depth: Depth,
    styles: str = "keep\nposterise 5\ngrey",
    softness: float = 0.0,
    spacing: Spacing = "distance",
    scope: Scope = "image",
) -> tuple[Tensor, Tensor]:
    """Bands of depth, each with its own look: (IMAGE (B,H,W,3), the band of each pixel as MASK (B,H,W), near = 1).

    styles: one line per band, from near to far; see TREATMENTS. Treatments joined by + follow each other: "blur 4 +
    grey". softness: how far neighbouring bands blend, as a share of a band, 0..1. spacing: "distance" = bands of equal
    depth, "area" = of equally many pixels. Pixels that are not valid belong to the farthest band. Raises SettingError
    for a style that does not exist or misses its number.
    """
    check_range("softness", softness, 0, 1)
    check_choice("spacing", spacing, get_args(Spacing))
    bands = [[_treatment(step) for step in line.split("+")] for line in styles.splitlines() if line.strip()]
    if not bands:
        raise SettingError(f"no band was described: write one line per band. Styles: {_styles()}.")
    pixels = as_pixels(image)
    depth = match_depth(depth, pixels)
    count = together(image=len(pixels), depth=len(depth))
    share = depth.unit_range(scope)
    last = len(bands) - 1
    picture = pixels.new_empty(count, *pixels.shape[-2:], 3)
    index = pixels.new_empty(count, *pixels.shape[-2:])
    for i in each_picture(count, "Band style"):
        close = nth(share, i)[0]
        if spacing == "area":
            close = _ranks(close)
        position = (1 - close) * len(bands)  # 0 = closest, band b covers b..b+1
        original = nth(pixels, i)[0]
        styled = _treat(original, bands[0])
        for b in range(1, len(bands)):
            # Over to the next band around its near end.
            past = position - b
            over = (past >= 0).to(past) if softness == 0 else (past / max(softness, 1e-30) + 0.5).clamp(0, 1)
            if bool(over.any()):
                styled = torch.lerp(styled, _treat(original, bands[b]), over)
        picture[i] = styled.clamp(0, 1).permute(1, 2, 0)
        index[i] = 1 - position.floor().clamp(0, last) / max(last, 1)
    return picture, index


def _ranks(values: Tensor) -> Tensor:
    """The share of pixels that are not closer, 0..1; equal values share one rank."""
    order = values.flatten().sort().values
    return torch.searchsorted(order, values.flatten(), right=True).view_as(values) / order.numel()


def _styles() -> str:
    return "; ".join(f"{name} ({about})" for name, about in TREATMENTS.items())


def _treatment(text: str) -> tuple[str, list[Any]]:
    name, *given = text.split() or [""]
    needs = {"flat": 1, "tint": 2, "brightness": 1, "posterise": 1, "blur": 1, "pixelate": 1}.get(name, 0)
    most = max(needs, 1 if name == "grey" else 0)
    if name not in TREATMENTS or not needs <= len(given) <= most:
        raise SettingError(f"{text.strip()!r} is no style. Styles: {_styles()}.")
    values: list[Any] = [colour(v) if v.startswith("#") or name == "flat" else _number(v, text) for v in given]
    least, greatest = {"posterise": (2, 256), "blur": (0, 1000), "pixelate": (1, 4096), "brightness": (0, 100)}.get(
        name, (0, 1)
    )
    for value in values:
        if isinstance(value, float):
            check_range(name, value, least, greatest)
    return name, values


def _number(text: str, where: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise SettingError(f"{where.strip()!r}: {text!r} is not a number.") from None


def _treat(pixels: Tensor, steps: list[tuple[str, list[Any]]]) -> Tensor:
    for name, given in steps:
        if name == "flat":
            pixels = pixels.new_tensor(given[0])[:, None, None].expand_as(pixels)
        elif name == "tint":
            tone = pixels.new_tensor(given[0])[:, None, None]
            pixels = torch.lerp(pixels, tone * to_srgb(_luminance(to_linear(pixels))), float(given[1]))
        elif name == "grey":
            dull = to_srgb(_luminance(to_linear(pixels))).expand_as(pixels)
            pixels = torch.lerp(pixels, dull, float(given[0]) if given else 1.0)
        elif name == "brightness":
            pixels = to_srgb(to_linear(pixels) * given[0])
        elif name == "posterise":
            steps_between = round(given[0]) - 1
            pixels = (pixels * steps_between).round() / steps_between
        elif name == "blur":
            pixels = to_srgb(gaussian(to_linear(pixels), given[0]))
        elif name == "pixelate":
            height, width = pixels.shape[-2:]
            side = min(round(given[0]), height, width)
            light = to_linear(pixels)[None]
            small = F.avg_pool2d(light, side, ceil_mode=True, count_include_pad=False)
            big = small.repeat_interleave(side, 2).repeat_interleave(side, 3)
            pixels = to_srgb(big[0, :, :height, :width])
        elif name == "negative":
            pixels = 1 - pixels
    return pixels


def _luminance(light: Tensor) -> Tensor:
    red, green, blue = _GREY
    return (light[0] * red + light[1] * green + light[2] * blue)[None]


def _size(pixels: Tensor) -> tuple[int, int]:
    return pixels.shape[-2], pixels.shape[-1]
