"""Reports of finished runs: figures as data, plots, a page, pictures and text."""
