"""Nodes from depth to geometry: normals, point clouds, meshes and camera moves."""

from __future__ import annotations

import math
from typing import Any

from ..annotator import host
from ..signals import Depth, Normals
from ..signals.codec import write_whole
from ..signals.files import fingerprint
from ..tools import geometry, parallax, plane_fit
from ..tools.intrinsics_files import with_camera
from ..tools.sobel import sobel_normals
from .base import Node
from .fields import in_metres
from .sensors import NONE, chosen, intrinsics

CATEGORY = "Fathom/Geometry"

DEPTH: tuple[str, dict[str, Any]] = ("FATHOM_DEPTH", {"tooltip": "The depth, from any Fathom node that gives one."})
IMAGE: tuple[str, dict[str, Any]] = ("IMAGE", {"tooltip": "The picture whose colours are used; any size."})
FIELD_OF_VIEW: tuple[str, dict[str, Any]] = (
    "FLOAT",
    {
        "default": 0.0,
        "min": 0.0,
        "max": 179.0,
        "step": 0.1,
        "tooltip": "Horizontal field of view of the camera in degrees; 0 = the focal length that came with the depth. "
        "A phone's main camera has about 65, a 50 mm lens on full frame 40.",
    },
)
STEP: tuple[str, dict[str, Any]] = (
    "INT",
    {
        "default": 1,
        "min": 1,
        "max": 64,
        "advanced": True,
        "tooltip": "Take every n-th pixel of every n-th row: smaller files.",
    },
)
EDGE: tuple[str, dict[str, Any]] = (
    "FLOAT",
    {
        "default": 0.04,
        "min": 0.0,
        "max": 1.0,
        "step": 0.01,
        "advanced": True,
        "tooltip": "Where the distance changes by more than this share from one pixel to the next, the scene is cut "
        "there instead of stretched. 0 = cut nothing.",
    },
)


def _distance(which: str) -> tuple[str, dict[str, Any]]:
    return (
        "FLOAT",
        {
            "default": 0.0,
            "min": 0.0,
            "max": 10000.0,
            "step": 0.1,
            "tooltip": f"Metres to the {which} thing in the picture, for depth without metres of its own (Depth "
            "Anything, MiDaS, Marigold). 0 = the depth is metric.",
        },
    )


def _camera() -> dict[str, Any]:
    return {"field_of_view": FIELD_OF_VIEW, "near": _distance("nearest"), "far": _distance("farthest")}


def _prefix(default: str) -> tuple[str, dict[str, Any]]:
    return (
        "STRING",
        {"default": default, "tooltip": "Where the file goes in ComfyUI's output folder; a number is added."},
    )


def _with_camera(depth: Depth, file: str, width: int) -> Depth:
    path = chosen(file)
    return depth if path is None else with_camera(depth, path, width)


class _ThroughLens(Node):
    """A node that takes a camera from a file."""

    @classmethod
    def IS_CHANGED(cls, intrinsics: str | None = NONE, **_: Any) -> str:
        """What changes when the file does, so that ComfyUI runs the node again; nothing does without one."""
        path = chosen(intrinsics or NONE)  # None: another node says it
        return "" if path is None else fingerprint(path)


