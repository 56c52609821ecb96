"""A minimal component of every kind, which works: what `micraframe new-plugin` copies. Nothing imports them here."""
