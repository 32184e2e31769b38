"""The errors that Fathom raises on purpose: each says what was expected, what came and what to do."""

# ComfyUI shows people the full name of an error, and would name the folder that the pack lies in.
_PACKAGE = "fathom"


class FathomError(RuntimeError):
    """Any error with a message written for the person who reads it."""

    __module__ = _PACKAGE


class PictureError(FathomError, ValueError):
    """The picture given cannot be used."""

    __module__ = _PACKAGE


class SignalError(FathomError, ValueError):
    """A Depth, Normals or Segmentation cannot be made or used as asked."""

    __module__ = _PACKAGE


class SettingError(FathomError, ValueError):
    """A parameter has a value outside its range or of the wrong type."""

    __module__ = _PACKAGE


class WeightsError(FathomError):
    """The weights of an estimator cannot be found, fetched, trusted or loaded."""

    __module__ = _PACKAGE
