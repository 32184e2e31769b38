"""`fathom tool`: the depth tools from a shell. Depth comes from a file, or from an estimator when none is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import FathomError, SettingError
from .common import bars, open_picture

app = typer.Typer(
    help="Depth tools: fog, blur, bands, masks, normals, 3D files, and the depth of cameras.", no_args_is_help=True
)

Photo = Annotated[Path, typer.Argument(help="The picture.", show_default=False)]
DepthFile = Annotated[
    Path, typer.Argument(help="A depth that Fathom wrote: PNG, EXR, npz or safetensors.", show_default=False)
]
Given = Annotated[
    Path | None, typer.Option("--depth", "-d", help="The picture's depth, a file of Fathom. Unset = estimate it.")
]
Model = Annotated[str, typer.Option("--estimator", "-e", help="Which model estimates it, see `models`.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="The file to write.", show_default=False)]
Near = Annotated[float | None, typer.Option(help="Metres of the closest pixel, for depth without metres of its own.")]
Far = Annotated[float | None, typer.Option(help="Metres of the farthest pixel, for depth without metres of its own.")]
View = Annotated[
    float | None, typer.Option("--field-of-view", help="Horizontal, in degrees. Unset = the depth's own focal length.")
]
Colours = Annotated[Path | None, typer.Option("--image", help="The picture whose colours are used.")]
Step = Annotated[int, typer.Option(help="Take every n-th pixel of every n-th row.")]
Lens = Annotated[
    Path | None, typer.Option("--intrinsics", help="The camera: JSON, K.txt, calib.txt or npz with fx, fy, cx, cy.")
]
LensWidth = Annotated[
    int, typer.Option("--intrinsics-width", help="Width of the picture that the intrinsics are of. 0 = as they say.")
]
Edge = Annotated[float, typer.Option(help="Cut where the distance jumps by more than this share; 0 = cut nothing.")]


def _picture(path: Path) -> Any:
    """A picture as (1,H,W,3)."""
    from ..annotator.pictures import as_pixels

    return as_pixels(open_picture(path)).permute(0, 2, 3, 1)


def _depth(photo: Any, given: Path | None, estimator: str) -> Any:
    from .. import load
    from ..signals.files import load_depth

    if given is not None:
        return load_depth(given)
    with bars():
        return load(estimator)(photo, 0)


def _save(image: Any, out: Path) -> None:
    """Write a picture (1,H,W,3) as PNG."""
    from ..signals.codec import save_image

    if out.suffix.lower() != ".png":
        raise SettingError(f"pictures are written as PNG: give {out.with_suffix('.png').name} instead of {out.name}.")
    _folder(out)
    save_image(image[0], out)
    typer.echo(out)


def _shape(
    make: Callable[..., Iterator[Any]],
    encode: Callable[[Any, str], bytes],
    depth: Path,
    out: Path,
    image: Path | None,
    metres: tuple[float | None, float | None],
    lens: tuple[Path | None, int],
    **cut: Any,
) -> None:
    """Write the first shape that `make` finds in a depth file, in the format that the suffix of `out` names."""
    from ..signals.codec import write_whole
    from ..signals.files import load_depth

    colours = None if image is None else _picture(image)
    metric = _in_metres(_seen_through(load_depth(depth), *lens), *metres)
    shape = next(make(metric, colours, **cut))
    data = encode(shape, out.suffix.lower().lstrip("."))
    _folder(out)
    write_whole({out: data})
    typer.echo(out)


def _seen_through(depth: Any, intrinsics: Path | None, width: int) -> Any:
    """The depth with the camera in a file."""
    from ..tools.intrinsics_files import with_camera

    return depth if intrinsics is None else with_camera(depth, intrinsics, width)


def _in_metres(depth: Any, near: float | None, far: float | None) -> Any:
    """The depth as --near and --far make it."""
    from ..signals.depth import to_metric

    return depth if near is None and far is None else to_metric(depth, near, far)


def _folder(out: Path) -> None:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FathomError(f"the folder {out.parent} cannot be made: {error.strerror}. Choose another place.") from error


@app.command()
def fog(
    photo: Photo,
    out: Out,
    depth: Given = None,
    estimator: Model = "fathom-tiny",
    density: Annotated[float, typer.Option(help="Per metre where metres are known, else over the whole depth.")] = 1.0,
    colour: Annotated[str, typer.Option(help="Colour of the fog, #rrggbb.")] = "#c8d2dc",
    near: Near = None,
    far: Far = None,
) -> None:
    """Put fog, mist or haze into a picture."""
    from ..signals.depth import to_metric
    from ..tools.atmosphere import fog

    picture = _picture(photo)
    seen = _depth(picture, depth, estimator)
    if near is not None or far is not None:
        seen = to_metric(seen, near, far)
    _save(fog(picture, seen, density, colour)[0], out)


@app.command()
def blur(
    photo: Photo,
    out: Out,
    depth: Given = None,
    estimator: Model = "fathom-tiny",
    radius: Annotated[float, typer.Option(help="The largest blur, in pixels.")] = 12.0,
    focus: Annotated[float, typer.Option(help="What is sharp: 0 = the farthest, 1 = the closest.")] = 1.0,
    highlights: Annotated[float, typer.Option(help="How bright lights bloom, 0 to 1.")] = 0.0,
    blades: Annotated[int, typer.Option(help="Blades of the aperture; 0 = a disc.")] = 0,
) -> None:
    """Blur a picture as a lens with a wide aperture does."""
    from ..tools.lens_blur import lens_blur

    picture = _picture(photo)
    found = _depth(picture, depth, estimator)
    _save(lens_blur(picture, found, radius, focus=focus, highlights=highlights, blades=blades)[0], out)


@app.command()
def bands(
    photo: Photo,
    out: Out,
    depth: Given = None,
    estimator: Model = "fathom-tiny",
    style: Annotated[
        list[str] | None, typer.Option(help="The look of a band; give several, from near to far. As in Band Style.")
    ] = None,
    softness: Annotated[float, typer.Option(help="How far neighbouring bands blend, 0 to 1.")] = 0.0,
) -> None:
    """Give each band of depth a look of its own."""
    from ..tools.atmosphere import band_style

    picture = _picture(photo)
    seen = _depth(picture, depth, estimator)
    if style:
        styled = band_style(picture, seen, softness=softness, styles="\n".join(style))
    else:
        styled = band_style(picture, seen, softness=softness)
    _save(styled[0], out)


@app.command()
def mask(
    depth: DepthFile,
    out: Out,
    shape: Annotated[str, typer.Option(help="ramp, band or inverse band.")] = "ramp",
    start: Annotated[float, typer.Option(help="Where it starts: 0 = the farthest, 1 = the closest.")] = 0.0,
    end: Annotated[float, typer.Option(help="Where it ends.")] = 1.0,
    softness: Annotated[float, typer.Option(help="How far the borders are blurred.")] = 0.0,
) -> None:
    """Write a mask by depth, white where it applies."""
    from ..signals.files import load_depth
    from ..tools.depth_field import depth_field

    named: Any = shape
    weight = depth_field(load_depth(depth), named, start, end, softness)
    _save(weight[..., None].expand(*weight.shape, 3), out)


@app.command()
def normals(
    depth: DepthFile,
    out: Out,
    method: Annotated[
        str, typer.Option(help="geometry: the true normals. midas: the look of ControlNet's.")
    ] = "geometry",
    convention: Annotated[str, typer.Option(help="controlnet, opengl or directx.")] = "controlnet",
    field_of_view: View = None,
    near: Near = None,
    far: Far = None,
    radius: Annotated[
        int | None, typer.Option(help="Average over so many pixels to each side. Unset = as the depth's steps ask for.")
    ] = None,
    intrinsics: Lens = None,
    intrinsics_width: LensWidth = 0,
) -> None:
    """Write the normal map of a depth."""
    from ..signals.files import load_depth
    from ..tools.geometry import geometric_normals
    from ..tools.sobel import sobel_normals

    if method not in ("geometry", "midas"):
        raise SettingError(f"method must be geometry or midas, got {method!r}.")
    if convention not in ("controlnet", "opengl", "directx"):
        raise SettingError(f"convention must be controlnet, opengl or directx, got {convention!r}.")
    loaded = _seen_through(load_depth(depth), intrinsics, intrinsics_width)
    computed = (
        sobel_normals(loaded)
        if method == "midas"
        else geometric_normals(_in_metres(loaded, near, far), field_of_view, radius=radius)
    )
    named: Any = convention
    _save(computed.to_image(named), out)


@app.command()
def pointcloud(
    depth: DepthFile,
    out: Out,
    image: Colours = None,
    field_of_view: View = None,
    near: Near = None,
    far: Far = None,
    step: Step = 1,
    edge: Edge = 0.04,
    intrinsics: Lens = None,
    intrinsics_width: LensWidth = 0,
) -> None:
    """Write the points of a depth as PLY or GLB, in metres, y up."""
    from ..tools.geometry import encode_points, point_clouds

    metres, lens, cut = (near, far), (intrinsics, intrinsics_width), {"step": step, "edge": edge}
    _shape(point_clouds, encode_points, depth, out, image, metres, lens, field_of_view=field_of_view, **cut)


@app.command()
def mesh(
    depth: DepthFile,
    out: Out,
    image: Colours = None,
    field_of_view: View = None,
    near: Near = None,
    far: Far = None,
    step: Step = 1,
    edge: Edge = 0.04,
    intrinsics: Lens = None,
    intrinsics_width: LensWidth = 0,
) -> None:
    """Write the surface of a depth as GLB or PLY, in metres, y up."""
    from ..tools.geometry import encode_surface, surfaces

    metres, lens, cut = (near, far), (intrinsics, intrinsics_width), {"step": step, "edge": edge}
    _shape(surfaces, encode_surface, depth, out, image, metres, lens, field_of_view=field_of_view, **cut)


@app.command()
def show(
    file: Annotated[Path, typer.Argument(help="A file that `annotate` wrote: 16-bit PNG, EXR, npz, safetensors.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="A PNG to draw it into.")] = None,
) -> None:
    """Tell what a file of Fathom holds, whatever the kind of signal; with --out also draw its first picture."""
    import json

    from ..signals import load_signal
    from ..signals.files import summary

    signal = load_signal(file)
    typer.echo(json.dumps(summary(signal), indent=1))
    if out is not None:
        _save(signal[0].to_image(), out)


@app.command()
def convert(
    depth: Annotated[
        Path, typer.Argument(help="PNG, EXR, TIFF, PFM, PGM, npy, npz or safetensors.", show_default=False)
    ],
    out: Out,
    meaning: Annotated[
        str, typer.Option(help="What another program's numbers are: inverse, metric or disparity.")
    ] = "as saved",
    scale: Annotated[float, typer.Option(help="What one step of its numbers is, in the unit.")] = 1.0,
    unit: Annotated[str, typer.Option(help="m, cm, mm, ... or relative.")] = "m",
    channel: Annotated[
        str, typer.Option(help="Of several: an EXR channel, an npz array, a TIFF page. Empty = the depth.")
    ] = "",
    reading: Annotated[str, typer.Option(help="plain, or SUN RGB-D for that data set's PNG.")] = "plain",
    near: Near = None,
    far: Far = None,
    metres: Annotated[bool, typer.Option(help="For EXR: write metres, as renderers do, instead of 1/metre.")] = False,
) -> None:
    """Write a depth in another format; the suffix of OUT names it. With near and far it becomes metric."""
    from ..signals.files import save_depth
    from ..tools.convert import convert_depth, depth_from_file

    said: Any = (meaning, unit, reading)
    converted = depth_from_file(depth, said[0], scale, said[1], channel, said[2])
    if near is not None or far is not None:
        converted = convert_depth(converted, "metric", near, far)[0]
    _folder(out)
    save_depth(converted, out, metres=metres)
    typer.echo(out)


DepthOut = Annotated[
    Path, typer.Option("--out", "-o", help="The depth: .exr, .npz, .safetensors, .png (16 bits).", show_default=False)
]


def _write_depth(depth: Any, out: Path) -> None:
    from ..signals.files import save_depth

    _folder(out)
    save_depth(depth, out)
    typer.echo(out)


@app.command()
def stereo(
    left: Annotated[Path, typer.Argument(help="The left picture, or both in one.", show_default=False)],
    out: DepthOut,
    right: Annotated[Path | None, typer.Argument(help="The right picture.", show_default=False)] = None,
    layout: Annotated[
        str,
        typer.Option(help="Where both lie in one picture: 'side by side, left first', 'top-bottom, right first', ..."),
    ] = "two pictures",
    focal: Annotated[
        float | None, typer.Option(help="Focal length in pixels; with --baseline the depth is in metres.")
    ] = None,
    baseline: Annotated[float | None, typer.Option(help="Metres between the cameras.")] = None,
    max_disparity: Annotated[int, typer.Option(help="What shifts by more pixels is a hole. 0 = no limit.")] = 0,
    offset: Annotated[float, typer.Option(help="cx1 - cx0 in pixels, doffs in Middlebury's calib.txt.")] = 0.0,
) -> None:
    """Write the depth of the left picture of a stereo pair, and tell what was found out of the pair."""
    from ..tools.stereo import split_pair, stereo_depth

    report: list[str] = []
    pair = split_pair(_picture(left), None if right is None else _picture(right), layout)
    matched = stereo_depth(
        *pair, focal=focal, baseline=baseline, max_disparity=max_disparity, offset=offset, report=report
    )
    for line in report:
        typer.echo(line, err=True)
    _write_depth(matched, out)


@app.command()
def phone(
    photo: Annotated[
        Path, typer.Argument(help="HEIC or JPEG with depth, stereo MPO, spatial HEIC.", show_default=False)
    ],
    out: DepthOut,
    image: Annotated[Path | None, typer.Option("--image", help="A PNG to write the photo into, upright.")] = None,
) -> None:
    """Write the depth in a phone's photo, at its own size, and tell what the file says of it."""
    import json

    from ..tools.phones import load_phone_depth

    found = load_phone_depth(photo)
    typer.echo(json.dumps(found.metadata, ensure_ascii=False), err=True)
    if image is not None:
        _save(found.image, image)
    _write_depth(found.depth, out)


