"""What experts of a short list do on the images of a draw: cross-validated when it asks for them, and kept."""

import numpy as np

from selection.experts import FIXED, Setting, load_expert, task_labels
from selection.tasks import draw, save
from selection.truth import positions_in_used
from t2v_lightning.library.short_list import PENALTY, REPEATS, error_of


class Tried:
    """Errors of experts on a draw of every task.

    Args:
        setting: folders and size.
        seed: of the experts.
        number: of the draw.
    """

    def __init__(self, setting: Setting, seed: int, number: int) -> None:
        self.setting, self.seed, self.number = setting, seed, number
        self.path = setting.path(f"tried_{REPEATS}_{PENALTY:g}_{seed}_{number}.npz")
        self.labels = task_labels(setting)
        self.known: dict[str, tuple[float, float]] = {}
        if self.path.exists():
            with np.load(self.path) as file:
                self.known = {key: tuple(file[key].tolist()) for key in file.files}

    def error(self, task: str, expert: str) -> tuple[float, float]:
        """Error in percent and its standard error, as `TaskLibrary.recommend` finds them."""
        key = f"{task} by {expert}"
        if key not in self.known:
            source, _, labels = self.labels[task]
            images = self.setting.pixels(source)
            chosen = draw(task, labels, images.side, self.number)
            outputs = load_expert(self.setting, expert, 0 if expert in FIXED else self.seed)
            features = outputs[source].features[positions_in_used(images)[chosen]]
            self.known[key] = error_of(features.astype(np.float64), labels[chosen])
        return self.known[key]

    def save(self) -> None:
        save(self.path, **{key: np.array(found) for key, found in self.known.items()})
