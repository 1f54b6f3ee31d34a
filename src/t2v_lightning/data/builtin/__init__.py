"""Tasks cut from images that installed packages carry: no download."""
