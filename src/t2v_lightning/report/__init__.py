"""Reports on embeddings of tasks: a page to explore, figures, tables and TensorBoard pages.

`python -m t2v_lightning.report multirun/montecarlo` writes it for a finished sweep.
"""

from t2v_lightning.embedding.collection import find_embeddings, load_embeddings, thumbnails_of
from t2v_lightning.embedding.run_folder import EMBEDDING_FILE
from t2v_lightning.report.comparison import Comparison, compare, task_names
from t2v_lightning.report.tables import print_table
from t2v_lightning.report.writing import write_report

__all__ = [
    "EMBEDDING_FILE",
    "Comparison",
    "compare",
    "find_embeddings",
    "load_embeddings",
    "print_table",
    "task_names",
    "thumbnails_of",
    "write_report",
]
