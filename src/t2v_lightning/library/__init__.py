"""A library of tasks and experts, which answers the question of which network to use."""

from t2v_lightning.library.builtin import builtin_library
from t2v_lightning.library.neighbours import Neighbour
from t2v_lightning.library.protocol import Protocol
from t2v_lightning.library.recommendation import Recommendation
from t2v_lightning.library.results import Result, ResultTable
from t2v_lightning.library.task_library import TaskLibrary

__all__ = [
    "Neighbour",
    "Protocol",
    "Recommendation",
    "Result",
    "ResultTable",
    "TaskLibrary",
    "builtin_library",
]
