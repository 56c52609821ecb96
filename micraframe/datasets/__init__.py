"""The datasets that micraframe brings, and what a plugin's dataset may build on."""