@app.command()
def rgbd(
    depth: Annotated[Path, typer.Argument(help="The 16-bit PNG of a depth camera.", show_default=False)],
    out: DepthOut,
    units_per_metre: Annotated[float, typer.Option(help="1000 = millimetres (most), 5000 for TUM.")] = 1000.0,
    max_range: Annotated[float | None, typer.Option(help="Metres beyond which nothing is believed.")] = None,
    fill: Annotated[int, typer.Option(help="Holes are filled up to so many pixels from a measurement.")] = 0,
    confidence: Annotated[Path | None, typer.Option(help="The map of confidence that a LiDAR app wrote.")] = None,
    least_confidence: Annotated[int, typer.Option(help="0 low, 1 medium, 2 high.")] = 1,
    intrinsics: Lens = None,
    intrinsics_width: LensWidth = 0,
) -> None:
    """Write the depth of a depth camera in a format of Fathom's, with its camera."""
    from ..tools.rgbd import load_rgbd

    loaded, _ = load_rgbd(
        depth,
        units_per_metre=units_per_metre,
        max_range=max_range,
        fill=fill,
        confidence=confidence,
        least_confidence=least_confidence,
        intrinsics=intrinsics,
        intrinsics_width=intrinsics_width,
    )
    _write_depth(loaded, out)


