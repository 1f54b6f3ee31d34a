"""Errors of the data package. Each message says what was got, what is allowed, and what to do.

Every class takes one message, so that an error keeps its type when a DataLoader worker passes it on.
"""


class DataError(Exception):
    """Base of everything that this package raises about data."""


class UnknownDataModuleError(DataError, ValueError):
    """No datamodule is registered under the name that was asked for."""


class UnknownTaskError(DataError, ValueError):
    """The benchmark has no task of that number."""


class LabelError(DataError, ValueError):
    """Labels do not match the samples or the class names."""


class MissingDataError(DataError, FileNotFoundError):
    """Files of a benchmark are missing from where they are expected."""


class ImageSizeError(DataError, ValueError):
    """Images of different sizes cannot be stacked into a batch."""


class AnnotationError(DataError, ValueError):
    """A file of labels contradicts itself or cannot be read."""


class ImageError(DataError, OSError):
    """An image exists but cannot be read."""


class DownloadError(DataError, OSError):
    """A download failed."""
