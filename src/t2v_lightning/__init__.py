"""Task2Vec on PyTorch Lightning: task embeddings from the Fisher information of a pretrained probe."""

import lazy_loader

# Names come from where `__init__.pyi` says once they are used, as torch and Lightning take seconds to import.
__getattr__, __dir__, _ = lazy_loader.attach_stub(__name__, __file__)

__all__ = [
    "Embedding",
    "FilterwiseFisher",
    "ProbeNetwork",
    "Task2Vec",
    "Task2VecCallback",
    "__version__",
    "cross_diversity_coefficient",
    "diversity_coefficient",
    "embed",
    "embed_many",
    "get_probe",
    "to_pandas",
]
