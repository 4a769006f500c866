"""The experiments. Each module defines one or more `Experiment`s; an experiment runs in a fresh environment."""
