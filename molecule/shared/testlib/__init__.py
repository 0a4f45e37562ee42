"""What the scenarios' tests share; pytest's `pythonpath` (pyproject.toml) makes it importable."""
