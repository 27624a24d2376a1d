"""The polling loop and its watchers."""
