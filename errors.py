"""The errors that Fathom raises on purpose: each says what was expected, what came and what to do."""


class FathomError(RuntimeError):
    """Any error with a message written for the person who reads it."""


class PictureError(FathomError, ValueError):
    """The picture given cannot be used."""


class SignalError(FathomError, ValueError):
    """A Depth, Normals or Segmentation cannot be made or used as asked."""


class SettingError(FathomError, ValueError):
    """A parameter has a value outside its range or of the wrong type."""


class WeightsError(FathomError):
    """The weights of an estimator cannot be found, fetched, trusted or loaded."""
