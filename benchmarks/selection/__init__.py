"""Which pretrained network should I use? Every recommendation of `t2v_lightning.library` against the truth.

    cd benchmarks
    python -m selection fetch --cache ~/selection     # packages with images: about 550 MB
    python -m selection measure --cache ~/selection   # tasks, experts, truth; goes on where it was stopped
    python -m selection table --cache ~/selection     # the table, as Markdown
    python -m selection library --cache ~/selection --sizes 64 --to library  # a library of all that was measured

`sources` makes sets of images out of packages, `tasks` labels them in several ways, `experts` fine-tunes networks and
stores what each makes of every image, `truth` probes them, and `advice` asks each method which expert it would take.
"""
