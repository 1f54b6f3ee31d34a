from .base import TaskDataModule as TaskDataModule
from .builtin.datamodule import BUILTIN_TASKS as BUILTIN_TASKS
from .builtin.datamodule import TEXT_TASKS as TEXT_TASKS
from .dataset import TaskDataset as TaskDataset
from .own.image_folder import ImageFolder as ImageFolder
from .registry import get_datamodule as get_datamodule
from .registry import list_datamodules as list_datamodules
from .task import Task as Task
