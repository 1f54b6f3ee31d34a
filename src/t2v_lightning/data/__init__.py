"""Tasks to embed: datamodules by name, the base to write your own on, and the algebra of tasks."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
