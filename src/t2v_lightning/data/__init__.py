"""Tasks to embed: datamodules by name, the base to write your own on, and the algebra of tasks."""

from t2v_lightning.data.base import TaskDataModule
from t2v_lightning.data.builtin.datamodule import BUILTIN_TASKS
from t2v_lightning.data.dataset import TaskDataset
from t2v_lightning.data.own.image_folder import ImageFolder
from t2v_lightning.data.registry import get_datamodule, list_datamodules
from t2v_lightning.data.task import Task

__all__ = [
    "BUILTIN_TASKS",
    "ImageFolder",
    "Task",
    "TaskDataModule",
    "TaskDataset",
    "get_datamodule",
    "list_datamodules",
]
