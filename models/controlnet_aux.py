"""Lines and poses by the annotators of ControlNet, over the networks of the library controlnet-aux.

The library (github.com/huggingface/controlnet_aux, 0.0.10, Apache-2.0) brings the networks and what it does around
them: the picture in whole levels, resized to multiples of 64 (`controlnet_picture`), and its drawing in 8 bits.
Loading, devices and batches are Fathom's. It is optional and imported when a network is built; Canny and the standard
line drawing have no network and are computed here.

The strength of a network's lines is its own number, not rounded. With drawing = "8-bit" it is the library's picture to
the last level.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
import types
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..annotator.environment import kept
from ..annotator.estimator import Estimator, Licence, Option
from ..annotator.meta import parameters_on_meta
from ..annotator.sizing import MAX_NETWORK_PIXELS, Fit, Size, resize
from ..annotator.weights import Checkpoint, Found
from ..errors import SettingError
from ..signals import Signal
from ..signals.instances import Instances, Thing
from ..signals.lines import Lines
from ..signals.opencv import opencv
from ..signals.pose import FACE, LEFT_HAND, PERSON, POINTS, RIGHT_HAND
from ._controlnet import controlnet_picture
from ._sources import published

LIBRARY = "controlnet_aux"
# Pixels that the network of a tiny variant sees at most.
_TINY = 128 * 128
_importing = threading.Lock()


def library(part: str, use: str) -> Any:
    """The subpackage `part` of controlnet-aux, such as "hed". use: what needs it, for the error.

    The library's own `__init__` is not run: it takes seconds, prints, and replaces entries of timm's registry. Raises
    SettingError naming the command where the library is missing.
    """
    name = f"{LIBRARY}.{part}"
    with _importing:
        if name in sys.modules:
            return sys.modules[name]
        spec = None if LIBRARY in sys.modules else importlib.util.find_spec(LIBRARY)
        if LIBRARY not in sys.modules and (spec is None or not spec.submodule_search_locations):
            raise SettingError(_missing(use))
        try:
            if spec is not None:
                bare = types.ModuleType(LIBRARY)
                bare.__path__ = list(spec.submodule_search_locations or ())
                sys.modules[LIBRARY] = bare
            with kept("KMP_DUPLICATE_LIB_OK"):
                return importlib.import_module(name)
        except ImportError as error:
            raise SettingError(f"{_missing(use)} ({error})") from None
        finally:
            if spec is not None:
                del sys.modules[LIBRARY]


def _missing(use: str) -> str:
    return (
        f"{use} needs the library controlnet-aux, which is not installed or lacks a part: pip install controlnet-aux. "
        "It brings OpenCV's headless build; where another build is installed already, add --no-deps, for two side by "
        "side break each other."
    )


def levels_of(pixels: Tensor, fit: Fit) -> Tensor:
    """Pictures (B,3,H,W) in 0..1 as every annotator hands them to its network: whole levels 0..255, float32."""
    return (fit.enter(pixels.float()) * 255).round().clamp(0, 255)


def arrays(levels: Tensor) -> list[Any]:
    """Levels (B,3,h,w) as uint8 arrays (h,w,3), as the library's own code takes them."""
    return list(levels.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy())


class Called:
    """A network as the library's code calls it: float32 in, float32 out, whatever its precision."""

    def __init__(self, network: Any, part: str | None = None) -> None:
        self._network = network
        self._part = part

    def parameters(self) -> Any:
        """The network's parameters, from which the library takes the device."""
        return self._network.parameters()

    def __call__(self, x: Tensor) -> Any:
        """The network's result."""
        first = next(self._network.parameters())
        named = {} if self._part is None else {"part": self._part}
        return _float(self._network(x.to(first.device, first.dtype), **named))


def _float(result: Any) -> Any:
    if isinstance(result, Tensor):
        return result.float()
    return type(result)(_float(part) for part in result)


