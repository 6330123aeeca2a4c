"""What the commands of ``train.cli`` do, where it is more than a few lines."""
