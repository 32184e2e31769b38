"""From what people hand in to the pixels that estimators take."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import PictureError


def as_pictures(image: Any) -> Tensor:
    """Any picture as a tensor (B,H,W,1|3|4), floating point or uint8, as it came: checked, neither changed nor copied.

    image: a torch tensor (B,H,W,C) with 1 (grey), 3 (RGB) or 4 (RGBA) channels, floating point in 0..1 or uint8;
    or a PIL image (of modes I and F those whose range tells what is white). Raises PictureError for any other type or
    shape, sparse or nested tensors, an empty batch, NaN or infinite values, and a PIL image that cannot be read.
    """
    if not isinstance(image, Tensor):
        image = _from_pil(image)
    if image.is_nested or image.layout != torch.strided:
        raise PictureError(
            "a picture must be a dense tensor (B,H,W,C), got a "
            f"{'nested' if image.is_nested else 'sparse'} one: use .to_dense(), or one picture at a time."
        )
    if image.is_meta:
        raise PictureError("the picture is a tensor without values (on torch's meta device).")
    if image.ndim != 4 or image.shape[-1] not in (1, 3, 4):
        hint = " One picture is a batch of one: image[None]." if image.ndim == 3 else ""
        raise PictureError(
            f"a picture must be shaped (B,H,W,C) with 1, 3 or 4 channels, got {tuple(image.shape)}.{hint}"
        )
    if image.numel() == 0:
        raise PictureError(f"the picture is empty: its shape is {tuple(image.shape)}.")
    image = image.detach()
    if image.dtype == torch.uint8:
        return image
    if not image.is_floating_point():
        raise PictureError(
            f"a picture must hold floating point values in 0..1 (or uint8 in 0..255), got {image.dtype}."
        )
    # The sum of finite floats is finite here (values near 1), so one pass without a mask tells the usual case.
    if not bool(image.sum(dtype=torch.float32).isfinite()):
        bad = sum(int((~picture.isfinite()).sum()) for picture in image)
        if bad:
            raise PictureError(
                f"the picture holds {bad} NaN or infinite values of {image.numel()}. They usually come from "
                "a VAE or an upscaler that ran in half precision; run it in float32."
            )
    return image


def as_pixels(image: Any) -> Tensor:
    """Any picture as float32 (B,3,H,W) in 0..1 on its own device; the input is never changed.

    Takes what `as_pictures` takes and raises what it raises. The rest as in `to_pixels`.
    """
    return to_pixels(as_pictures(image))


def to_pixels(image: Tensor) -> Tensor:
    """Pictures that `as_pictures` has checked, or some of them, as float32 (B,3,H,W) in 0..1; the input is not changed.

    Transparent pixels are laid over white, as the ControlNet annotators do. Values outside 0..1 are clamped.
    """
    if image.dtype == torch.uint8 and image.shape[-1] == 3:
        return image.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format).div_(255)
    image = image.float() / 255 if image.dtype == torch.uint8 else image.float()
    image = image.clamp(0, 1)
    if image.shape[-1] == 4:
        alpha = image[..., 3:]
        image = image[..., :3] * alpha + (1 - alpha)
    elif image.shape[-1] == 1:
        image = image.expand(*image.shape[:3], 3)
    return image.permute(0, 3, 1, 2)


def in_unit_range(numbers: Any, name: str = "the picture") -> Any:
    """Whole or floating point numbers of a grey or colour picture, a numpy array, as float32 with white at 1.

    uint8 and uint16 fill their own range, and so does uint32 that goes beyond 16 bits; floating point is taken as it is
    up to 2, and as 0..255 where it holds whole numbers alone up to there. Raises PictureError for everything else: what
    is white cannot be told then.
    """
    import numpy as np

    kind = numbers.dtype
    if kind.kind == "u" and kind.itemsize < 4:
        return numbers.astype(np.float32) / np.iinfo(kind).max
    seen = numbers[np.isfinite(numbers)] if kind.kind == "f" else numbers
    low, high = (float(seen.min()), float(seen.max())) if seen.size else (0.0, 0.0)
    if kind.kind == "f":
        if -2 <= low and high <= 2:
            return numbers.astype(np.float32)
        if 0 <= low and high <= 255 and bool((seen == np.rint(seen)).all()):
            return (numbers / 255).astype(np.float32)
    elif low == high == 0:
        return numbers.astype(np.float32)
    elif kind == np.uint32 and high > 65535:
        return (numbers / (2**32 - 1)).astype(np.float32)
    elif low >= 0 and 255 < high <= 65535 and kind == np.int32:
        return (numbers / 65535).astype(np.float32)
    raise PictureError(
        f"{name} holds {kind} numbers from {low:g} to {high:g}, so what is white cannot be told: 1, 255, 65535 or "
        "another number. Divide them by the number that is white, and give a picture in 0..1 or of 8 or 16 bits."
    )


def _from_pil(image: Any) -> Tensor:
    from PIL import Image

    if not isinstance(image, Image.Image):
        raise PictureError(
            f"a picture must be a torch tensor (B,H,W,C) or a PIL image, got {type(image).__name__}. "
            "A numpy array becomes a tensor by torch.from_numpy(array)."
        )
    import numpy as np

    try:
        if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
            # PIL keeps 16-bit grey as integers in one of its I modes.
            array = np.asarray(image, dtype=np.float32) / 65535
        elif image.mode in ("I", "F"):
            array = in_unit_range(np.asarray(image))
        else:
            wanted = "RGBA" if "A" in image.mode or "transparency" in image.info else "RGB"
            return torch.from_numpy(np.array(image.convert(wanted)))[None]
    except PictureError:
        raise
    except (OSError, ValueError, SyntaxError, TypeError, AttributeError, EOFError, MemoryError) as error:
        # Pillow reads a file at the first use: it may be closed, gone or cut off by then.
        raise PictureError(f"the PIL image cannot be read: {error}. Open it anew, and keep its file open.") from error
    return torch.from_numpy(np.array(array))[None, :, :, None]
