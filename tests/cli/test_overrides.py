"""Typing errors on the command line, and the words that Hydra gets."""

import pytest

from t2v_lightning.cli.overrides import check, for_hydra
from t2v_lightning.cli.wording import in_settings


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("task2vec.pases=2", "got task2vec.pases=2, .*did you mean 'task2vec.passes'?"),
        ("max_samples=20", "did you mean 'task2vec.max_samples'?"),
        ("datset=digits", "did you mean 'dataset'?"),
        ("sed=3", "did you mean 'seed'?"),
        ("dataset.rot=here", "did you mean 'dataset.root'?"),
        ("dataset=digit", "there is no dataset 'digit'; did you mean 'digits'?"),
        ("dataset=digits,facse -m", "there is no dataset 'facse'; did you mean 'faces'?"),
        ("task2vec=fisher", "allowed are montecarlo, variational"),
        ("experiment=tuor", "did you mean 'tour'?"),
        ("hydra/launcher=jobib -m", "did you mean 'joblib'?"),
        (
            "task2vec=variational task2vec.passes=2",
            "a setting of task2vec=montecarlo, not of task2vec=variational",
        ),
        ("dataset.table=x.csv", "a setting of dataset=image_folder or text, not of dataset=digits"),
        ("hydra.run.dri=here", "did you mean 'hydra.run.dir'?"),
        ("my_photos", "settings are written name=value.* t2v embed my_photos"),
    ],
)
def test_a_typing_error_says_what_may_have_been_meant(words: str, text: str) -> None:
    with pytest.raises(ValueError, match=text.replace("?", r"\?")) as caught:
        check(words.split())
    assert "+" not in str(caught.value)


@pytest.mark.parametrize(
    "words",
    [
        "dataset.name=image_folder dataset.table=x.csv dataset.label_column=[a,b]",
        "experiment=text_tour probe.max_length=64",
        "experiment=cub_inat2018 dataset.task_id=3",
        "task2vec.method=variational task2vec.beta=1e-6",
        "probe=resnet101 probe.input_size=64,96 -m",
        "probe=minilm probe.pooling=cls dataset=letters",
        "trainer.anything=1 +new.key=1 ++task2vec.colour=red ~logger",
        "hydra.run.dir=mine hydra.mode=MULTIRUN hydra.job.name=x hydra.verbose=true",
        "hydra/launcher=joblib hydra.launcher.n_jobs=2 hydra.sweeper.max_batch_size=4 -m",
        "task2vec.head={method:lbfgs} experiment=null logger=csv",
        "--cfg job dataset=digits",
        "--config-dir mine experiment=own whatever=1",
        "dataset=choice(image_folder,text) dataset.table=x.csv -m",
        "dataset.name=anything",
    ],
)
def test_what_may_be_right_passes(words: str) -> None:
    check(words.split())


def test_a_name_means_the_same_with_and_without_its_last_part() -> None:
    assert for_hydra(["dataset.name=cub200"]) == for_hydra(["dataset=cub200"]) == ["dataset=cub200"]
    assert for_hydra(["dataset.name=digits,photo"]) == ["dataset.name=digits,photo"]  # one job of it fails
    assert for_hydra(["dataset=hf", "dataset.name=hf"]) == ["dataset=hf", "dataset.name=hf"]
    assert (
        for_hydra(["task2vec=variational", "task2vec.method=montecarlo"])[1] == "task2vec.method=montecarlo"
    )
    assert for_hydra(["probe=resnet18,resnet34"]) == ["probe=resnet18,resnet34"]


CONFIG = {
    "dataset": {"name": "digits", "batch_size": 64, "likelihood": None},
    "probe": {"name": "resnet18", "seed": 0},
    "task2vec": {
        "passes": 1,
        "likelihood": None,
        "seed": 0,
        "epochs": 2,
        "head": {"epochs": 9, "batch_size": 9},
    },
    "trainer": {"limit_train_batches": 0.5},
}


@pytest.mark.parametrize(
    ("text", "typed", "said"),
    [
        ("passes=0; at least one", "task2vec.passes=0", "task2vec.passes=0; at least one"),
        ("see x.passes=1 or f(passes=1)", "", "see x.passes=1 or f(passes=1)"),
        ("head epochs=0; it must be", "task2vec.head.epochs=0", "task2vec.head.epochs=0; it must be"),
        ("head epochs=0; it must be", "", "task2vec.head.epochs=0; it must be"),
        ("epochs=0; it must be", "task2vec.epochs=0", "task2vec.epochs=0; it must be"),
        ("got batch_size=0", "", "got batch_size=0"),
        ("got batch_size=0", "dataset.batch_size=0", "got dataset.batch_size=0"),
        ("seed must be a whole number", "+probe.seed=x", "probe.seed must be a whole number"),
        ("unknown likelihood 'x'", "task2vec.likelihood=x", "unknown task2vec.likelihood 'x'"),
        ("unknown head 'sgd'", "", "unknown task2vec.head.method 'sgd'"),
        ("Trainer(limit_train_batches=0.5) does not", "", "trainer.limit_train_batches=0.5 does not"),
    ],
)
def test_errors_name_settings_as_they_are_typed(text: str, typed: str, said: str) -> None:
    assert in_settings(text, CONFIG, [typed]) == said
