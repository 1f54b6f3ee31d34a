"""Peak memory in a process of its own: it grows only by the stored features, or not even by those."""

import json
import os
import subprocess
import sys

import pytest

SCRIPT = """
import json
import torch
from torch import nn
from t2v_lightning import ProbeNetwork, Task2Vec
from t2v_lightning.phases import HeadOptions
torch.set_num_threads(1)

class Images(torch.utils.data.Dataset):
    def __init__(self, n):
        self.targets = (torch.arange(n) % 2).tolist()
    def __len__(self):
        return len(self.targets)
    def __getitem__(self, i):
        return torch.full((3, 64, 64), float(i % 2)) + 0.1 * torch.sin(torch.arange(64) * (i + 1.0)), i % 2

net = nn.Sequential(
    nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(64), nn.Flatten(), nn.Linear(16384, 2)
)
probe = ProbeNetwork.from_module(net, input_size=(3, 64, 64))

def peak(n, budget):
    head = HeadOptions({head!r}, epochs=1, num_samples=500)
    Task2Vec(probe, head=head, max_samples=None, features_budget=budget).embed(Images(n), batch_size=12, progress=False)
    # ru_maxrss would not do: a child inherits that of the process that started it
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return int(status["VmHWM"].split()[0]) * 1024 / 1e6

print(json.dumps([peak({few}, 0), peak({many}, 0), peak({many}, 4)]))
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="peak memory is read from /proc")
@pytest.mark.parametrize("head", ["adam", pytest.param("lbfgs", marks=pytest.mark.slow)])
@pytest.mark.slow
def test_peak_memory_grows_by_the_stored_features_alone(head: str) -> None:
    few, many = 250, 1000
    code = SCRIPT.format(few=few, many=many, head=head)
    for _ in range(3):  # the system's own bookkeeping can add some 50 MB to one of them
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        base, in_a_file, in_memory = json.loads(done.stdout.splitlines()[-1])
        if in_a_file - base < 20:
            break
    features = many * 16384 * 4 / 1e6  # 66 MB; those in the file have grown by 49 MB, and the images by 37 MB
    assert in_a_file - base < 20
    doubles = 4 * features  # fits without each group of images: inputs in float64, and a basis of their space
    # below the features themselves, as other phases have a peak of their own
    assert features / 4 < in_memory - base < 1.2 * features + doubles
