"""Read the facts of a host: one module per source; ``collection`` runs them all."""
