"""The command ``irl-lens``: ``main`` assembles it, every other file is a command of that name."""