class Nothing(nn.Module):
    """What stands for the network of an annotator that has none. (B,...) -> the same."""

    def __init__(self) -> None:
        super().__init__()
        # What asks a network for its precision and its device looks at a parameter.
        self.precision = nn.Parameter(torch.zeros(1), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """`x` itself."""
        return x


_DRAWING = Option(
    "drawing",
    "float",
    choices=("float", "8-bit"),
    about="float: the network's own numbers; 8-bit: the library's picture, to the last level.",
)
_SAFE = Option("safe", False, about="Three strengths of line instead of all, which hides what a picture was made of.")
_SCRIBBLE = Option("scribble", False, about="Thin the lines and draw them anew, as wide as a pen's.")


@dataclass(frozen=True, kw_only=True)
class LinesEstimator(Estimator):
    """What every line annotator shares. detect: the annotator's own resolution. most: pixels that its network sees at
    most. enlarge: how the library brings its picture to the size asked for."""

    detect: int = 512
    most: int = MAX_NETWORK_PIXELS
    enlarge: str = "linear"

    def fit(self, height: int, width: int, resolution: int | None) -> Fit:
        size, way = controlnet_picture(height, width, self.detect if resolution is None else resolution, self.most)
        return Fit((height, width), size, way, "bilinear")

    def tiny(self) -> Estimator:
        return replace(self, detect=64, most=_TINY)

    def infer(
        self, network: nn.Module, pixels: Tensor, fit: Fit, size: Size, options: Mapping[str, Any]
    ) -> dict[str, Signal]:
        """The slot "lines", at `size`."""
        seen = levels_of(pixels, fit)
        if self.drawn(options):
            strength = torch.stack([self._picture(network, levels, size, options) for levels in arrays(seen)])
        else:
            strength = self.strength(Called(network), seen, options)[:, None]
            strength = fit.leave(strength, size)[:, 0].clamp(0, 1)
        return {"lines": Lines(strength.to(pixels.device), self.name)}

    def drawn(self, options: Mapping[str, Any]) -> bool:
        """Whether the result is a picture in 8 bits: of an annotator without numbers of its own, always."""
        return options.get("drawing") != "float" or any(options.get(name) for name in ("safe", "scribble"))

    def strength(self, network: Called, seen: Tensor, options: Mapping[str, Any]) -> Tensor:
        """The network's numbers for levels (B,3,h,w) in 0..255: (B,h,w), larger = stronger."""
        raise NotImplementedError(f"{type(self).__name__} has no numbers of its own")

    def draw(self, network: Called, levels: Any, options: Mapping[str, Any]) -> Any:
        """The library's picture, uint8 (h,w) or (h,w,3), of one picture uint8 (h,w,3)."""
        raise NotImplementedError(f"{type(self).__name__} must say how it is drawn")

    def _picture(self, network: nn.Module, levels: Any, size: Size, options: Mapping[str, Any]) -> Tensor:
        cv2 = opencv("Finding lines")
        way = cv2.INTER_CUBIC if self.enlarge == "cubic" else cv2.INTER_LINEAR
        drawn = self.draw(Called(network), levels, options)
        # The library resizes dark lines on white and turns them round afterwards, which rounds otherwise.
        dark = self.enlarge == "linear, dark"
        drawn = cv2.resize(255 - drawn if dark else drawn, (size[1], size[0]), interpolation=way)
        drawn = 255 - drawn if dark else drawn
        return torch.from_numpy(drawn[..., 0] if drawn.ndim == 3 else drawn).float() / 255


def _side(levels: Any) -> int:
    return min(levels.shape[:2])


# ------------------------------------------------------------------------------- without a network


class _Alone(LinesEstimator):
    """An annotator without a network: its "weights" are the file that it stands in, and no other file fits it."""

    def read(self, found: Found) -> Checkpoint:
        if found.path.suffix != ".py":
            return super().read(found)
        return Checkpoint(found.path, {"precision": torch.zeros(1)}, found=found)

    def build(self, checkpoint: Checkpoint) -> nn.Module:
        return Nothing()


class Canny(_Alone):
    """Canny's edges (IEEE PAMI 1986) by OpenCV, as the library's CannyDetector."""

    def draw(self, network: Called, levels: Any, options: Mapping[str, Any]) -> Any:
        return opencv("Canny").Canny(levels, options["low_threshold"], options["high_threshold"])


class StandardLineart(_Alone):
    """What is darker than its blurred surroundings, as the library's LineartStandardDetector."""

    def draw(self, network: Called, levels: Any, options: Mapping[str, Any]) -> Any:
        import numpy as np

        cv2 = opencv("The standard line drawing")
        colours = levels.astype(np.float32)
        darker = (cv2.GaussianBlur(colours, (0, 0), options["sigma"]) - colours).min(2).clip(0, 255)
        strong = darker[darker > options["threshold"]]
        darker /= max(16, np.median(strong)) if strong.size else 16
        return (darker * 127).clip(0, 255).astype(np.uint8)


# ------------------------------------------------------------------------------- over a network


class Hed(LinesEstimator):
    """Holistically nested edges (Xie and Tu, ICCV 2015) in ControlNet's network with an Apache licence."""

    def build(self, checkpoint: Checkpoint) -> nn.Module:
        return library("hed", self.name).ControlNetHED_Apache2()

    def strength(self, network: Called, seen: Tensor, options: Mapping[str, Any]) -> Tensor:
        return torch.sigmoid(_mean(network(seen), seen.shape[-2:]))

    def draw(self, network: Called, levels: Any, options: Mapping[str, Any]) -> Any:
        side = _side(levels)
        detect = library("hed", self.name).HEDdetector(network)
        return detect(levels, side, side, options["safe"], "np", options["scribble"])


def _mean(maps: Any, size: Any) -> Tensor:
    return torch.stack([F.interpolate(m, tuple(size), mode="bilinear") for m in maps]).mean(0)[:, 0]


class PidiNet(LinesEstimator):
    """Pixel difference networks (Su et al., ICCV 2021, arXiv 2108.07009). The network sees BGR."""

    def build(self, checkpoint: Checkpoint) -> nn.Module:
        return library("pidi", self.name).pidinet()

    def strength(self, network: Called, seen: Tensor, options: Mapping[str, Any]) -> Tensor:
        return network(seen.flip(1) / 255)[-1][:, 0]

    def draw(self, network: Called, levels: Any, options: Mapping[str, Any]) -> Any:
        side = _side(levels)
        detect = library("pidi", self.name).PidiNetDetector(network)
        return detect(levels, side, side, options["safe"], "np", options["scribble"], options["filter"])


class Lineart(LinesEstimator):
    """Informative Drawings (Chan et al., CVPR 2022, arXiv 2203.12691): dark lines on white, turned round here."""

    def build(self, checkpoint: Checkpoint) -> nn.Module:
        return library("lineart", self.name).Generator(3, 1, 3)

    def strength(self, network: Called, seen: Tensor, options: Mapping[str, Any]) -> Tensor:
        return 1 - network(seen / 255)[:, 0]

    def draw(self, network: Called, levels: Any, options: Mapping[str, Any]) -> Any:
        side = _side(levels)
        return library("lineart", self.name).LineartDetector(network, network)(levels, False, side, side, "np")


@dataclass(frozen=True, kw_only=True)
class AnimeLineart(LinesEstimator):
    """A pix2pix network that draws as anime is drawn. width: its first channels."""

    width: int = 64

    def tiny(self) -> Estimator:
        return replace(self, detect=64, most=_TINY, width=4, sources=())

    def build(self, checkpoint: Checkpoint) -> nn.Module:
        norm = partial(nn.InstanceNorm2d, affine=False, track_running_stats=False)
        return library("lineart_anime", self.name).UnetGenerator(3, 1, 8, self.width, norm_layer=norm)

    def translate(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name.replace("module.", ""): tensor for name, tensor in tensors.items()}

    def strength(self, network: Called, seen: Tensor, options: Mapping[str, Any]) -> Tensor:
        height, width = int(seen.shape[-2]), int(seen.shape[-1])
        inside = -(-width // 256) * 256, -(-height // 256) * 256
        cv2 = opencv(self.name)
        larger = [torch.from_numpy(cv2.resize(a, inside, interpolation=cv2.INTER_CUBIC)) for a in arrays(seen)]
        feed = torch.stack(larger).to(seen.device).permute(0, 3, 1, 2).float() / 127.5 - 1
        dark = network(feed) * 127.5 + 127.5
        return 1 - resize(dark, (height, width), "bicubic")[:, 0].clamp(0, 255) / 255

    def draw(self, network: Called, levels: Any, options: Mapping[str, Any]) -> Any:
        side = _side(levels)
        return library("lineart_anime", self.name).LineartAnimeDetector(network)(levels, side, side, "np")


class Mlsd(LinesEstimator):
    """Straight line segments (M-LSD, Gu et al., AAAI 2022, arXiv 2106.00186)."""

    def build(self, checkpoint: Checkpoint) -> nn.Module:
        return library("mlsd", self.name).MobileV2_MLSD_Large()

    def draw(self, network: Called, levels: Any, options: Mapping[str, Any]) -> Any:
        import numpy as np

        cv2 = opencv("Finding lines")
        picture = np.zeros(levels.shape[:2], np.uint8)
        find = library("mlsd", self.name).pred_lines
        try:
            found = find(levels, network, list(levels.shape[:2]), options["score"], options["distance"])
        except IndexError:
            # The library indexes an empty list where there is no line.
            return picture
        for x0, y0, x1, y1 in (map(int, line) for line in found):
            cv2.line(picture, (x0, y0), (x1, y1), 255, 1)
        return picture


class Teed(LinesEstimator):
    """Tiny and efficient edges (Soria et al., ICCV workshops 2023, arXiv 2308.06468)."""

    def build(self, checkpoint: Checkpoint) -> nn.Module:
        return library("teed", self.name).TED()

    def drawn(self, options: Mapping[str, Any]) -> bool:
        return super().drawn(options) or options["steps"] != 0

    def strength(self, network: Called, seen: Tensor, options: Mapping[str, Any]) -> Tensor:
        return torch.sigmoid(_mean(network(seen), seen.shape[-2:]))

    def draw(self, network: Called, levels: Any, options: Mapping[str, Any]) -> Any:
        return library("teed", self.name).TEEDdetector(network)(levels, _side(levels), options["steps"], "np")


class Anyline(LinesEstimator):
    """TEED's edges and the standard line drawing, merged (TheMisto AI's Anyline)."""

    def build(self, checkpoint: Checkpoint) -> nn.Module:
        return library("anyline", self.name).TED()

    def draw(self, network: Called, levels: Any, options: Mapping[str, Any]) -> Any:
        if not options["merged"]:
            return library("teed", self.name).TEEDdetector(network)(levels, _side(levels), 2, "np")
        detect = library("anyline", self.name).AnylineDetector(network)
        return detect(levels, _side(levels), options["sigma"], options["threshold"], "np")


# ------------------------------------------------------------------------------- poses


class PoseNetworks(nn.Module):
    """OpenPose's networks for bodies, hands and faces. (B,3,h,w), BGR in -0.5..0.5 -> what the library's code expects
    of `part`."""

    def __init__(self, parts: Mapping[str, nn.Module]) -> None:
        super().__init__()
        for name, network in parts.items():
            self.add_module(name, network)

    def forward(self, x: Tensor, part: str = "body") -> Any:
        """The result of one of the networks."""
        return getattr(self, part)(x)


class _Few(nn.Module):
    """One convolution with the channels and the stride of one of OpenPose's networks."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 8, stride=8)

    def forward(self, x: Tensor) -> Any:
        return self.conv(x)


class _FewBodies(_Few):
    """Fields and heat of about one person: in noise the library would find thousands of points, and try every pair."""

    def __init__(self) -> None:
        super().__init__(38 + 19)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        fields, heat = super().forward(x).split((38, 19), 1)
        return fields.sigmoid(), 4 * (8 * heat).flatten(2).softmax(-1).view_as(heat)


class _FewFaces(_Few):
    def forward(self, x: Tensor) -> list[Tensor]:
        return [super().forward(x)]


@dataclass(frozen=True, kw_only=True)
class OpenPose(Estimator):
    """Bodies, hands and faces (Cao et al., IEEE PAMI 2019), as ControlNet's annotator finds them. few: whether each
    network is one convolution, for tests. detect, most: as of lines."""

    detect: int = 512
    most: int = MAX_NETWORK_PIXELS
    few: bool = False

    def tiny(self) -> Estimator:
        return replace(self, detect=64, most=_TINY, few=True, sources=())

    def fit(self, height: int, width: int, resolution: int | None) -> Fit:
        size, way = controlnet_picture(height, width, self.detect if resolution is None else resolution, self.most)
        return Fit((height, width), size, way, "bilinear")

    def _networks(self) -> dict[str, nn.Module]:
        if self.few:
            return {"body": _FewBodies(), "hand": _Few(22), "face": _FewFaces(71)}
        models = library("open_pose.model", self.name)
        face = library("open_pose.face", self.name)
        return {"body": models.bodypose_model(), "hand": models.handpose_model(), "face": face.FaceNet()}

    def read(self, found: Found) -> Checkpoint:
        """The three files as one checkpoint: "body.*", "hand.*", "face.*"."""
        if not found.also:
            return super().read(found)
        tensors: dict[str, Tensor] = {}
        for part, file in (("body", found.path), *((name.split("_")[0], found.part(name)) for name in found.also)):
            part_tensors = super().read(replace(found, path=file, also=())).tensors
            tensors |= {f"{part.removesuffix('net.pth')}.{name}": tensor for name, tensor in part_tensors.items()}
        return Checkpoint(found.path, tensors, layout=found.layout, found=found)

    def build(self, checkpoint: Checkpoint) -> nn.Module:
        return PoseNetworks(self._networks())

    def translate(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """The library's networks keep their layers in stages, of which the files know nothing."""
        if not any(name.startswith("body.") for name in tensors):
            return tensors
        with parameters_on_meta():
            wanted = PoseNetworks(self._networks()).state_dict()
        short = {f"{part}.{rest.partition('.')[2]}": key for key in wanted for part, _, rest in (key.partition("."),)}
        return {name if name in wanted else short.get(name, name): tensor for name, tensor in tensors.items()}

    def infer(
        self, network: nn.Module, pixels: Tensor, fit: Fit, size: Size, options: Mapping[str, Any]
    ) -> dict[str, Signal]:
        """The slot "people": each with the points of `signals.pose`, in pixels of `size`."""
        seen = arrays(levels_of(pixels, fit))
        find = self._detector(network).detect_poses
        pictures = tuple(_persons(find(a, options["hands"], options["faces"]), fit.network, size) for a in seen)
        return {"people": Instances(pictures, (int(size[0]), int(size[1])), (PERSON,), self.name)}

    def _detector(self, network: nn.Module) -> Any:
        module = library("open_pose", self.name)
        parts = []
        for name in ("body", "hand", "face"):
            kind = getattr(library(f"open_pose.{name}", self.name), name.capitalize())
            # Their constructors do nothing but read a file.
            detector = kind.__new__(kind)
            detector.model = Called(network, name)
            parts.append(detector)
        return module.OpenposeDetector(*parts)


def _persons(found: list[Any], seen: Size, size: Size) -> tuple[Thing, ...]:
    things = []
    scale = torch.tensor([size[1] / seen[1], size[0] / seen[0]])
    whole = torch.tensor([seen[1], seen[0]], dtype=torch.float32)
    for pose in found:
        points = torch.full((POINTS, 2), -1.0)
        body = [None if p is None else (p.x * seen[1], p.y * seen[0]) for p in pose.body.keypoints]
        for index, point in enumerate(body):
            if point is not None:
                # Bodies' points are whole pixels, up to the last bit of a division.
                points[index] = torch.tensor(point).round()
        for part, listed in ((LEFT_HAND, pose.left_hand), (RIGHT_HAND, pose.right_hand), (FACE, pose.face)):
            if listed:
                seen_points = torch.tensor([(float(p.x), float(p.y)) for p in listed]) * whole
                points[part.start : part.start + len(seen_points)] = seen_points
        there = (points >= 0).all(1)
        points = torch.where(there[:, None], points * scale, -1.0)
        low, high = points[there].amin(0), points[there].amax(0)
        score = min(1.0, max(0.0, float(pose.body.total_score) / max(1.0, float(pose.body.total_parts))))
        things.append(Thing(PERSON, score, (*low.tolist(), *high.tolist()), points=points))
    return tuple(things)


_URL = "https://github.com/huggingface/controlnet_aux"
_ANNOTATORS = "lllyasviel/Annotators"
_THIS = "models/controlnet_aux.py"
_SHARED: dict[str, Any] = {"family": "controlnet_aux", "produces": ("lines",)}

ESTIMATORS: tuple[Estimator, ...] = (
    Canny(
        id="canny",
        name="Canny",
        licence=Licence("Apache-2.0", True, "https://github.com/opencv/opencv/blob/4.x/LICENSE"),
        parameters=1,
        sources=(),
        embedded=_THIS,
        about="Edges where brightness jumps; no network, runs at once and offline.",
        memory=32,
        options=(
            Option("low_threshold", 100, 0, 255, about="A faint edge counts from here where it touches a strong one."),
            Option("high_threshold", 200, 0, 255, about="A strong edge counts from here."),
        ),
        **_SHARED,
    ),
    StandardLineart(
        id="lineart-standard",
        name="Standard Lineart",
        licence=Licence("Apache-2.0", True, _URL),
        parameters=1,
        sources=(),
        embedded=_THIS,
        about="What is darker than its surroundings, as lines; no network, runs at once and offline.",
        memory=64,
        enlarge="cubic",
        options=(
            Option("sigma", 6.0, 0.1, 100.0, about="How far around a pixel its surroundings reach, in pixels."),
            Option("threshold", 8, 0, 16, about="Darker by more than this counts when the strength is evened out."),
        ),
        **_SHARED,
    ),
    Hed(
        id="hed",
        name="HED",
        licence=Licence("Apache-2.0", True, _URL),
        parameters=14_716_168,
        sources=(published(_ANNOTATORS, "ControlNetHED.pth"),),
        about="Soft edges of things and of what is in them; the classic of soft-edge control.",
        memory=1600,
        options=(_DRAWING, _SAFE, _SCRIBBLE),
        **_SHARED,
    ),
    PidiNet(
        id="pidinet",
        name="PiDiNet",
        licence=Licence("not stated", None, "https://github.com/hellozhuo/pidinet"),
        parameters=710_149,
        sources=(published(_ANNOTATORS, "table5_pidinet.pth"),),
        about="Soft edges with less of what is in things; small and quick.",
        memory=2400,
        options=(
            _DRAWING,
            _SAFE,
            _SCRIBBLE,
            Option("filter", False, about="Whole lines or none: what is stronger than one half becomes white."),
        ),
        **_SHARED,
    ),
    Lineart(
        id="lineart",
        name="Lineart",
        enlarge="linear, dark",
        licence=Licence("MIT", True, "https://github.com/carolineec/informative-drawings"),
        parameters=4_290_945,
        sources=(published(_ANNOTATORS, "sk_model.pth"),),
        about="Fine lines as an illustrator draws a photograph.",
        memory=1600,
        options=(_DRAWING,),
        **_SHARED,
    ),
    Lineart(
        id="lineart-coarse",
        name="Lineart, coarse",
        enlarge="linear, dark",
        licence=Licence("MIT", True, "https://github.com/carolineec/informative-drawings"),
        parameters=4_290_945,
        sources=(published(_ANNOTATORS, "sk_model2.pth"),),
        about="Fewer and bolder lines than lineart.",
        memory=1600,
        options=(_DRAWING,),
        **_SHARED,
    ),
    AnimeLineart(
        id="lineart-anime",
        name="Lineart, anime",
        enlarge="linear, dark",
        licence=Licence("not stated", None, f"https://huggingface.co/{_ANNOTATORS}"),
        parameters=54_405_505,
        sources=(published(_ANNOTATORS, "netG.pth"),),
        about="Lines as anime is drawn.",
        memory=1600,
        options=(_DRAWING,),
        **_SHARED,
    ),
    Mlsd(
        id="mlsd",
        name="M-LSD",
        licence=Licence("Apache-2.0", True, "https://github.com/navervision/mlsd"),
        parameters=1_533_680,
        sources=(
            published("lllyasviel/ControlNet", "annotator/ckpts/mlsd_large_512_fp32.pth"),
            published(_ANNOTATORS, "mlsd_large_512_fp32.pth"),
        ),
        about="Straight lines alone: buildings and rooms.",
        memory=1600,
        options=(
            Option("score", 0.1, 0.01, 2.0, about="The least score of a line."),
            Option("distance", 0.1, 0.01, 20.0, about="The least length of a line, in half pixels."),
        ),
        **_SHARED,
    ),
    Teed(
        id="teed",
        name="TEED",
        licence=Licence("MIT", True, "https://github.com/xavysp/TEED"),
        parameters=58_910,
        sources=(published("fal-ai/teed", "5_model.pth"),),
        about="Soft edges by a network of very few numbers.",
        memory=1200,
        options=(
            _DRAWING,
            Option("steps", 2, 0, 10, about="How many strengths of line there are; 0 = all, which alone can be float."),
        ),
        **_SHARED,
    ),
    Anyline(
        id="anyline",
        name="Anyline",
        detect=1280,
        licence=Licence("not stated", None, "https://huggingface.co/TheMistoAI/MistoLine"),
        parameters=58_910,
        sources=(published("TheMistoAI/MistoLine", "Anyline/MTEED.pth"),),
        about="Edges and fine lines in one, for MistoLine.",
        memory=1600,
        options=(
            Option("sigma", 2.0, 0.1, 100.0, about="How far around a pixel its surroundings reach, in pixels."),
            Option("threshold", 3, 0, 16, about="Darker by more than this counts when the strength is evened out."),
            Option("merged", True, about="Edges and fine lines; off: the edges alone."),
        ),
        **_SHARED,
    ),
    OpenPose(
        id="openpose",
        name="OpenPose",
        family="controlnet_aux",
        produces=("people",),
        licence=Licence(
            "CMU academic", False, "https://github.com/CMU-Perceptual-Computing-Lab/openpose/blob/master/LICENSE"
        ),
        parameters=127_569_476,
        sources=(published(_ANNOTATORS, "body_pose_model.pth", also=("hand_pose_model.pth", "facenet.pth")),),
        about="People with the points of their bodies, hands and faces, for pose control.",
        memory=2400,
        options=(
            Option("hands", True, about="Find the points of hands as well."),
            Option("faces", True, about="Find the points of faces as well."),
        ),
    ),
)