class FathomDepthToNormals(_ThroughLens):
    """Normals from depth."""

    DISPLAY_NAME = "Fathom Depth to Normals"
    DESCRIPTION = (
        "Derives surface normals from depth. geometry: the true normals of the surface, which needs metres and a field "
        "of view. midas: the picture that the normal annotator of the first ControlNets made, from any depth."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["normal map", "depth to normal", "midas normal", "normal from depth", "bump"]
    RETURN_TYPES = ("IMAGE", "FATHOM_NORMALS")
    RETURN_NAMES = ("image", "normals")
    OUTPUT_TOOLTIPS = ("The normal map.", "The normals, for Fathom's other nodes.")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "depth": DEPTH,
                "method": (
                    ["geometry", "midas"],
                    {"default": "geometry", "tooltip": "True surface normals, or the look of ControlNet's MiDaS."},
                ),
                "convention": (
                    ["controlnet", "opengl", "directx"],
                    {
                        "default": "controlnet",
                        "tooltip": "What red, green and blue hold. controlnet: as trained (for geometry the same as "
                        "opengl). opengl: x, y, z with y up. directx: y down.",
                    },
                ),
            },
            "optional": {
                **_camera(),
                "a": (
                    "FLOAT",
                    {
                        "default": math.tau,
                        "min": 0.0,
                        "max": 5 * math.pi,
                        "step": 0.05,
                        "advanced": True,
                        "tooltip": "midas only: how flat the result is; 6.28 is ControlNet's.",
                    },
                ),
                "bg_threshold": (
                    "FLOAT",
                    {
                        "default": 0.1,
                        "min": 0.0,
                        "max": 1.0,
                        "step": 0.05,
                        "advanced": True,
                        "tooltip": "midas only: pixels farther than this share of the depth face the viewer.",
                    },
                ),
                "radius": (
                    "INT",
                    {
                        "default": -1,
                        "min": -1,
                        "max": plane_fit.LARGEST,
                        "advanced": True,
                        "tooltip": "geometry only: over how many pixels to each side the surface is averaged, up to "
                        "edges. -1 = as the steps of the depth ask for (8 bits, depth cameras); 0 = not at all.",
                    },
                ),
                **intrinsics(),
            },
        }

    def execute(
        self,
        depth: Depth,
        method: str,
        convention: Any,
        field_of_view: float = 0.0,
        near: float = 0.0,
        far: float = 0.0,
        a: float = math.tau,
        bg_threshold: float = 0.1,
        radius: int = -1,
        intrinsics: str = NONE,
        intrinsics_width: int = 0,
    ) -> tuple[Any, Normals]:
        depth = _with_camera(depth, intrinsics, intrinsics_width)
        if method == "midas":
            normals = sobel_normals(depth, a, bg_threshold)
        else:
            window = None if radius < 0 else radius
            normals = geometry.geometric_normals(in_metres(depth, near, far), field_of_view or None, radius=window)
        return normals.to_image(convention), normals


class FathomPointCloud(_ThroughLens):
    """A point cloud file from depth."""

    DISPLAY_NAME = "Fathom Point Cloud"
    DESCRIPTION = (
        "Places every pixel in space, in metres with y up, and writes a PLY or GLB file. Connect file or path to "
        "ComfyUI's 3D preview."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["export ply", "point cloud", "ply", "unproject", "depth to 3d", "depth to points"]
    RETURN_TYPES = ("FILE_3D,FILE_3D_PLY,FILE_3D_POINT_CLOUD_ANY", "STRING")
    RETURN_NAMES = ("file", "path")
    OUTPUT_TOOLTIPS = (
        "The file for ComfyUI's 3D nodes (recent versions).",
        "Its place in the output folder, for Preview 3D.",
    )
    OUTPUT_IS_LIST = (True, True)
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "depth": DEPTH,
                "format": (["ply", "glb"], {"default": "ply", "tooltip": "ply opens everywhere; glb in web viewers."}),
                "filename_prefix": _prefix("3d/points"),
            },
            "optional": {"image": IMAGE, **_camera(), "step": STEP, "edge": EDGE, **intrinsics()},
        }

    def execute(
        self,
        depth: Depth,
        format: str,
        filename_prefix: str,
        image: Any = None,
        field_of_view: float = 0.0,
        near: float = 0.0,
        far: float = 0.0,
        step: int = 1,
        edge: float = 0.04,
        intrinsics: str = NONE,
        intrinsics_width: int = 0,
    ) -> tuple[list[Any], list[str]]:
        depth = _with_camera(depth, intrinsics, intrinsics_width)
        clouds = geometry.point_clouds(in_metres(depth, near, far), image, field_of_view or None, step=step, edge=edge)
        files, names = [], []
        with host.progress(len(depth), self.DISPLAY_NAME, "picture") as bar:
            for cloud in clouds:
                path, name = host.output_file(filename_prefix, f".{format}")
                with host.released_on_error(path):
                    write_whole({path: geometry.encode_points(cloud, format)})
                files.append(host.file_3d(path))
                names.append(name)
                bar.update()
        return files, names


