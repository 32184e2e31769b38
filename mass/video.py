"""Frames of a video, by their presentation time; and videos of frames, with the times kept."""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import torch

from ..errors import FathomError, PictureError
from ..signals import Depth
from ..signals.field import percentiles
from . import stores

if TYPE_CHECKING:
    from .job import Job, Wanted
    from .manifest import Ledger, Record
    from .sources import Item


def _open(path: str) -> Any:
    try:
        import av
        from av.error import FFmpegError
    except ImportError as error:
        raise FathomError(f"{path}: video needs PyAV: pip install av.") from error
    try:
        return av.open(stores.open_file(path) if stores.is_url(path) else path)
    except FFmpegError as error:
        raise PictureError(f"is not a video that FFmpeg can read: {error.strerror}") from error


def _stream(container: Any) -> Any:
    stream = next((s for s in container.streams.video if not s.disposition & 0x400), None)  # not a cover picture
    if stream is None:
        raise PictureError("holds no video stream")
    return stream


def frame_times(path: str) -> list[int]:
    """The presentation time of every frame in the stream's units, rising: 8 bytes a frame, nothing is decoded."""
    from av.error import FFmpegError

    with _open(path) as container:
        stream = _stream(container)
        times = set()
        try:
            for packet in container.demux(stream):
                if packet.pts is not None and packet.size and not packet.is_discard:
                    times.add(packet.pts)
        except FFmpegError as error:
            if not times:
                raise PictureError(f"cannot be read: {error.strerror}") from error
        return sorted(times)


def time_base(path: str) -> Fraction:
    """Seconds of one unit of the frames' times."""
    with _open(path) as container:
        return _stream(container).time_base


