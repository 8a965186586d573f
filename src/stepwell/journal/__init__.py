"""One journal for every run: memory, SQLite and PostgreSQL behind one writer."""
