"""What the commands of ``train.cli.main`` do, where it is more than a few lines."""