class Frames:
    """A video read frame by frame, mostly forwards. For many threads at once, one decoding at a time."""

    KEEP = 24

    def __init__(self, path: str) -> None:
        self._container = _open(path)
        self._stream = _stream(self._container)
        self._stream.thread_type = "AUTO"
        self._lock = threading.Lock()
        self._held: OrderedDict[int, tuple[Any, str, int]] = OrderedDict()
        self._frames: Any = None
        self._at: int | None = None

    def frame(self, pts: int) -> tuple[Any, str, int]:
        """The frame at `pts`: uint8 or float tensor (1,H,W,3) upright, hash of its pixels, their bytes.

        Raises PictureError when it cannot be decoded.
        """
        from av.error import FFmpegError

        with self._lock:
            if pts in self._held:
                return self._held[pts]
            try:
                # A little ahead is reached by decoding on; anything else from the key frame before.
                if self._at is None or not self._at < pts or self._far(pts):
                    self._container.seek(pts, stream=self._stream)
                    self._frames = self._container.decode(self._stream)
                    self._at = None
                for frame in self._frames:
                    if frame.pts is None:
                        continue
                    self._at = frame.pts
                    # Neighbours are what other threads ask for next.
                    if frame.pts >= pts or self._near(frame.pts, pts):
                        self._keep(frame)
                    if frame.pts >= pts:
                        break
            except FFmpegError as error:
                self._at = None
                raise PictureError(f"the frame cannot be decoded: {error.strerror}") from error
            if pts not in self._held:
                self._at = None if self._at is None or self._at < pts else self._at
                raise PictureError("the video has no such frame: it is damaged, or changed since it was listed.")
            return self._held[pts]

    def _seconds(self, units: int) -> float:
        return float(units * self._stream.time_base)

    def _far(self, pts: int) -> bool:
        return self._at is not None and self._seconds(pts - self._at) > 5

    def _near(self, earlier: int, pts: int) -> bool:
        return self._seconds(pts - earlier) < 0.5

    def _keep(self, frame: Any) -> None:
        import numpy as np

        wide = frame.format.components and frame.format.components[0].bits > 8
        array = frame.to_ndarray(format="rgb48le" if wide else "rgb24")
        turn = (getattr(frame, "rotation", 0) or 0) % 360
        array = np.ascontiguousarray(np.rot90(array, turn // 90))
        sha256 = hashlib.sha256(array.data).hexdigest()
        size = array.nbytes
        if wide:
            array = array.astype(np.float32) / 65535
        self._held[frame.pts] = (torch.from_numpy(array)[None], sha256, size)
        while len(self._held) > self.KEEP:
            self._held.popitem(last=False)


# ------------------------------------------------------------------------------------------------ writing


class Film:
    """One video whose results become a video each: FFV1 in .mkv, exact, the source's times to the millisecond.

    Depth is rendered between the ends of all frames together, so that it does not flicker. first: the source's first
    frame. index: of its first chunk.
    """

    def __init__(self, store: stores.Store, job: Job, ledger: Ledger, first: Item, index: int) -> None:
        self.store, self.job, self.ledger, self.index = store, job, ledger, index
        self.path, self.name = first.path, first.container
        self.id = "video-" + hashlib.sha256(os.path.splitext(self.name)[0].encode()).hexdigest()[:20]

    def target(self, wanted: Wanted) -> str:
        """The name of one signal's video."""
        return f"{os.path.splitext(self.name)[0]}_{wanted.name}.mkv"

    def whole(self) -> bool:
        """Whether an earlier run has finished this video and its source is the same."""
        lines: list[Any] = self.ledger.told(self.id)
        if not lines or any("error" in line for line in lines):
            return False
        try:
            if lines[0]["source"] != self.path or lines[0]["changed"] != stores.stat(self.path).changed:
                return False
        except OSError:
            return False
        for name, about in lines[0]["outputs"].items():
            if self.store.size(name) != about["size"]:
                return False
            if self.ledger.verify and hashlib.sha256(self.store.read(name) or b"").hexdigest() != about["sha256"]:
                return False
        self.ledger.seen(self.id, self.index, False)
        return True

    def assemble(self) -> None:
        """Write the videos from the frames, then one manifest in the place of the frames' own."""
        chunks = self.ledger.since(self.index)
        records = [line for id in chunks for line in self.ledger.told(id)[1:]]
        base = time_base(self.path)
        times = frame_times(self.path)
        made = [(times[int(r["name"].rpartition("/")[2])], r) for r in records if "outputs" in r]
        outputs = {self.target(w): self._write(w, made, base) for w in self.job.signals if made}
        about = {"source": self.path, "changed": stores.stat(self.path).changed, "outputs": outputs}
        kept: list[Record] = [
            {"name": r["name"], "input": r["input"], "seconds": float(pts * base)} for pts, r in made
        ] + [r for r in records if "error" in r]
        self.ledger.replace(self.id, self.index, about, kept, chunks)
        for _, record in made:
            for name in record["outputs"]:
                self.store.remove(name)

    def _frames(self, wanted: Wanted, made: list[tuple[int, Record]]) -> Iterator[tuple[int, Any]]:
        for pts, record in made:
            yield pts, self._load(next(n for n in record["outputs"] if n.endswith(f"_{wanted.name}.png")), record)

    def _load(self, name: str, record: Record) -> Any:
        """A frame as it was stored: Depth, or uint8 or uint16 RGB (H,W,3)."""
        import numpy as np

        from ..signals.files import decode_png
        from ..signals.opencv import opencv

        data = self.store.read(name)
        if data is None:
            raise FathomError(f"{self.store.path(name)} is gone: run the same command again.")
        if f"{name[:-4]}.json" in record["outputs"]:
            return decode_png(data)
        cv2 = opencv("Making videos")
        array: Any = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        return np.ascontiguousarray(array[..., ::-1])

    def _write(self, wanted: Wanted, made: list[tuple[int, Record]], base: Fraction) -> Record:
        import av
        import numpy as np

        look = self._look(wanted, made)
        wide = wanted.format not in ("png", "webp")
        stream: Any = None
        array: Any
        folder = None if self.store.remote else self.store.path(stores.TEMPORARY)
        with tempfile.TemporaryFile(dir=folder) as file:
            film: Any
            with av.open(file, "w", format="matroska", options={"fflags": "+bitexact"}) as film:
                for pts, frame in self._frames(wanted, made):
                    if isinstance(frame, Depth):
                        plane = (frame.to_image(look=look)[0, :, :, 0] * (65535 if wide else 255)).round().numpy()
                        array, kind = plane.astype(np.uint16 if wide else np.uint8), "gray16le" if wide else "gray"
                    else:
                        array, kind = frame, "rgb48le" if frame.dtype == np.uint16 else "rgb24"
                    if stream is None:
                        stream = film.add_stream("ffv1", rate=30)
                        stream.height, stream.width = array.shape[:2]
                        stream.pix_fmt = {"rgb24": "bgr0", "rgb48le": "gbrp16le"}.get(kind, kind)
                        stream.time_base = stream.codec_context.time_base = base
                        stream.options = {"flags": "+bitexact", "level": "3"}
                        stream.codec_context.thread_count = 1
                    shown = av.VideoFrame.from_ndarray(array, format=kind).reformat(format=stream.pix_fmt)
                    shown.pts, shown.time_base = pts, base
                    film.mux(stream.encode(shown))
                film.mux(stream.encode(None))
            return self._publish(file, self.target(wanted))

    def _publish(self, file: Any, name: str) -> Record:
        made, size = hashlib.sha256(), 0
        file.seek(0)
        with self.store.writing(name) as part:
            while block := file.read(2**22):
                made.update(block)
                size += part.write(block)
        return {"size": size, "sha256": made.hexdigest()}

    def _look(self, wanted: Wanted, made: list[tuple[int, Record]]) -> Any:
        """The rendering of all frames: the published one between ends that all frames share."""
        look, lows, highs = None, [], []
        for _, frame in self._frames(wanted, made):
            if not isinstance(frame, Depth):
                return None
            look = frame.look
            if look.fixed is not None:
                return look
            field = frame.values if look.space == "values" else frame.metres()
            seen = field.isfinite() if frame.valid is None else field.isfinite() & frame.valid
            if bool(seen.any()):
                low, high = percentiles(field.masked_fill(~seen, 0.0), (look.low, look.high), seen, "image")
                lows.append(float(low))
                highs.append(float(high))
        if look is None or not lows:
            return look
        # The ends of everything where they are the extremes; else the mean, which one odd frame moves little.
        low = min(lows) if look.low == 0 else float(torch.tensor(lows, dtype=torch.float64).mean())
        high = max(highs) if look.high == 100 else float(torch.tensor(highs, dtype=torch.float64).mean())
        return replace(look, fixed=(low, high))
