"""The flights project that ``mlopskit demo`` runs: a year of a model's life, hour by hour."""
