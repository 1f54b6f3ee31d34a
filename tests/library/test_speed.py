"""The time that a question takes, at a reduced size; ten thousand tasks and 500 experts took 0.6 s of one CPU."""

import time

import numpy as np
import pytest

from t2v_lightning import Embedding
from t2v_lightning.library import TaskLibrary


@pytest.mark.slow
def test_a_question_takes_a_tenth_of_a_second_for_each_thousand_tasks() -> None:
    rng = np.random.default_rng(0)
    library = TaskLibrary()
    for number in range(300):
        fisher = np.exp(rng.normal(size=8512))
        results = {f"expert {j}": 100 * float(rng.random()) for j in range(0, 40, 1 + number % 3)}
        library.add(Embedding(fisher, np.ones(8512)), results, name=f"task {number}", family=f"{number % 20}")
    embedding = Embedding(np.exp(rng.normal(size=8512)), np.ones(8512))
    library.recommend(embedding)
    began = time.process_time()
    library.recommend(embedding)
    assert time.process_time() - began < 0.3