@app.command()
def isolate(
    photo: Photo,
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder to write into.", show_default=False)],
    things: Annotated[
        Path | None,
        typer.Option(help="What was found, a file of Fathom: json, npz, safetensors, png. Unset = find it."),
    ] = None,
    estimator: Annotated[
        str, typer.Option("--estimator", "-e", help="Which model finds things, see `models`.")
    ] = "oneformer-coco-objects",
    names: Annotated[str, typer.Option(help="Classes, separated by commas, such as 'person, dog'. Unset = all.")] = "",
    depth: Annotated[
        Path | None, typer.Option("--depth", "-d", help="The picture's depth, a file of Fathom: it orders the layers.")
    ] = None,
    nearer: Annotated[
        float | None,
        typer.Option(help="Instead of things: all that is closer than this in the depth, 0 = farthest, 1 = closest."),
    ] = None,
    radius: Annotated[int, typer.Option(help="How far an edge may move to follow the photo, in pixels.")] = 6,
    joined: Annotated[bool, typer.Option("--joined", help="All things in one cutout.")] = False,
    whole: Annotated[bool, typer.Option("--whole", help="Leave the background as it is, without holes.")] = False,
) -> None:
    """Cut things out of a picture: a folder of PNGs with transparency, and layers.json, which says where they lie."""
    from .. import load
    from ..signals import Instances
    from ..signals.files import load_as, load_depth
    from ..tools.instances import select
    from ..tools.isolate import isolate, nearer_than

    picture = _picture(photo)
    far = None if depth is None else load_depth(depth)
    if nearer is not None:
        if far is None or things is not None:
            raise SettingError("nearer takes a depth, given by --depth, and no things.")
        found = nearer_than(far, (picture.shape[1], picture.shape[2]), nearer)
    elif things is not None:
        found = select(load_as(Instances, things), names)
    else:
        with bars():
            signal = load(estimator)(picture)
        if not isinstance(signal, Instances):
            raise SettingError(f"{estimator} finds no things: choose one that makes objects or faces.")
        found = select(signal, names)
    isolated = isolate(picture, found, far, radius, joined=joined, background="whole" if whole else "cut out")
    for path in isolated.save(out):
        typer.echo(path)
