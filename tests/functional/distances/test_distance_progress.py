"""Progress of long computations of distances."""

from dataclasses import replace
from functools import partial

import pytest
from distance_examples import correlated_task, with_groups

from t2v_lightning.functional.distances import DISTANCES, cdist, pairwise, pdist


@pytest.mark.parametrize("name", ["cosine", "asymmetric_kl"])
def test_pairs_are_counted_to_the_end(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several threads and with the deletions of groups, where groups without images are not deleted."""
    embeddings = [
        with_groups(correlated_task(seed, images)) for seed, images in enumerate([100, 100, 20, 9, 50, 60])
    ]
    monkeypatch.setattr(pairwise, "DISTANCES", {name: replace(DISTANCES[name], tile=(2, 3))})
    for compute in (partial(pdist, embeddings), partial(cdist, embeddings[:3], embeddings)):
        for errors in (True, False):
            told: list[tuple[int, int]] = []
            compute(name, return_stderr=errors, progress=lambda *counts, told=told: told.append(counts))
            finished = [done for done, _ in told]
            assert finished == sorted(set(finished))
            assert {pairs for _, pairs in told} == {finished[-1]}


def test_nothing_is_printed_and_a_switch_is_no_function(capsys: pytest.CaptureFixture[str]) -> None:
    pdist([[1.0, 2.0], [3.0, 1.0]])
    assert capsys.readouterr() == ("", "")
    with pytest.raises(TypeError, match=r"progress must be a function of .* got True"):
        pdist([[1.0, 2.0], [3.0, 1.0]], progress=True)
