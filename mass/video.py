"""Frames of a video, in the order in which FFmpeg decodes them; and videos of frames, with the times kept."""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import torch

from ..errors import FathomError, PictureError
from ..signals import Depth
from ..signals.field import percentiles
from . import stores
from .sources import LibraryError, readable

if TYPE_CHECKING:
    from .job import Job, Wanted
    from .manifest import Ledger, Record
    from .sources import Item


def _open(path: str) -> Any:
    try:
        import av
        from av.error import FFmpegError
    except ImportError as error:
        raise LibraryError(f"{path}: video needs PyAV: pip install av.") from error
    stores.check_file(path)
    # FFmpeg takes names as UTF-8 alone.
    source = path if not stores.is_url(path) and path.isprintable() else stores.open_file(path)
    try:
        return av.open(source)
    except FFmpegError as error:
        raise PictureError(f"is not a video that FFmpeg can read: {error.strerror}") from error


def _is_cover(stream: Any) -> bool:
    """Whether a stream is the picture of a cover. In PyAV up to 16 at least its flags are no whole numbers."""
    flags = stream.disposition
    return bool(getattr(flags, "value", flags) & 0x400)


def _stream(container: Any) -> Any:
    stream = next((s for s in container.streams.video if not _is_cover(s)), None)
    if stream is None:
        raise PictureError("holds no video stream")
    stream.thread_type = "AUTO"
    return stream


def _decoded(container: Any, stream: Any) -> Iterator[Any]:
    """Every frame that FFmpeg decodes from where the container stands, in its order.

    Packets say too little: some hold no frame, some two, some are for the decoder alone, and their times may be missing
    or those of decoding. A damaged packet costs its own frames.
    """
    from av.error import FFmpegError

    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except FFmpegError:  # the file ends here, as it does for FFmpeg
            return
        if packet is None:
            return
        with suppress(FFmpegError):
            yield from packet.decode()


def _time(frame: Any) -> int | None:
    return frame.dts if frame.pts is None else frame.pts


def _mark(frame: Any) -> str:
    """A hash of the decoded planes: what tells that a frame reached by a seek is the one that was listed."""
    try:
        planes = frame.to_ndarray()
    except ValueError:  # a layout that PyAV has no array for
        planes = frame.to_ndarray(format="rgb24")
    digest = hashlib.sha256()
    for plane in planes if isinstance(planes, tuple) else (planes,):
        digest.update(plane.tobytes())
    return digest.hexdigest()[:16]


def listed_frames(path: str) -> Iterator[tuple[int | None, str]]:
    """Time in the stream's units (None = it has none) and hash of the planes of every frame, in the order of decoding
    from start to end. Raises PictureError when there is none."""
    some = False
    with _open(path) as container:
        for frame in _decoded(container, _stream(container)):
            some = True
            yield _time(frame), _mark(frame)
    if not some:
        raise PictureError("holds no frame that FFmpeg can decode.")


def told_frames(path: str) -> int:
    """About how many frames there are: as the file tells, or as many as there are packets. 0 = unknown."""
    with suppress(Exception), _open(path) as container:
        stream = _stream(container)
        return stream.frames or sum(1 for packet in container.demux(stream) if packet.size)
    return 0


def time_base(path: str) -> Fraction:
    """Seconds of one unit of the frames' times."""
    with _open(path) as container:
        return _stream(container).time_base


def units_per_frame(path: str) -> int:
    """How many units of its time base a frame takes on average, at least 1."""
    with _open(path) as container:
        stream = _stream(container)
        rate = stream.average_rate or stream.base_rate or 30
        return max(1, round(1 / (rate * stream.time_base)))