class FathomMesh(_ThroughLens):
    """A mesh from depth."""

    DISPLAY_NAME = "Fathom Mesh"
    DESCRIPTION = (
        "Spans a surface over the pixels, in metres with y up, cut where the depth jumps, with the picture as its "
        "texture. Writes a GLB or PLY file and gives ComfyUI's MESH."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["mesh", "glb", "3d model", "depth to mesh", "depth to 3d", "relief"]
    RETURN_TYPES = ("MESH", "FILE_3D,FILE_3D_GLB,FILE_3D_PLY", "STRING")
    RETURN_NAMES = ("mesh", "file", "path")
    OUTPUT_TOOLTIPS = (
        "The mesh for ComfyUI's 3D nodes.",
        "The file for ComfyUI's 3D nodes (recent versions).",
        "Its place in the output folder, for Preview 3D.",
    )
    OUTPUT_IS_LIST = (True, True, True)
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "depth": DEPTH,
                "format": (
                    ["glb", "ply"],
                    {"default": "glb", "tooltip": "glb: textured, for viewers. ply: coloured vertices."},
                ),
                "filename_prefix": _prefix("3d/mesh"),
            },
            "optional": {"image": IMAGE, **_camera(), "step": STEP, "edge": EDGE, **intrinsics()},
        }

    def execute(
        self,
        depth: Depth,
        format: str,
        filename_prefix: str,
        image: Any = None,
        field_of_view: float = 0.0,
        near: float = 0.0,
        far: float = 0.0,
        step: int = 1,
        edge: float = 0.04,
        intrinsics: str = NONE,
        intrinsics_width: int = 0,
    ) -> tuple[list[Any], list[Any], list[str]]:
        depth = _with_camera(depth, intrinsics, intrinsics_width)
        surfaces = geometry.surfaces(in_metres(depth, near, far), image, field_of_view or None, step=step, edge=edge)
        meshes, files, names = [], [], []
        with host.progress(len(depth), self.DISPLAY_NAME, "picture") as bar:
            for surface in surfaces:
                path, name = host.output_file(filename_prefix, f".{format}")
                with host.released_on_error(path):
                    write_whole({path: geometry.encode_surface(surface, format)})
                meshes.append(host.mesh(surface.vertices, surface.faces, surface.uv, surface.texture))
                files.append(host.file_3d(path))
                names.append(name)
                bar.update()
        return meshes, files, names


class FathomParallax(Node):
    """A camera move over a still picture."""

    DISPLAY_NAME = "Fathom Parallax"
    DESCRIPTION = (
        "Moves a camera a little in front of the picture: frames of a 2.5D video, and masks of what each frame "
        "uncovers, for inpainting."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["parallax", "2.5d", "ken burns", "wiggle", "camera move", "depth video", "vertigo", "dolly zoom"]
    RETURN_TYPES = ("IMAGE", "MASK")
    RETURN_NAMES = ("frames", "uncovered")
    OUTPUT_TOOLTIPS = ("The frames.", "1 where a frame shows what the picture does not: inpaint there.")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        share = {"min": 0.0, "step": 0.01}
        return {
            "required": {
                "image": ("IMAGE", {"tooltip": "The picture, or one for each frame."}),
                "depth": DEPTH,
                "path": (
                    list(parallax.PATHS),
                    {
                        "default": "swing",
                        "tooltip": "swing: side to side. circle: around. rise: up and down. dolly: forward. vertigo: "
                        "forward while what is in focus keeps its size.",
                    },
                ),
                "frames": ("INT", {"default": 24, "min": 1, "max": 4096, "tooltip": "How many frames."}),
                "strength": (
                    "FLOAT",
                    {
                        **share,
                        "default": 0.03,
                        "max": 0.5,
                        "tooltip": "How far the nearest thing moves against the farthest, as share of the width; for "
                        "dolly and vertigo how far the camera goes, as share of the distance to the nearest thing.",
                    },
                ),
                "focus": (
                    "FLOAT",
                    {
                        **share,
                        "default": 0.5,
                        "max": 1.0,
                        "tooltip": "What stays in place: 0 = the farthest thing, 1 = the nearest.",
                    },
                ),
            },
            "optional": {
                "loop": ("BOOLEAN", {"default": True, "tooltip": "The last frame leads back to the first."}),
                "fill": (
                    "BOOLEAN",
                    {"default": True, "tooltip": "Blur colours into what is uncovered; off leaves it black."},
                ),
                "near": _distance("nearest"),
                "far": _distance("farthest"),
            },
        }

    def execute(
        self,
        image: Any,
        depth: Depth,
        path: str,
        frames: int,
        strength: float,
        focus: float,
        loop: bool = True,
        fill: bool = True,
        near: float = 0.0,
        far: float = 0.0,
    ) -> tuple[Any, Any]:
        with host.progress(frames, self.DISPLAY_NAME, "frame") as bar:
            return parallax.parallax(
                image[..., :3],
                in_metres(depth, near, far),
                path=path,
                frames=frames,
                strength=strength,
                focus=focus,
                loop=loop,
                fill=fill,
                tick=bar.update,
            )


NODES = (FathomDepthToNormals, FathomPointCloud, FathomMesh, FathomParallax)
