"""Evaluation suites: prompts from files in the public shapes, or from installed packages, checked before anything starts."""