class Frames:
    """A video read frame by frame, mostly forwards. For many threads at once, one decoding at a time."""

    KEEP = 2**28  # bytes of frames, and
    LEAST = 8  # frames whatever their size
    NEAR = 24  # frames before the one asked for are kept as well: other threads ask for them next
    FAR = 100  # frames ahead are reached by decoding on

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._cache: OrderedDict[int, tuple[Any, str, int, str]] = OrderedDict()
        self._restart()

    def _restart(self) -> None:
        self._container = _open(self._path)
        self._stream = _stream(self._container)
        self._frames = _decoded(self._container, self._stream)
        self._at = -1
        self._sought = False

    def frame(self, number: int, time: int | None, mark: str) -> tuple[Any, str, int]:
        """The frame `number`, from 0, with the time and the mark that it was listed with: uint8 or float tensor
        (1,H,W,3) upright, hash of its pixels, their bytes.

        Raises PictureError when it cannot be decoded.
        """
        with self._lock:
            if self._proven(number, mark):
                return self._cache[number][:3]
            if not self._at < number <= self._at + self.FAR:
                self._seek(number, time, mark)
            self._decode_to(number)
            if self._sought and not self._proven(number, mark):
                # A seek may land among frames that do not decode as they do from the start.
                self._restart()
                self._decode_to(number)
            if not self._proven(number, mark):
                raise PictureError("the video has no such frame: it is damaged, or changed since it was listed.")
            return self._cache[number][:3]

    def _proven(self, number: int, mark: str) -> bool:
        """Whether the frame is here, and is the one listed; what was decoded from the start needs no proof."""
        return number in self._cache and self._cache[number][3] in ("", mark)

    def _decode_to(self, number: int) -> None:
        while self._at < number:
            frame = next(self._frames, None)
            if frame is None:
                return
            self._at += 1
            if number - self._at < self.NEAR:
                self._keep(self._at, frame, _mark(frame) if self._sought else "")

    def _seek(self, number: int, time: int | None, mark: str) -> None:
        """Stand on the frame by its time, if the frame found there is the one listed; else at the start."""
        from av.error import FFmpegError

        if time is not None and number > self.FAR:
            # Where there is no index, as in MPEG-TS, a seek may land behind the key frame that the picture needs.
            for earlier in (0, round(10 / self._stream.time_base)):
                with suppress(FFmpegError):
                    self._container.seek(max(0, time - earlier), stream=self._stream)
                    self._frames = _decoded(self._container, self._stream)
                    for frame in self._frames:
                        if (found := _time(frame)) == time and _mark(frame) == mark:
                            self._at, self._sought = number, True
                            return self._keep(number, frame, mark)
                        if found is None or found > time:
                            break
        self._restart()

    def _keep(self, number: int, frame: Any, mark: str) -> None:
        import numpy as np

        wide = frame.format.components and frame.format.components[0].bits > 8
        array = frame.to_ndarray(format="rgb48le" if wide else "rgb24")
        turn = (getattr(frame, "rotation", 0) or 0) % 360
        array = np.ascontiguousarray(np.rot90(array, turn // 90))
        sha256 = hashlib.sha256(array.data).hexdigest()
        size = array.nbytes
        if wide:
            array = array.astype(np.float32) / 65535
        self._cache.pop(number, None)
        self._cache[number] = (torch.from_numpy(array)[None], sha256, size, mark)
        while len(self._cache) > self.LEAST and sum(entry[0].nbytes for entry in self._cache.values()) > self.KEEP:
            self._cache.popitem(last=False)


# ------------------------------------------------------------------------------------------------ writing


class VideoAssembly:
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
        lines: list[Any] = self.ledger.lines(self.id)
        if not lines or any("error" in line for line in lines):
            return False
        head = lines[0]
        try:
            if head.get("source") != readable(self.path) or head.get("changed") != stores.stat(self.path).changed:
                return False
        except OSError:
            return False
        if not head.get("outputs"):
            return False
        for name, about in head["outputs"].items():
            if self.store.size(name) != about["size"]:
                return False
            if self.ledger.verify and hashlib.sha256(self.store.read(name) or b"").hexdigest() != about["sha256"]:
                return False
        self.ledger.seen(self.id, self.index, False)
        return True

    def assemble(self) -> bool:
        """Write the videos from the frames, then one manifest in the place of the frames' own. False: they cannot be
        put into one video, which is listed as a failure."""
        chunks = self.ledger.since(self.index)
        records = [line for id in chunks for line in self.ledger.lines(id)[1:]]
        base = time_base(self.path)
        frames = list(self._timed([r for r in records if "outputs" in r]))
        about = {"source": readable(self.path), "changed": stores.stat(self.path).changed}
        kept: list[Record] = [
            {"name": r["name"], "input": r["input"], "seconds": float(pts * base)} for pts, r in frames
        ] + [r for r in records if "error" in r]
        wrong = ""
        try:
            outputs = {self.target(w): self._write(w, frames, base) for w in self.job.signals if frames}
        except PictureError as error:
            outputs, wrong = {}, str(error)
            kept.append({"name": self.name, "source": readable(self.path), "error": wrong})
        self.ledger.replace(self.id, self.index, {**about, "outputs": outputs}, kept, chunks)
        for _, record in frames:
            for name in record["outputs"]:
                self.store.remove(name)
        return not wrong

    def _timed(self, records: list[Record]) -> Iterator[tuple[int, Record]]:
        """Each frame with its time; where the source tells none, or one that does not rise, an average frame later."""
        step, last = units_per_frame(self.path), None
        for record in records:
            time = record["input"].get("time")
            if not isinstance(time, int) or (last is not None and time <= last):
                time = 0 if last is None else last + step
            last = time
            yield time, record

    def _frames(self, wanted: Wanted, frames: list[tuple[int, Record]]) -> Iterator[tuple[int, Any]]:
        for pts, record in frames:
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

    def _write(self, wanted: Wanted, frames: list[tuple[int, Record]], base: Fraction) -> Record:
        import av
        import numpy as np

        look = self._look(wanted, frames)
        wide = wanted.format not in ("png", "webp")
        stream: Any = None
        array: Any
        folder = None if self.store.remote else self.store.path(stores.TEMPORARY)
        with tempfile.TemporaryFile(dir=folder) as file:
            film: Any
            with av.open(file, "w", format="matroska", options={"fflags": "+bitexact"}) as film:
                for pts, frame in self._frames(wanted, frames):
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
                    if array.shape[:2] != (stream.height, stream.width):
                        raise PictureError(
                            f"at {float(pts * base):.2f} s its frames change from {stream.width}x{stream.height} to "
                            f"{array.shape[1]}x{array.shape[0]}, and a video has one size: use --video frames."
                        )
                    shown = av.VideoFrame.from_ndarray(array, format=kind).reformat(format=stream.pix_fmt)
                    shown.pts, shown.time_base = pts, base
                    film.mux(stream.encode(shown))
                film.mux(stream.encode(None))
            return self._publish(file, self.target(wanted))

    def _publish(self, file: Any, name: str) -> Record:
        digest, size = hashlib.sha256(), 0
        file.seek(0)
        with self.store.writing(name) as part:
            while block := file.read(2**22):
                digest.update(block)
                size += part.write(block)
        return {"size": size, "sha256": digest.hexdigest()}

    def _look(self, wanted: Wanted, frames: list[tuple[int, Record]]) -> Any:
        """The rendering of all frames: the published one between ends that all frames share."""
        look, lows, highs = None, [], []
        for _, frame in self._frames(wanted, frames):
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
