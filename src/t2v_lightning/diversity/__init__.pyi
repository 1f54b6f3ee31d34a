from .coefficient import cross_diversity_coefficient as cross_diversity_coefficient
from .coefficient import diversity_coefficient as diversity_coefficient
from .embedded import EmbeddedBatches as EmbeddedBatches
from .embedded import embed_batches as embed_batches
from .result import CrossDiversity as CrossDiversity
from .result import DatasetDiversity as DatasetDiversity
